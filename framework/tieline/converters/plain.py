"""The ``string`` and ``bytes`` converters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tieline.api import Config, Converter, DataError, Datum, Encoded, Schema, setting
from tieline.api.record import rows


def serialize_each(
    batch: Sequence[Datum], encode: Callable[[Datum], bytes], *, nulls_with_schema: bool = False
) -> list[bytes | None]:
    """Encode every datum except null. The encoder's errors become one ``DataError`` of the batch.

    With ``nulls_with_schema``, a null with a schema is encoded, too.
    """
    encoded: list[bytes | None] = []
    failures: dict[int, Exception] = {}
    for index, datum in enumerate(batch):
        try:
            is_null = datum.data is None and not (nulls_with_schema and datum.schema is not None)
            encoded.append(None if is_null else encode(datum))
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            failures[index] = error
    if failures:
        raise DataError(failures)
    return encoded


def deserialize_each(
    batch: Sequence[Encoded],
    decode: Callable[[bytes], tuple[Any, Schema | None]],
    quick: Callable[[bytes], Any] | None = None,
) -> list[Datum]:
    """Decode every value except null to data and its schema.

    The decoder's errors become one ``DataError`` of the batch.

    ``quick`` returns the same data as ``decode``, without a schema, or raises. One loop in C calls it if no
    value is null.
    """
    if quick is not None and batch:
        topics, values = zip(*batch, strict=True)
        try:
            return rows(Datum, topics, map(quick, values), itertools.repeat(None, len(batch)))
        except Exception:  # noqa: BLE001 - the loop below finds the failures one by one
            pass
    decoded: list[Datum] = []
    failures: dict[int, Exception] = {}
    for index, (topic, data) in enumerate(batch):
        try:
            decoded.append(Datum(topic, None) if data is None else Datum(topic, *decode(data)))
        except (ValueError, ArithmeticError, RecursionError) as error:
            failures[index] = error
    if failures:
        raise DataError(failures)
    return decoded


class StringConverterConfig(Config):
    """The settings of Kafka Connect's StringConverter."""

    encoding: str = setting("converter.encoding", "utf-8", doc="The character encoding.")

    def problems(self) -> list[tuple[str, str]]:
        """Return a problem if Python does not know the encoding."""
        try:
            "".encode(self.encoding)
        except LookupError:
            return [("converter.encoding", f"unknown encoding {self.encoding!r}; use utf-8, for example")]
        return []


class StringConverter(Converter[StringConverterConfig]):
    """Converts text; other data is written in Python's form."""

    config_type = StringConverterConfig

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Convert data to bytes."""
        return serialize_each(batch, lambda datum: str(datum.data).encode(self.config.encoding))

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Convert bytes to text."""
        quick = bytes.decode if self.config.encoding == "utf-8" else None
        return deserialize_each(batch, lambda data: (data.decode(self.config.encoding), None), quick)


class BytesConverter(Converter[Config]):
    """Passes bytes unchanged."""

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Return the bytes. Raises ``DataError`` for other data."""
        return serialize_each(batch, _only_bytes)

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Return the bytes."""
        return [Datum(topic, data) for topic, data in batch]


def _only_bytes(datum: Datum) -> bytes:
    if not isinstance(datum.data, bytes):
        raise TypeError(f"the bytes converter writes bytes, not {type(datum.data).__name__}")
    return datum.data
