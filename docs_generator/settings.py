"""The settings reference: Markdown from a typed ``Config`` class."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tieline.api import Config

MARKER = re.compile(
    r"^<!-- settings: (?P<config>[\w.:]+)"
    r"(?: without (?P<without>[\w.:,]+))?(?: below (?P<below>\S+))?(?: as (?P<anchors>\S+))? -->$",
    re.M,
)
"""A page has this line where the settings of a class are shown.

``without`` leaves out the settings that other classes have too, separated by commas. ``below`` is what
stands before each key in a file. ``as`` stands before the anchors, where a page shows two classes that share
a key.
"""

_UNITS = {
    "ms": (("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)),
    "bytes": (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)),
}


def load(path: str) -> type[Config]:
    """Return the class at ``package.module:Class``."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise TypeError(f"{path} is not a Config class")
    return found


def insert(page: str) -> str:
    """Return the page with each marker replaced by the settings that it names."""

    def section(marker: re.Match[str]) -> str:
        others = (marker["without"] or "").split(",")
        without = set().union(*(load(other).keys() for other in others if other))
        anchors = f"{marker['anchors']}." if marker["anchors"] else ""
        config = load(marker["config"])
        return settings(config, leave_out=without, below=marker["below"] or "", anchors=anchors)

    return MARKER.sub(section, page)


def settings(
    config: type[Config], *, leave_out: Collection[str] = (), below: str = "", anchors: str = ""
) -> str:
    """Return a heading for each setting, with its meaning, type, default, range and importance."""
    parts = []
    for field, definition in zip(config.model_fields.values(), config.definition(), strict=True):
        key = definition["name"]
        if key in leave_out:
            continue
        facts = [
            definition["type"].lower(),
            "**required**" if definition["required"] else _default(key, definition["default_value"]),
            *limits(field, key),
            f"importance {definition['importance'].lower()}",
        ]
        meaning = _escape(definition["documentation"])
        name = f"{below}{key}"
        parts.append(f"#### `{name}` {{ #{anchors}{name} }}\n{meaning}\n\n*{' · '.join(facts)}*\n")
    return "\n".join(parts)


def limits(field: FieldInfo, key: str = "") -> list[str]:
    """Return what a value must satisfy, in words: its range, or the values that there are."""
    rules = [*field.metadata, *(rule for kind in get_args(field.annotation) for rule in get_args(kind))]
    bounds = {
        name: getattr(rule, name)
        for rule in rules
        for name in ("ge", "gt", "le", "lt")
        if hasattr(rule, name)
    }
    values = _values(field.annotation)
    words = []
    if values:
        words.append("one of " + ", ".join(f"`{value}`" for value in values))
    if "ge" in bounds and "le" in bounds:
        words.append(f"{_number(key, bounds['ge'])} to {_number(key, bounds['le'])}")
    else:
        names = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
        words += [
            f"{names[name]} {_number(key, bound)}" for name, bound in bounds.items() if bound is not None
        ]
    return words


def _values(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for inner in get_args(annotation):
        if found := _values(inner):
            return found
    return ()


def _default(key: str, default: str | None) -> str:
    if default is None or default == "":
        return "not set by default"
    return f"default {_number(key, default)}"


def _number(key: str, value: Any) -> str:
    """The value as it is written in a file, with a readable unit where the key names one."""
    text = f"`{value}`"
    units = _UNITS.get(key.rpartition(".")[2], ())
    if re.fullmatch(r"\d+", str(value)):
        for unit, size in units:
            if int(value) >= size and int(value) % size == 0:
                count = int(value) // size
                return f"{text} ({count} {unit}{'s' if unit == 'day' and count > 1 else ''})"
    return text


def _escape(text: str) -> str:
    """Texts of settings are plain but for code in backquotes: nothing else in them is Markdown."""
    return re.sub(r"([*_{}\[\]])", r"\\\1", text).replace("<", "&lt;")
