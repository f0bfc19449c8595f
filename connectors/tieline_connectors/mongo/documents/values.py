r"""Converts JSON to values that BSON can contain; pure. Values that do not fit are written in a visible form.

| JSON                                | BSON                                                           |
|-------------------------------------|----------------------------------------------------------------|
| null, true, false, string           | null, bool, string                                             |
| integer                             | int32, int64, Decimal128, string: the first that fits           |
| number with a point or exponent     | double (NaN and both infinities, too)                          |
| array, object                       | array, document; keys with ``$`` and ``.`` unchanged           |
| NUL in a key, half a surrogate pair | ``\u0000``, ``\udc00`` spelled out                             |
| more than 100 levels deep           | ``{"_json": its JSON text}`` at the 100th                      |
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128
from bson.datetime_ms import DatetimeMS

from tieline.api import parse_json

LEVELS = 100
"""MongoDB's limit of nesting, including the document itself."""

_EPOCH = dt.datetime(1970, 1, 1)
_INT64 = 2**63
_DIGITS = 34
_CONTAINERS = (dict, list)
_SCALARS = frozenset({type(None), bool, int, float, str})


def to_date(microseconds: int) -> dt.datetime | DatetimeMS:
    """Return microseconds since 1970 as a BSON date, which keeps the milliseconds."""
    try:  # without a time zone, which BSON reads as UTC at half the cost
        return _EPOCH + dt.timedelta(0, 0, microseconds)
    except OverflowError:  # beyond the years 1 to 9999
        return DatetimeMS(microseconds // 1000)


def from_json(text: str) -> Any:
    """Return the value of a JSON text as a field of a document. Raises ``ValueError`` if it is not JSON."""
    try:
        value = parse_json(text)
    except RecursionError:
        return {"_json": text}
    return shallow(value) if may_be_deep(text) else value


def may_be_deep(text: str) -> bool:
    """Return whether a JSON text may be nested too deep for MongoDB."""
    return text.count("[") + text.count("{") >= LEVELS


def is_flat(value: dict[Any, Any] | list[Any]) -> bool:
    """Return whether a container has no other container inside, which is usual; one loop in C."""
    return _SCALARS.issuperset(map(type, value.values() if isinstance(value, dict) else value))


def shallow(value: Any) -> Any:
    """Return the value of a field, with parts that are too deep as JSON text. Raises ``ValueError``."""
    if not isinstance(value, _CONTAINERS) or is_flat(value):
        return value
    level: list[Any] = [value]
    depth = 2
    while level:
        level = [
            child
            for item in level
            if isinstance(item, _CONTAINERS)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1
        if depth > LEVELS and any(isinstance(item, _CONTAINERS) for item in level):
            return _folded(value, 2)
    return value


def _folded(value: Any, level: int) -> Any:
    if not isinstance(value, _CONTAINERS):
        return value
    children = value.values() if isinstance(value, dict) else value
    if level == LEVELS and any(isinstance(child, _CONTAINERS) for child in children):
        try:
            return {"_json": json.dumps(value)}
        except (TypeError, RecursionError) as error:
            raise ValueError(f"more than {LEVELS} levels deep, and not JSON: {error}") from None
    if isinstance(value, dict):
        return {key: _folded(child, level + 1) for key, child in value.items()}
    return [_folded(child, level + 1) for child in value]


def storable(value: Any) -> Any:
    """Return a copy that BSON can contain; the encoder raises its own error for other types."""
    if isinstance(value, dict):
        return _document(value)
    if isinstance(value, (list, tuple)):
        return [storable(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        digits = str(value)
        return Decimal128(digits) if len(digits.lstrip("-")) <= _DIGITS else digits
    return _other(value)


def _document(value: dict[Any, Any]) -> dict[Any, Any]:
    converted: dict[Any, Any] = {}
    for key, item in value.items():
        name = _text(key).replace("\0", "\\u0000") if isinstance(key, str) else key
        while name in converted:  # the key equals the escaped form of another key
            name += "_"
        converted[name] = storable(item)
    return converted


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _other(value: Any) -> Any:
    """Convert the values of Avro's logical types."""
    if isinstance(value, decimal.Decimal):
        try:
            return Decimal128(value)
        except decimal.DecimalException:  # more than 34 digits
            return str(value)
    if isinstance(value, UUID):
        return Binary.from_uuid(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day)
    if isinstance(value, (dt.time, dt.timedelta)):
        return str(value)
    return value
