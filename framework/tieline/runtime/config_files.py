"""Configuration files: YAML, JSON and Java properties, each one flat map of strings.

A connector may stand in the file as it is (with ``name`` and ``connector.class``), or as Kafka
Connect's REST takes it: ``{"name": …, "config": {…}}``. ``${env:NAME}``, ``${file:/path:key}`` (a
properties file) and ``${directory:/path:file}`` are replaced by what they name, as by Kafka Connect's
providers; their values are never shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import javaproperties
import yaml

from tieline.api import ConfigError, Mistake

MAX_BYTES = 1024 * 1024
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
        raise ConfigError(
            [Mistake(where, "", f"cannot be parsed: {' '.join(str(error).split())}")]
        ) from error
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
        return json.loads(text)
    if suffix == ".properties":
        return javaproperties.loads(text)
    if suffix in (".yaml", ".yml"):
        return yaml.safe_load(text)
    raise ValueError(f"unknown kind of file {suffix!r}; known are .yaml, .yml, .json, .properties")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    if isinstance(value, Mapping):
        raise ValueError("holds a map; settings are flat, with dots in their keys")
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
    except (OSError, ValueError) as error:
        raise ValueError(f"${{{provider}:{rest}}} cannot be read: {error}") from None
    if key not in found:
        raise ValueError(f"{path} has no key {key}")
    return str(found[key])
