"""Text from outside as a terminal may have it: nothing in it moves a cursor, sets a title or hides."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any


def printable(text: str) -> str:
    """The text with everything that is no printable character escaped as Python writes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_text(value: Any) -> str:
    """One line of JSON, exact; what is not printable is escaped as JSON does it.

    Bytes are base64, times ISO 8601. Raises ``ValueError``, ``RecursionError`` where it nests too deep.
    """
    text = json.dumps(value, default=_plain, ensure_ascii=False, separators=(", ", ": "))
    if text.isprintable():
        return text
    return json.dumps(value, default=_plain)


def time_text(milliseconds: int) -> str:
    """Milliseconds since 1970, UTC, in ISO 8601; the number where no calendar has it."""
    try:
        found = dt.datetime.fromtimestamp(milliseconds / 1000, dt.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
