"""Shows documents of readings to a user: as a line of JSON, or as a row of a table; pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any


def to_plain(value: Any) -> Any:
    """Return a value that JSON does not have as one that it has: dates in ISO 8601."""
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def json_line(document: Mapping[str, Any], plain: Callable[[Any], Any] = to_plain) -> str:
    """Return the document as one line of JSON, with dates in ISO 8601 and exact integers."""
    text = json.dumps(document, default=plain, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(document, default=plain)


def row_of_point(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return time, topic and content of one value, without control characters for a terminal."""
    content = f"{document['point']}={short(document['value'])}{with_unit(document['units'])}"
    return printable(date_text(document["time"])), printable(document["topic"]), printable(content)


def date_text(time: Any) -> str:
    """Return a date with milliseconds; any other value as it is."""
    if isinstance(time, dt.datetime):
        return time.strftime("%Y-%m-%d %H:%M:%S.") + f"{time.microsecond // 1000:03d}"
    return str(time)


def short(value: Any, plain: Callable[[Any], Any] = to_plain) -> str:
    """Return a value with at most six digits of a floating-point number."""
    return (
        f"{value:.6g}" if isinstance(value, float) else json.dumps(value, default=plain, ensure_ascii=False)
    )


def with_unit(unit: Any) -> str:
    """Return a unit after a space, or empty."""
    return f" {unit}" if unit else ""


def printable(text: str) -> str:
    """Return text with control characters as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
