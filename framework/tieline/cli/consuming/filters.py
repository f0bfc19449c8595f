"""Which records are wanted; pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from typing import Any

from tieline.api import StartupError, parse_json
from tieline.api.commands import parse_time
from tieline.cli.consuming.decoder import DisplayRecord
from tieline.cli.printable import json_text

Filter = Callable[[DisplayRecord], bool]

MISSING = object()
"""What ``field_at`` returns where there is no such field."""


def since_ms(text: str, now: dt.datetime) -> int:
    """``--since`` in ms since 1970. Raises ``StartupError`` with the forms that are known."""
    try:
        return max(0, int(parse_time(text, now).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise StartupError(f"--since: {error}") from None


def filters(key: str | None, where: Iterable[str], headers: Iterable[str], since: int | None) -> list[Filter]:
    """All of these have to let a record pass. Raises ``StartupError`` for what is no filter."""
    found: list[Filter] = []
    if since:
        found.append(lambda seen: seen.timestamp >= since)
    if key is not None:
        found.append(_key(_compiled("--key", key)))
    found += [_header(text) for text in headers]
    found += [_where(text) for text in where]
    return found


def _key(pattern: re.Pattern[str]) -> Filter:
    return lambda seen: seen.key.data is not None and bool(pattern.search(text_of(seen.key.data)))


def _header(text: str) -> Filter:
    name, equals, wanted = text.partition("=")
    if not equals or not name:
        raise StartupError(f"--header: {text!r} is not name=value")
    value = wanted.encode("utf-8", "surrogateescape")
    return lambda seen: (name, value) in seen.headers


def _where(text: str) -> Filter:
    found = re.search("[=~]", text)
    if found is None:
        raise StartupError(f"--where: {text!r} is neither field=value nor field~expression")
    path, wanted = text[: found.start()].strip(), text[found.end() :]
    if found[0] == "~":
        pattern = _compiled("--where", wanted)
        return lambda seen: (
            (item := field_at(seen.value.data, path)) is not MISSING and bool(pattern.search(text_of(item)))
        )
    try:
        parsed = parse_json(wanted)
    except (ValueError, RecursionError):
        parsed = wanted

    def equal(seen: DisplayRecord) -> bool:
        item = field_at(seen.value.data, path)
        if item is MISSING:
            return False
        # true is not 1, and the text "72" is what somebody means who writes 72
        same_kind = isinstance(item, bool) == isinstance(parsed, bool)
        return (same_kind and bool(item == parsed)) or (isinstance(item, str) and item == wanted)

    return equal


def field_at(value: Any, path: str) -> Any:
    """What is at a.b.c: the longest name that is there is taken, since a name may have dots itself.

    No path: the whole value. A number is an index into a list.
    """
    if not path:
        return value
    if isinstance(value, dict):
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            if name in value:
                found = field_at(value[name], ".".join(parts[count:]))
                if found is not MISSING:
                    return found
    elif isinstance(value, list):
        index, _, rest = path.partition(".")
        if index.isdigit() and len(index) < 10 and int(index) < len(value):
            return field_at(value[int(index)], rest)
    return MISSING


def text_of(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json_text(value)


def _compiled(option: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise StartupError(f"{option}: {pattern!r} is no regular expression: {error}") from None
