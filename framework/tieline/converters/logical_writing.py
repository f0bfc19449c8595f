"""Convert values of Avro's logical types to what is stored, and check them. Pure.

Only what every reader can read back is written: no invalid UUID, no time of 25 hours, no decimal that would
be rounded. The stored number, text or bytes is also accepted as a value.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tieline.api.readable import logical_type
from tieline.converters.logical import MAX_DECIMAL_BYTES, decimal_of, uuid_of

Writing = Callable[[Any], Any]
"""Converts a value to what is stored; a stored value stays the same. Raises ``ValueError`` with the cause."""

_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_DAY_ONE = _UTC.toordinal()
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY = 86_400_000_000
_PER_MICROSECOND = {"millis": (1, 1000), "micros": (1, 1), "nanos": (1000, 1)}
EXACT = decimal.Context(prec=2 * 2410 * MAX_DECIMAL_BYTES // 1000, traps=[decimal.InvalidOperation])


def logical_writing(schema: Any) -> tuple[Writing, tuple[type, ...]] | None:
    """Return the conversion of a logical type and its Python types; ``None`` without a valid logical type."""
    name = logical_type(schema) if isinstance(schema, dict) else None
    unit = _PER_MICROSECOND.get(str(name).rpartition("-")[2])
    if name == "date":
        return _date, (dt.date,)
    if name == "decimal":
        return _decimal(schema), (decimal.Decimal,)
    if name == "uuid":
        return (_uuid_text if schema["type"] == "string" else _uuid_bytes), (uuid.UUID,)
    if unit is not None and str(name).startswith("time-"):
        return _time(*unit), (dt.time,)
    if unit is not None:
        return _timestamp(*unit), (dt.datetime,)
    return None


def _date(value: Any) -> Any:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.toordinal() - _DAY_ONE
    return value


def _time(factor: int, divisor: int) -> Writing:
    def write(value: Any) -> Any:
        if isinstance(value, dt.time):
            since = dt.datetime.combine(_UTC.date(), value.replace(tzinfo=dt.timezone.utc)) - _UTC
            return since // _MICROSECOND * factor // divisor
        if type(value) is int and not 0 <= value * divisor // factor < _DAY:
            raise ValueError(f"{value} is not a time of a day")
        return value

    return write


def _timestamp(factor: int, divisor: int) -> Writing:
    """Return the conversion of timestamps. A datetime without a zone is UTC; in a local-timestamp, local."""

    def write(value: Any) -> Any:
        if isinstance(value, dt.datetime):
            since = (value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)) - _UTC
            return since // _MICROSECOND * factor // divisor
        return value

    return write


def _decimal(schema: Mapping[str, Any]) -> Writing:
    scale, precision = schema.get("scale", 0), schema["precision"]
    size = schema["size"] if schema["type"] == "fixed" else None

    def write(value: Any) -> Any:
        number = decimal_of(value, scale) if type(value) is bytes else value
        if not isinstance(number, decimal.Decimal):
            return value  # too many bytes for a Decimal, or not a decimal
        if not number.is_finite():
            raise ValueError(f"{number} is not a number that a decimal can hold")
        digits = len(number.as_tuple().digits) if number else 0
        if digits + int(number.as_tuple().exponent) > precision - scale and number:
            raise ValueError(f"{_short(number)} has more than {precision - scale} digits before the point")
        unscaled = number.scaleb(scale, EXACT) if number else number
        if unscaled != unscaled.to_integral_value():
            raise ValueError(f"{_short(number)} has more than {scale} digits after the point")
        if type(value) is bytes:
            return value
        whole = int(unscaled)
        return signed_bytes(whole, size)

    return write


def signed_bytes(whole: int, size: int | None = None) -> bytes:
    """Return the big-endian two's complement, as short as possible or of this size.

    Raises ``OverflowError``.
    """
    return whole.to_bytes(size or (whole + (whole < 0)).bit_length() // 8 + 1, "big", signed=True)


def _short(number: decimal.Decimal) -> str:
    text = str(number)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _uuid_text(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return str(value)
    if type(value) is str and not isinstance(uuid_of(value), uuid.UUID):
        raise ValueError(f"{value[:40]!r} is not a UUID")
    return value


def _uuid_bytes(value: Any) -> Any:
    return value.bytes if isinstance(value, uuid.UUID) else value
