"""The filters of ``tieline consume``. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from typing import Any

from tieline.api import StartupError, parse_json
from tieline.api.commands import parse_time
from tieline.topics.decoder import DisplayRecord
from tieline.topics.printable import json_text

Filter = Callable[[DisplayRecord], bool]

MISSING = object()
"""What ``field_at`` returns if there is no such field."""


def since_ms(text: str, now: dt.datetime) -> int:
    """Return ``--since`` in ms since 1970. Raises ``StartupError`` with the known forms."""
    try:
        return max(0, int(parse_time(text, now).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise StartupError(f"--since: {error}") from None


def filters(key: str | None, where: Iterable[str], headers: Iterable[str], since: int | None) -> list[Filter]:
    """Return filters that must all let a record pass. Raises ``StartupError`` for an invalid one."""
    result: list[Filter] = []
    if since:
        result.append(lambda record: record.timestamp >= since)
    if key is not None:
        result.append(_key(_compile("--key", key)))
    result += [_header(text) for text in headers]
    result += [_where(text) for text in where]
    return result


def _key(pattern: re.Pattern[str]) -> Filter:
    return lambda record: record.key.data is not None and bool(pattern.search(text_of(record.key.data)))


def _header(text: str) -> Filter:
    name, equals, content = text.partition("=")
    if not equals or not name:
        raise StartupError(f"--header: {text!r} is not name=value")
    value = content.encode("utf-8", "surrogateescape")
    return lambda record: (name, value) in record.headers


def _where(text: str) -> Filter:
    operator = re.search("[=~]", text)
    if operator is None:
        raise StartupError(f"--where: {text!r} is neither field=value nor field~expression")
    path, wanted = text[: operator.start()].strip(), text[operator.end() :]
    if operator[0] == "~":
        pattern = _compile("--where", wanted)
        return lambda record: (
            (item := field_at(record.value.data, path)) is not MISSING and bool(pattern.search(text_of(item)))
        )
    try:
        parsed = parse_json(wanted)
    except (ValueError, RecursionError):
        parsed = wanted

    def equal(record: DisplayRecord) -> bool:
        item = field_at(record.value.data, path)
        if item is MISSING:
            return False
        # true is not 1; a field with the text "72" matches 72
        same_kind = isinstance(item, bool) == isinstance(parsed, bool)
        return (same_kind and bool(item == parsed)) or (isinstance(item, str) and item == wanted)

    return equal


def field_at(value: Any, path: str) -> Any:
    """Return the field at a path such as a.b.c, or ``MISSING``.

    The longest name that exists is used, since a name may contain dots. An empty path means the whole value;
    a number is an index into a list.
    """
    if not path:
        return value
    if isinstance(value, dict):
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            if name in value:
                field = field_at(value[name], ".".join(parts[count:]))
                if field is not MISSING:
                    return field
    elif isinstance(value, list):
        index, _, rest = path.partition(".")
        if index.isdigit() and len(index) < 10 and int(index) < len(value):
            return field_at(value[int(index)], rest)
    return MISSING


def text_of(value: Any) -> str:
    """Return a text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json_text(value)


def _compile(option: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise StartupError(f"{option}: {pattern!r} is not a regular expression: {error}") from None
