"""From messages to records on their way: checked, keyed, framed, sent, accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from tieline.api import DataError, Datum, Headers, RetriableError, Schema, SchemaStore, StartupError
from tieline.broker.port import Delivery, Producer, ProducerRecord, Unit
from tieline.cli.connection import say
from tieline.cli.consuming.filters import MISSING, field_at, text_of
from tieline.cli.producing.fit_to_schema import Fitting
from tieline.cli.producing.messages import MAX_LINE, InvalidLine, Message
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.codec import AvroBytes, AvroCodec

Placed = tuple[str, ProducerRecord]
"""Where a message stands, and its record."""

_UNIT = 500  # records, and
_UNIT_BYTES = 1 << 20
_IN_FLIGHT = 32 << 20


class RecordBuilder:
    """What every message becomes: its value, key and headers. Raises ``StartupError`` for wrong options."""

    def __init__(
        self, topic: str, schema: str | None, key: str | None, key_field: str | None, headers: Iterable[str]
    ) -> None:
        self._topic = topic
        self._schema = None if schema is None else _schema(schema)
        self._fitting = None if self._schema is None else Fitting(self._schema)
        self._key = None if key is None else key.encode("utf-8", "surrogateescape")
        self._key_field = key_field
        self._headers: Headers = tuple(map(_header, headers))

    def checked(self, one: Message) -> Placed | InvalidLine:
        """The record, still without its schema's id, and where the message stands."""
        value: bytes | None = one.text
        try:
            key = self._key if self._key_field is None else _key_of(one.value, self._key_field)
            if self._schema is not None and self._fitting is not None:
                value = AvroBytes(AvroCodec.of(self._schema).encode(self._fitting.fit(one.value, one.text)))
            elif one.value is None:
                value = None  # what deletes a key in a compacted topic
        except (ValueError, RecursionError) as error:
            return InvalidLine(one.where, str(error) or "nested too deep")
        size = len(value or b"") + len(key or b"")
        if size > MAX_LINE:
            return InvalidLine(one.where, f"takes {size} bytes; {MAX_LINE} are possible")
        return one.where, ProducerRecord(self._topic, value, key, self._headers)

    def framed(self, records: Iterable[Placed], schemas: SchemaStore) -> Iterator[Placed]:
        """The same with the schema's id in front, which it gets with the first of them.

        Raises ``RetriableError``, ``Fatal`` (a registry refuses the schema).
        """
        if self._schema is None:
            yield from records
            return
        avro = AvroConverter()
        avro.start(AvroConverterConfig.parse({}), is_key=False, schemas=schemas)
        for where, record in records:
            (value,) = avro.serialize([Datum(self._topic, record.value, self._schema)])
            yield where, record._replace(value=value)


class Sending:
    """Units on their way, and what became of them."""

    def __init__(self, producer: Producer, timeout: float) -> None:
        self._producer = producer
        self._timeout = timeout
        self._places: dict[Unit, list[str]] = {}
        self.given = self.sent = self.refused = 0

    @property
    def told(self) -> str:
        """The count."""
        if self.sent == self.given:
            return f"{self.sent} sent"
        unknown = sum(map(len, self._places.values()))
        told = f"{self.sent} of {self.given} sent"
        if self.refused:
            told += f", {self.refused} refused"
        if unknown:
            told += f", {unknown} not confirmed (they may be there or not)"
        return told

    def refuse(self, wrong: InvalidLine) -> None:
        """One that is not sent."""
        self.refused += 1
        say(str(wrong), error=True)

    def send(self, records: Iterable[Placed]) -> None:
        """In units; waits where too much is on its way. Raises ``RetriableError``."""
        places: list[str] = []
        unit: list[ProducerRecord] = []
        size = 0
        for where, record in records:
            places.append(where)
            unit.append(record)
            size += len(record.value or b"")
            if len(unit) >= _UNIT or size >= _UNIT_BYTES:
                self._unit(unit, places)
                places, unit, size = [], [], 0
        if unit:
            self._unit(unit, places)

    def settle(self) -> None:
        """Wait for the end of all of it. Raises ``RetriableError`` when nothing moves for the time-out."""
        self._wait(lambda: bool(self._places))

    def close(self) -> None:
        """Whatever is not confirmed is given up."""
        self._producer.close(1.0)

    def _unit(self, records: Sequence[ProducerRecord], places: list[str]) -> None:
        unit = Unit(records)
        self._places[unit] = places
        self._producer.send(unit)
        self._take(self._producer.poll(0))
        self._wait(lambda: self._producer.in_flight_bytes > _IN_FLIGHT)

    def _wait(self, not_yet: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while not_yet():
            if time.monotonic() >= deadline:
                raise RetriableError(f"the broker has confirmed nothing for {self._timeout:g} s")
            ended = self._producer.poll(0.25)
            if ended:
                self._take(ended)
                deadline = time.monotonic() + self._timeout

    def _take(self, ended: Iterable[Delivery]) -> None:
        for unit, metadata, failures in ended:
            places = self._places.pop(unit)
            self.sent += len(metadata) - len(failures)
            for index, error in sorted(failures.items()):
                reason = error.failures.get(0, error) if isinstance(error, DataError) else error
                self.refuse(InvalidLine(places[index], f"refused: {reason}"))


def _schema(name: str) -> Schema:
    """A schema of ours by its full name, or of a file."""
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
    found = field_at(value, path)
    if found is MISSING or found is None:
        raise ValueError(f"has no {path}, which is to be the key")
    return text_of(found).encode()
