"""Making foreign text safe for a terminal: nothing in it moves the cursor, sets a title or hides."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any


def printable(text: str) -> str:
    """Return the text with every character that is not printable escaped, as in Python."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_text(value: Any) -> str:
    """Return a value as one line of JSON, with characters that are not printable escaped.

    Bytes become base64, times ISO 8601. Raises ``ValueError``, and ``RecursionError`` for too deep a nesting.
    """
    text = json.dumps(value, default=_plain, ensure_ascii=False, separators=(", ", ": "))
    if text.isprintable():
        return text
    return json.dumps(value, default=_plain)


def time_text(milliseconds: int) -> str:
    """Return milliseconds since 1970 as ISO 8601 in UTC, or as the number if that is not a date."""
    try:
        time = dt.datetime.fromtimestamp(milliseconds / 1000, dt.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
