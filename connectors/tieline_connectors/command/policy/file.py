"""Parse the text of a policy file, YAML or JSON, and report all problems together; pure.

A policy decides about equipment, so nothing in it is guessed: duplicate keys are rejected, ``on``, ``off``,
``yes`` and ``no`` are texts and not booleans, ``12:30`` and ``0644`` are texts and not numbers, and YAML's
tags, anchors and aliases are rejected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tieline.api import ConfigError, ConfigProblem
from tieline.api.strict_yaml import Duplicate, StrictLoader, load_json, load_yaml
from tieline_connectors.command.model.point import point_pattern
from tieline_connectors.command.policy.policy import Policy
from tieline_connectors.command.policy.rule import Breaker, Limits, Rate, Rule

MAX_CHARACTERS = 1024 * 1024
MAX_BYTES = 4 * MAX_CHARACTERS
MAX_DEPTH = 10


def parse(text: str, where: str) -> Policy:
    """Return the policy of a file's text; ``where`` is its name (``.json``: JSON, otherwise YAML).

    Raises ``ConfigError`` with every problem, each with its place and its fix.
    """
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"is longer than {MAX_CHARACTERS} characters")
        is_json = where.lower().endswith(".json")
        loaded, duplicates = _json(text) if is_json else load_yaml(text, _Loader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError([ConfigProblem(where, "", f"cannot be read: {_describe(error)}")]) from None
    if not isinstance(loaded, dict):
        raise ConfigError([ConfigProblem(where, "", "is not a map; it begins with version: 1 and rules:")])
    problems = [ConfigProblem(where, duplicate.key, str(duplicate)) for duplicate in duplicates]
    policy: Policy | None = None
    try:
        policy = Policy.model_validate(loaded)
    except ValidationError as error:
        problems += [_problem(where, line) for line in error.errors()]
    problems += _rules_problems(loaded.get("rules"), where)
    if problems or policy is None:
        raise ConfigError(problems)
    return policy


def _rules_problems(rules: Any, where: str) -> list[ConfigProblem]:
    """Return the problems of patterns, and those between the keys of rules whose keys are each valid."""
    problems: list[ConfigProblem] = []
    for number, item in enumerate(rules if isinstance(rules, list) else (), start=1):
        points = item.get("points") if isinstance(item, dict) else None
        patterns = [points] if isinstance(points, str) else points if isinstance(points, list) else []
        messages = [_pattern_problem(pattern) for pattern in patterns if isinstance(pattern, str)]
        problems += [ConfigProblem(where, f"rule {number}: points", text) for text in messages if text]
        try:
            rule = Rule.model_validate(item)
        except ValidationError:
            continue
        problems += [ConfigProblem(where, f"rule {number}: {key}", text) for key, text in rule.problems()]
    return problems


def _pattern_problem(pattern: str) -> str | None:
    try:
        point_pattern(pattern, "a pattern")
    except ValueError as error:
        return str(error)
    return None


_KINDS: Mapping[str, type[BaseModel]] = {
    "": Policy,
    "rules": Rule,
    "limits": Limits,
    "rate": Rate,
    "breaker": Breaker,
}


def _problem(where: str, line: Any) -> ConfigProblem:
    place, key, kind = _locate(line["loc"])
    shown = f"{place}: {key}" if place and key else place or key
    if line["type"] == "extra_forbidden":
        known = list(_KINDS[kind].model_fields)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return ConfigProblem(where, shown, f"unknown key; {hint}")
    if line["type"] == "missing":
        return ConfigProblem(where, shown, "is required")
    return ConfigProblem(where, shown, _lowercase_first(str(line["msg"])))


def _locate(loc: tuple[Any, ...]) -> tuple[str, str, str]:
    """Return the place in words, the key, and the kind of map that has the key."""
    parts = list(loc)
    if parts[:1] == ["rules"] and len(parts) > 1:
        return f"rule {parts[1] + 1}", _join(parts[2:3]), "rules"
    if parts[:1] == ["limits"] and len(parts) > 1:
        return (
            ("limits", str(parts[1]), "limits")
            if len(parts) == 2
            else (f"limits.{parts[1]}", str(parts[2]), "breaker" if parts[1] == "breaker" else "rate")
        )
    return "", _join(parts[:1]), ""


def _join(parts: list[Any]) -> str:
    return ".".join(str(part) for part in parts)


def _lowercase_first(message: str) -> str:
    return message[:1].lower() + message[1:]


def _json(text: str) -> tuple[Any, list[Duplicate]]:
    depth = deepest = 0
    for bracket in re.finditer(r"[\[\]{}]", text):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return load_json(text, parse_constant=_reject_constant)


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


class _Loader(StrictLoader):
    """Loads YAML with JSON's numbers and booleans."""

    max_depth = MAX_DEPTH
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_SCALARS = (
    ("null", r"(?:~|null|)", "~n"),
    ("bool", r"(?:true|false)", "tf"),
    ("int", r"-?(?:0|[1-9][0-9]{0,18})", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", "-0123456789"),
)
for _tag, _form, _first in _SCALARS:
    for _character in [*_first, *([""] if _tag == "null" else [])]:
        _Loader.yaml_implicit_resolvers.setdefault(_character, []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(rf"{_form}\Z"))
        )


def _describe(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem = error.problem or error.context or "not YAML"
        return f"{problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split()) if not isinstance(error, RecursionError) else "nested too deeply"
