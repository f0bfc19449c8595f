"""Turning messages into records, sending them, and counting what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from tieline.api import DataError, Datum, Headers, RetriableError, Schema, SchemaStore, StartupError
from tieline.broker.port import Producer
from tieline.broker.records import Delivery, ProducerRecord, Unit
from tieline.cli.connection import say
from tieline.cli.consuming.filters import MISSING, field_at, text_of
from tieline.cli.producing.fit_to_schema import SchemaFitter
from tieline.cli.producing.messages import MAX_LINE, InputMessage, InvalidLine
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.codec import AvroBytes, AvroCodec

LocatedRecord = tuple[str, ProducerRecord]
"""Where a message is (file and line), and its record."""

_UNIT_RECORDS = 500
_UNIT_BYTES = 1 << 20
_MAX_IN_FLIGHT_BYTES = 32 << 20


class RecordBuilder:
    """Builds the record of each message. Raises ``StartupError`` for invalid options."""

    def __init__(
        self, topic: str, schema: str | None, key: str | None, key_field: str | None, headers: Iterable[str]
    ) -> None:
        self._topic = topic
        self._schema = None if schema is None else _schema(schema)
        self._fitter = None if self._schema is None else SchemaFitter(self._schema)
        self._key = None if key is None else key.encode("utf-8", "surrogateescape")
        self._key_field = key_field
        self._headers: Headers = tuple(map(_header, headers))

    def check(self, message: InputMessage) -> LocatedRecord | InvalidLine:
        """Return the record, still without its schema's id, or why it cannot be sent."""
        value: bytes | None = message.text
        try:
            key = self._key if self._key_field is None else _key_of(message.value, self._key_field)
            if self._schema is not None and self._fitter is not None:
                value = AvroBytes(
                    AvroCodec.of(self._schema).encode(self._fitter.fit(message.value, message.text))
                )
            elif message.value is None:
                value = None  # what deletes a key in a compacted topic
        except (ValueError, RecursionError) as error:
            return InvalidLine(message.where, str(error) or "nested too deep")
        size = len(value or b"") + len(key or b"")
        if size > MAX_LINE:
            return InvalidLine(message.where, f"takes {size} bytes; {MAX_LINE} are possible")
        return message.where, ProducerRecord(self._topic, value, key, self._headers)

    def framed(self, records: Iterable[LocatedRecord], schemas: SchemaStore) -> Iterator[LocatedRecord]:
        """Yield the records with the schema's id in front; the first one registers the schema.

        Raises ``RetriableError``, and ``FatalError`` if a registry refuses the schema.
        """
        if self._schema is None:
            yield from records
            return
        avro = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=schemas)
        for where, record in records:
            (value,) = avro.serialize([Datum(self._topic, record.value, self._schema)])
            yield where, record._replace(value=value)


class RecordSender:
    """Sends records in units, and counts what became of them."""

    def __init__(self, producer: Producer, timeout: float) -> None:
        self._producer = producer
        self._timeout = timeout
        self._in_flight: dict[Unit, list[str]] = {}
        self.given = self.sent = self.refused = 0

    @property
    def summary(self) -> str:
        """How many records were sent, refused or not confirmed."""
        if self.sent == self.given:
            return f"{self.sent} sent"
        unknown = sum(map(len, self._in_flight.values()))
        text = f"{self.sent} of {self.given} sent"
        if self.refused:
            text += f", {self.refused} refused"
        if unknown:
            text += f", {unknown} not confirmed (they may be there or not)"
        return text

    def refuse(self, line: InvalidLine) -> None:
        """Count and report a line that is not sent."""
        self.refused += 1
        say(str(line), error=True)

    def send(self, records: Iterable[LocatedRecord]) -> None:
        """Send in units, waiting while too much is in flight. Raises ``RetriableError``."""
        places: list[str] = []
        unit: list[ProducerRecord] = []
        size = 0
        for where, record in records:
            places.append(where)
            unit.append(record)
            size += len(record.value or b"")
            if len(unit) >= _UNIT_RECORDS or size >= _UNIT_BYTES:
                self._send_unit(unit, places)
                places, unit, size = [], [], 0
        if unit:
            self._send_unit(unit, places)

    def settle(self) -> None:
        """Wait until every unit has ended. Raises ``RetriableError`` if none ends within the time-out."""
        self._wait_while(lambda: bool(self._in_flight))

    def close(self) -> None:
        """Close the producer, and abandon what is not confirmed."""
        self._producer.close(1.0)

    def _send_unit(self, records: Sequence[ProducerRecord], places: list[str]) -> None:
        unit = Unit(records)
        self._in_flight[unit] = places
        self._producer.send(unit)
        self._take(self._producer.poll(0))
        self._wait_while(lambda: self._producer.in_flight_bytes > _MAX_IN_FLIGHT_BYTES)

    def _wait_while(self, busy: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while busy():
            if time.monotonic() >= deadline:
                raise RetriableError(f"the broker has confirmed nothing for {self._timeout:g} s")
            ended = self._producer.poll(0.25)
            if ended:
                self._take(ended)
                deadline = time.monotonic() + self._timeout

    def _take(self, ended: Iterable[Delivery]) -> None:
        for unit, metadata, failures in ended:
            places = self._in_flight.pop(unit)
            self.sent += len(metadata) - len(failures)
            for index, error in sorted(failures.items()):
                reason = error.failures.get(0, error) if isinstance(error, DataError) else error
                self.refuse(InvalidLine(places[index], f"refused: {reason}"))


def _schema(name: str) -> Schema:
    """Return one of tieline's schemas by its full name, or the schema in a file."""
    try:
        if name.endswith(".avsc"):
            return Schema.parse(Path(name).read_text("utf-8"))
        return Schema.named(name)
    except FileNotFoundError:
        known = sorted(
            f"{owner.name}.{file.name.removesuffix('.avsc')}"
            for owner in resources.files("tieline_schemas").iterdir()
            if owner.is_dir() and owner.name != "released"
            for file in owner.iterdir()
            if file.name.endswith(".avsc")
        )
        message = f"--schema: there is no {name}; a file ends with .avsc, known names: {', '.join(known)}"
        raise StartupError(message) from None
    except OSError as error:
        raise StartupError(f"--schema: {name} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"--schema: {name}: {error}") from None


def _header(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise StartupError(f"--header: {text!r} is not name=value")
    return name, value.encode("utf-8", "surrogateescape")


def _key_of(value: object, path: str) -> bytes:
    key = field_at(value, path)
    if key is MISSING or key is None:
        raise ValueError(f"has no {path}, which is to be the key")
    return text_of(key).encode()
