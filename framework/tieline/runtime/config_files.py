"""Configuration files: YAML, JSON and Java properties, each one flat map of strings.

Values are the text that stands in the file: in YAML ``0644``, ``12:30`` and ``on`` are no numbers or
booleans here, and in JSON ``1.10`` keeps its zero. YAML's tags, anchors and aliases are refused.

A connector may stand in the file as it is (with ``name`` and ``connector.class``), or as Kafka
Connect's REST takes it: ``{"name": …, "config": {…}}``. ``${env:NAME}``, ``${file:/path:key}`` (a
properties file) and ``${directory:/path:file}`` are replaced by what they name, as by Kafka Connect's
providers. No message about a mistake shows a value.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import javaproperties
import yaml

from tieline.api import ConfigError, Mistake
from tieline.api.strict_yaml import StrictLoader, once

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)
_REFERENCE = re.compile(r"\$\{(env|file|directory):([^}]*)\}")


def read_settings(path: Path) -> dict[str, str]:
    """The flat map of a file, references replaced. Raises ``ConfigError`` with every mistake in it."""
    where = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError([Mistake(where, "", f"is larger than {MAX_BYTES} bytes")])
        loaded = _load(path, path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([Mistake(where, "", f"cannot be read: {error.strerror}")]) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError([Mistake(where, "", f"cannot be parsed: {_told(error)}")]) from None
    if not isinstance(loaded, dict):
        raise ConfigError([Mistake(where, "", "holds no map of settings")])
    if isinstance(loaded.get("config"), dict):
        loaded = {**loaded["config"], **({"name": loaded["name"]} if "name" in loaded else {})}
    settings: dict[str, str] = {}
    mistakes: list[Mistake] = []
    for key, value in loaded.items():
        try:
            settings[str(key)] = resolve(_text(value))
        except ValueError as error:
            mistakes.append(Mistake(where, str(key), str(error)))
    if mistakes:
        raise ConfigError(mistakes)
    return settings


def resolve(text: str) -> str:
    """The text with every reference replaced. Raises ``ValueError`` naming a reference that leads nowhere."""
    return _REFERENCE.sub(lambda match: _referred(match[1], match[2]), text)


def _load(path: Path, text: str) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=once, parse_float=str, parse_int=str, parse_constant=str)
    if suffix == ".properties":
        return javaproperties.loads(text)
    if suffix in (".yaml", ".yml"):
        return yaml.load(text, Loader=_Loader)
    raise ValueError(f"unknown kind of file {suffix!r}; known are .yaml, .yml, .json, .properties")


class _Loader(StrictLoader):
    """Maps, lists, text and null; every scalar as it is written."""

    max_depth = MAX_DEPTH
    yaml_implicit_resolvers = {
        first: [(tag, expression) for tag, expression in known if tag.endswith(":null")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _told(error: Exception) -> str:
    """What is wrong and where, without the text around it, which may be a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = _QUOTED.sub("…", error.problem or error.context or "")
        return f"{what} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    if isinstance(error, javaproperties.InvalidUEscapeError):
        return "a \\u without four hexadecimal digits"
    return " ".join(str(error).split()) if not isinstance(error, RecursionError) else "nested too deep"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return ",".join(_text(item) for item in value)
    if isinstance(value, (list, dict)):
        raise ValueError("holds maps or lists inside; settings are flat, with dots in their keys")
    return str(value)


def _referred(provider: str, rest: str) -> str:
    if provider == "env":
        if rest not in os.environ:
            raise ValueError(f"the environment has no {rest}")
        return os.environ[rest]
    path, _, key = rest.rpartition(":")
    try:
        if provider == "directory":
            return Path(path, key).read_text("utf-8").rstrip("\n")
        found = javaproperties.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"${{{provider}:{rest}}} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"${{{provider}:{rest}}} is no UTF-8 text, or no properties file") from None
    if key not in found:
        raise ValueError(f"{path} has no key {key}")
    return str(found[key])
