"""Configuration files: YAML, JSON and Java properties, each one flat map of strings.

Values are read literally: in YAML ``0644``, ``12:30`` and ``on`` stay strings, and in JSON ``1.10`` keeps its
zero. YAML's tags, anchors and aliases are rejected.

A connector may be written as a flat map with ``name`` and ``connector.class``, or as Kafka Connect's REST
takes it: ``{"name": …, "config": {…}}``. ``${env:NAME}``, ``${file:/path:key}`` (a properties file) and
``${directory:/path:file}`` are replaced by what they name, as by Kafka Connect's providers; ``$${`` means
``${``. No message shows a value.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import javaproperties
import yaml

from tieline.api import ConfigError, ConfigProblem
from tieline.api.config import Unresolved
from tieline.api.files import read_small_file
from tieline.api.strict_yaml import Duplicate, StrictLoader, load_json, load_yaml, unique

MAX_DEPTH = 20
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\r|\n")
_PROVIDERS = ("env", "file", "directory")
_REFERENCE = re.compile(
    r"\$\$\{"  # a literal ${
    r"|\$\{(?P<provider>[A-Za-z_][\w.-]*):(?P<rest>[^}]*)(?P<end>\}?)"
    r"|\$\{(?P<name>[A-Z_][A-Z0-9_]*)\}"  # a variable, as a shell writes it
)
_OLD_AGENTS = {
    "KafkaAgent": ("services_topic_list", "kafka_broker_ip", "kafka_consumer_topic", "kafka_producer_topic"),
    "CloudAgent": ("destination_ip", "cloud_broker_ip", "cloud_consumer_topic", "cloud_producer_topic"),
}


class SettingsFile(NamedTuple):
    """The content of a file. A value with an unresolvable reference is ``Unresolved``, and a problem."""

    settings: dict[str, str]
    problems: list[ConfigProblem]


def read_settings(path: Path) -> dict[str, str]:
    """Return the flat map of a file, references replaced. Raises ``ConfigError`` with every problem."""
    file = read_file(path)
    if file.problems:
        raise ConfigError(file.problems)
    return file.settings


def read_file(path: Path, *, with_references: bool = False) -> SettingsFile:
    """Return the flat map of a file as far as possible. Raises ``ConfigError`` if it cannot be read.

    ``with_references``: return values as they are written, with ``${env:NAME}`` and the like.
    """
    where = str(path)
    try:
        text = read_small_file(path).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([ConfigProblem(where, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([ConfigProblem(where, "", f"is not text in UTF-8 (byte {error.start})")]) from None
    except ValueError as error:
        raise ConfigError([ConfigProblem(where, "", str(error))]) from None
    _reject_old_agents(where, text)
    try:
        loaded, duplicates = _load(path, text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError([ConfigProblem(where, "", f"cannot be parsed: {_describe_error(error)}")]) from None
    if not isinstance(loaded, dict):
        raise ConfigError([ConfigProblem(where, "", "holds no map of settings")])
    if isinstance(loaded.get("config"), dict):
        loaded = {**loaded["config"], **({"name": loaded["name"]} if "name" in loaded else {})}
    settings: dict[str, str] = {}
    problems = [ConfigProblem(where, duplicate.key, str(duplicate)) for duplicate in duplicates]
    for key, value in loaded.items():
        try:
            text = _text(value)
            settings[str(key)] = text if with_references else resolve(text)
        except ValueError as error:
            settings[str(key)] = Unresolved()
            problems.append(ConfigProblem(where, str(key), str(error)))
    return SettingsFile(settings, problems)


def resolve(text: str) -> str:
    """Return the text with every reference replaced. Raises ``ValueError`` for an unresolvable reference."""
    return _REFERENCE.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    if match["name"]:
        raise ValueError(
            f"${{{match['name']}}} names no provider; write ${{env:{match['name']}}} for the environment's "
            f"variable, $${{{match['name']}}} for just this text"
        )
    provider = match["provider"]
    if provider is None:
        return "${"
    if provider not in _PROVIDERS:
        near = difflib.get_close_matches(provider.lower(), _PROVIDERS, n=1)
        hint = f"did you mean ${{{near[0]}:…}}?" if near else f"known: {', '.join(_PROVIDERS)}"
        raise ValueError(f"${{{provider}:…}}: there is no provider {provider}; {hint} ($${{ stands for ${{)")
    if not match["end"]:
        raise ValueError(f"${{{provider}:… is not closed: }} is missing ($${{ stands for ${{)")
    return _resolve_reference(provider, match["rest"])


def _reject_old_agents(where: str, text: str) -> None:
    """Reject a config file of the agents that came before tieline, which a user may try first."""
    for agent, keys in _OLD_AGENTS.items():
        matching = [key for key in keys if re.search(rf"[\"']?\b{key}\b[\"']?\s*[:=]", text)]
        if len(matching) >= 2:
            message = (
                f"is a config file of {agent} ({matching[0]}, {matching[1]}), which tieline replaces: "
                "docs/how-to/old-agents.md says, setting by setting, what to write instead"
            )
            raise ConfigError([ConfigProblem(where, "", message)])


def _load(path: Path, text: str) -> tuple[Any, list[Duplicate]]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return load_json(text, parse_float=str, parse_int=str, parse_constant=str)
    if suffix == ".properties":
        return _load_properties(text)
    if suffix in (".yaml", ".yml"):
        return load_yaml(text, _Loader)
    raise ValueError(f"unknown kind of file {suffix!r}; known are .yaml, .yml, .json, .properties")


def _load_properties(text: str) -> tuple[dict[str, str], list[Duplicate]]:
    entries = []
    line = 1
    for element in javaproperties.parse(text):
        if isinstance(element, javaproperties.KeyValue):
            entries.append((element.key, element.value, line))
        line += len(_LINE_END.findall(element.source))
    duplicates: list[Duplicate] = []
    return unique(entries, duplicates), duplicates


class _Loader(StrictLoader):
    """Maps, lists, text and null; every scalar as it is written."""

    max_depth = MAX_DEPTH
    yaml_implicit_resolvers = {
        first: [(tag, expression) for tag, expression in known if tag.endswith(":null")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _describe_error(error: Exception) -> str:
    """Return what is wrong and where, without the text around it, which may be a secret."""
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


def _resolve_reference(provider: str, rest: str) -> str:
    if provider == "env":
        if rest not in os.environ:
            raise ValueError(f"the environment has no {rest}")
        return os.environ[rest]
    path, _, key = rest.rpartition(":")
    try:
        if provider == "directory":
            content = read_small_file(Path(path, key).expanduser())
            return content.decode("utf-8").rstrip("\n")
        found = javaproperties.loads(read_small_file(Path(path).expanduser()).decode("utf-8"))
    except OSError as error:
        raise ValueError(f"${{{provider}:{rest}}} cannot be read: {error.strerror}") from None
    except RuntimeError:  # ~user of a user who does not exist
        raise ValueError(f"${{{provider}:{rest}}} cannot be read: no such home folder") from None
    except (UnicodeDecodeError, javaproperties.InvalidUEscapeError):
        raise ValueError(f"${{{provider}:{rest}}} is not UTF-8 text, or not a properties file") from None
    except ValueError as error:
        raise ValueError(f"${{{provider}:{rest}}} {error}") from None
    if key not in found:
        raise ValueError(f"{path} has no key {key}")
    return str(found[key])
