"""Read values of Avro's logical types as Python's types. Pure.

Avro permits values that Python's types cannot represent: the year 10000, a time of 25 hours, any text as a
UUID, a decimal of thousands of digits. They must not stop a sink, so such a value stays the number, text or
bytes that is stored.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import fastavro.read

from tieline.api.readable import ENUM, SYMBOLS, readable
from tieline.api.schema import parsed_once

PREFIX = "tieline."
"""The prefix of logical types in what ``for_fastavro`` returns. No other user of fastavro has such types."""

MAX_DECIMAL_BYTES = 1700
"""About 4,096 digits, which is close to Python's own limit. A longer decimal stays bytes."""

_EPOCH = dt.datetime(1970, 1, 1)
UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_DAY_ONE = _EPOCH.toordinal()
_EXACT = decimal.Context(
    prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.InvalidOperation]
)


def for_fastavro(definition: Any) -> Any:
    """Return a schema with which fastavro reads logical types by the functions of this module."""
    return parsed_once(readable(definition, PREFIX))


def timestamp(epoch: dt.datetime, microseconds: int) -> Callable[..., Any]:
    """Return a reader of timestamps: numbers of units of so many microseconds since ``epoch``."""

    def read(data: int, _writer: Any = None, _reader: Any = None) -> Any:
        try:
            return epoch + dt.timedelta(microseconds=data * microseconds)
        except OverflowError:
            return data

    return read


def date(data: int, _writer: Any = None, _reader: Any = None) -> Any:
    """Read a number of days since 1970-01-01."""
    try:
        return dt.date.fromordinal(data + _DAY_ONE)
    except (ValueError, OverflowError):
        return data


def time(microseconds: int) -> Callable[..., Any]:
    """Return a reader of times: numbers of units of so many microseconds since midnight."""

    def read(data: int, _writer: Any = None, _reader: Any = None) -> Any:
        if not 0 <= data * microseconds < 86_400_000_000:
            return data
        return (_EPOCH + dt.timedelta(microseconds=data * microseconds)).time()

    return read


def decimal_of(data: bytes, scale: int) -> decimal.Decimal | bytes:
    """Return the exact number, even if it has more digits than its precision; the bytes if it is too long."""
    if len(data) > MAX_DECIMAL_BYTES:
        return data
    try:
        return _EXACT.scaleb(decimal.Decimal(int.from_bytes(data, "big", signed=True)), -scale)
    except decimal.DecimalException:
        return data


def _decimal(data: bytes, writer: Mapping[str, Any], _reader: Any = None) -> Any:
    return decimal_of(data, writer.get("scale", 0))


def uuid_of(text: str) -> uuid.UUID | str:
    """Return a UUID if the text is written as one (8-4-4-4-12), and otherwise the text."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return text
    return parsed if str(parsed) == text.lower() else text


def _symbol(data: int, writer: Mapping[str, Any], _reader: Any = None) -> Any:
    if data < 0:
        raise ValueError(f"an enum has no symbol {data}")
    return writer[SYMBOLS][data]


_READERS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("int", "date"): date,
    ("int", "time-millis"): time(1000),
    ("long", "time-micros"): time(1),
    ("long", "timestamp-millis"): timestamp(UTC, 1000),
    ("long", "timestamp-micros"): timestamp(UTC, 1),
    ("long", "local-timestamp-millis"): timestamp(_EPOCH, 1000),
    ("long", "local-timestamp-micros"): timestamp(_EPOCH, 1),
    ("bytes", "decimal"): _decimal,
    ("fixed", "decimal"): _decimal,
    ("string", "uuid"): lambda data, *_: uuid_of(data),
    ("fixed", "uuid"): lambda data, *_: uuid.UUID(bytes=data),
    ("int", ENUM): _symbol,
}
"""Python has no type for nanoseconds and durations, so they stay int and bytes."""

for (_base, _name), _read in _READERS.items():
    fastavro.read.LOGICAL_READERS[f"{_base}-{PREFIX}{_name}"] = _read
