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
    """Encode every datum but null; what an encoder says of bad data becomes the batch's ``DataError``.

    ``nulls_with_schema``: encode a null, too, if it has a schema.
    """
    out: list[bytes | None] = []
    failures: dict[int, Exception] = {}
    for index, datum in enumerate(batch):
        try:
            is_null = datum.data is None and not (nulls_with_schema and datum.schema is not None)
            out.append(None if is_null else encode(datum))
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            failures[index] = error
    if failures:
        raise DataError(failures)
    return out


def deserialize_each(
    batch: Sequence[Encoded],
    decode: Callable[[bytes], tuple[Any, Schema | None]],
    quick: Callable[[bytes], Any] | None = None,
) -> list[Datum]:
    """Decode every value but null, to data and its schema; what a decoder says of bad data
    becomes the batch's ``DataError``.

    ``quick``: gives the data that ``decode`` gives, without a schema, or raises; called from one loop in C
    where no value is null.
    """
    if quick is not None and batch:
        topics, values = zip(*batch, strict=True)
        try:
            return rows(Datum, topics, map(quick, values), itertools.repeat(None, len(batch)))
        except Exception:  # which one, and why, is found below, one by one
            pass
    out: list[Datum] = []
    failures: dict[int, Exception] = {}
    for index, (topic, data) in enumerate(batch):
        try:
            out.append(Datum(topic, None) if data is None else Datum(topic, *decode(data)))
        except (ValueError, ArithmeticError, RecursionError) as error:
            failures[index] = error
    if failures:
        raise DataError(failures)
    return out


class StringConverterConfig(Config):
    """As Kafka Connect's StringConverter."""

    encoding: str = setting("converter.encoding", "utf-8", doc="The character encoding.")

    def problems(self) -> list[tuple[str, str]]:
        """An encoding that Python does not know."""
        try:
            "".encode(self.encoding)
        except LookupError:
            return [("converter.encoding", f"no encoding is called {self.encoding!r}; usual is utf-8")]
        return []


class StringConverter(Converter[StringConverterConfig]):
    """Text; other data than text is written as Python prints it."""

    config_type = StringConverterConfig

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Data to bytes."""
        return serialize_each(batch, lambda datum: str(datum.data).encode(self.config.encoding))

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Bytes to text."""
        quick = bytes.decode if self.config.encoding == "utf-8" else None
        return deserialize_each(batch, lambda data: (data.decode(self.config.encoding), None), quick)


class BytesConverter(Converter[Config]):
    """Bytes as they are."""

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Only bytes."""
        return serialize_each(batch, _only_bytes)

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """As they are."""
        return [Datum(topic, data) for topic, data in batch]


def _only_bytes(datum: Datum) -> bytes:
    if not isinstance(datum.data, bytes):
        raise TypeError(f"the bytes converter writes bytes, not {type(datum.data).__name__}")
    return datum.data
