"""Converts a point's value to what SQLite stores, with its exact type, and back; pure.

| value                                    | in SQLite                                        |
|------------------------------------------|--------------------------------------------------|
| null                                     | NULL                                             |
| integer of 64 bits                       | INTEGER                                          |
| floating-point number, also -0.0 and ±∞  | REAL                                             |
| text                                     | TEXT                                             |
| false, true                              | BLOB of the byte 0 or 1                          |
| NaN, which SQLite would store as NULL    | BLOB of the byte 2                               |
| longer integer, list, object, other text | BLOB of the byte 3 and then JSON text, unchanged |
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from tieline.api import parse_json

Stored = None | int | float | str | bytes

FALSE, TRUE, NAN, JSON = b"\0", b"\1", b"\2", b"\3"

_MAX = 2**63


def to_stored(value: Any) -> Stored:
    """Return a value in its stored form. Raises ``ValueError`` for a value that JSON does not have.

    ``{"json": text}`` is a ``volttron.JsonText``: its text is stored as it is.
    """
    kind = type(value)
    if kind is float:
        return value if value == value else NAN
    if kind is bool:
        return TRUE if value else FALSE
    if value is None or (kind is int and -_MAX <= value < _MAX):
        return value  # type: ignore[no-any-return]
    if kind is str and is_storable(value):
        return value  # type: ignore[no-any-return]
    if kind is dict and value.keys() == {"json"} and type(value["json"]) is str:
        return JSON + _checked(value["json"]).encode("utf-8", "surrogatepass")
    if kind not in (int, str, list, dict):
        raise ValueError(f"a value of type {kind.__name__} cannot be stored")
    try:
        return JSON + json.dumps(value).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"a value is not JSON: {error}") from None


def from_stored(stored: Stored) -> Any:
    """Return the value of a stored form. A JSON text that is nested too deep becomes ``{"_json": text}``."""
    if type(stored) is not bytes:
        return stored
    if stored[:1] == JSON:
        text = stored[1:].decode("utf-8", "surrogatepass")
        try:
            return parse_json(text)
        except RecursionError:
            return {"_json": text}
    return math.nan if stored == NAN else stored == TRUE


def number_in(stored: bytes) -> int | float | None:
    """Return the number that a chart shows of a BLOB: 0 or 1 of a boolean, or a finite longer integer."""
    if stored in (FALSE, TRUE):
        return stored[0]
    if stored[:1] == JSON and stored[1:2] in b"-0123456789":
        value = from_stored(stored)
        try:
            number = float(value)
        except (OverflowError, TypeError):
            return None
        return number if math.isfinite(number) else None
    return None


def number_of(stored: Stored) -> float | None:
    """Return the number that a chart shows of a stored value, or ``None``."""
    if type(stored) is bytes:
        number = number_in(stored)
        return None if number is None else float(number)
    if isinstance(stored, (int, float)) and math.isfinite(stored):
        return float(stored)
    return None


def is_storable(text: str) -> bool:
    """Return whether UTF-8 has this text: not with half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sort_key(stored: Stored) -> bytes:
    """Return bytes that differ between different stored values, also between 1, 1.0 and true."""
    if type(stored) is bytes:
        return b"b" + stored
    return repr(stored).encode()


def _checked(text: str) -> str:
    with suppress(RecursionError):  # nested too deep to check
        try:
            parse_json(text)
        except ValueError as error:
            raise ValueError(f"a JsonText is not JSON: {error}") from None
    return text
