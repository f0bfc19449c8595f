"""The schemas of a spool's records: each is stored in the spool's file once, under a number."""

from __future__ import annotations

import zlib

from tieline.api import Schema
from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord
from tieline.runtime.task.alarms import Alarms

TOPIC = "schemas"


class SpoolSchemas:
    """Stores schemas and finds them. The receiver's thread calls ``number``, the pump's calls ``schema``."""

    def __init__(self, store: Store, alarms: Alarms) -> None:
        self._store = store
        self._alarms = alarms
        self._schemas: dict[int, Schema] = {}
        self._numbers: dict[Schema, int] = {}
        self._load()

    def number(self, schema: Schema) -> int:
        """Return its number; a new schema is stored first. Raises ``RetriableError``, ``FatalError``."""
        number = self._numbers.get(schema)
        if number is None:
            text = schema.text.encode()
            stored = self._store.append([ProducerRecord(TOPIC, text, _checksum(text), (), None, 0)])
            number = stored[0].offset
            self._remember(number, schema)
        return number

    def schema(self, number: int) -> Schema:
        """Return the schema with this number. Raises ``ValueError`` if the file does not hold it whole."""
        schema = self._schemas.get(number)
        if schema is None:
            raise ValueError(f"its schema {number} is damaged")
        return schema

    def _load(self) -> None:
        position = 0
        while records := self._store.read_from(TOPIC, 0, position):
            for record in records:
                text = record.value or b""
                try:
                    if record.key not in (None, _checksum(text)):  # version 0.1 stored no checksum
                        raise ValueError("its checksum does not fit")
                    self._remember(record.offset, Schema.parse(text.decode()))
                except Exception as error:  # noqa: BLE001 - damaged bytes may raise anything
                    self._alarms.raise_alarm(
                        "schema",
                        f"the schema {record.offset} in the spool {self._store.path} is damaged: {error}. "
                        "Its records go to the quarantine; check the disk",
                    )
            position = records[-1].offset + 1

    def _remember(self, number: int, schema: Schema) -> None:
        self._numbers.setdefault(schema, number)
        self._schemas[number] = schema


def _checksum(text: bytes) -> bytes:
    return zlib.crc32(text).to_bytes(4, "big")
