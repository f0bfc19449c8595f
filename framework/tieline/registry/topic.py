"""Schema ids in the compacted topic ``_schemas`` of the broker, in Confluent's record format.

Key ``{"keytype": "SCHEMA", "subject", "version", "magic": 1}``, value ``{"subject", "version", "id",
"schema", "deleted"}``; what Confluent's or Karapace's registry wrote is read, and the other way round.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from tieline.api import Schema
from tieline.broker.port import Broker, ConsumedRecord, ProducerRecord

TOPIC = "_schemas"
_MAX_ID = 2**31 - 1  # four bytes with a sign, as Java's registries have it


class TopicSchemaStore:
    """A ``SchemaStore`` on either home of the broker port. Safe for many threads.

    ``register`` holds the topic exclusively while it reads to the end and appends, so that two workers
    never give one id to two schemas.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._position: dict[int, int] = {}
        self._by_id: dict[int, str] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._versions: dict[str, int] = {}
        self._exists = False

    def register(self, subject: str, schema: Schema) -> int:
        """The id of this schema under this subject; new ones get the next free id. Raises ``Retriable``."""
        with self._lock:
            known = self._ids.get((subject, schema.text))
            if known is not None:
                return known
            self._ensure_topic()
            new: ProducerRecord | None = None
            with self._broker.exclusive(TOPIC) as log:
                self._catch_up()
                if (subject, schema.text) not in self._ids:
                    new = self._new_record(subject, schema)
                    log.append([new])
            if new is not None:  # taken from here: Kafka shows a transaction a moment after its end
                self._visit(ConsumedRecord(TOPIC, 0, -1, new.value, new.key, (), 0))
            return self._ids[subject, schema.text]

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of this id, which somebody else may have just registered. Raises ``Retriable``.

        Makes no topic: who only looks leaves nothing behind.
        """
        with self._lock:
            if schema_id not in self._by_id:
                self._catch_up()
            text = self._by_id.get(schema_id)
        return None if text is None else Schema.parse(text)

    def _ensure_topic(self) -> None:
        if not self._exists:
            self._broker.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
            self._exists = True

    def _catch_up(self) -> None:
        self._position = self._broker.read(TOPIC, self._visit, start=self._position)

    def _visit(self, record: ConsumedRecord) -> None:
        # So far it was read, also where the end is not reached in time: the next call goes on from here.
        self._position[record.partition] = record.offset + 1
        key, value = _json(record.key), _json(record.value)
        if key.get("keytype") != "SCHEMA":
            return  # NOOP, CONFIG, MODE, DELETE_SUBJECT: a registry's own business, ids stay
        subject, version = key.get("subject"), key.get("version")
        schema_id, text = value.get("id"), value.get("schema")
        if not (isinstance(subject, str) and isinstance(version, int)):
            return
        self._versions[subject] = max(version, self._versions.get(subject, 0))
        if type(schema_id) is int and 0 < schema_id <= _MAX_ID and isinstance(text, str):
            self._by_id[schema_id] = text
            if not value.get("deleted") and value.get("schemaType", "AVRO") == "AVRO":
                self._ids[subject, _compact(text)] = schema_id

    def _new_record(self, subject: str, schema: Schema) -> ProducerRecord:
        same = next((i for i, text in self._by_id.items() if _compact(text) == schema.text), None)
        schema_id = max(self._by_id, default=0) + 1 if same is None else same
        version = self._versions.get(subject, 0) + 1
        key = {"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1}
        value = {
            "subject": subject,
            "version": version,
            "id": schema_id,
            "schema": schema.text,
            "deleted": False,
        }
        return ProducerRecord(TOPIC, json.dumps(value).encode(), json.dumps(key).encode(), partition=0)


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _compact(text: str) -> str:
    try:
        return Schema.parse(text).text
    except ValueError:
        return text
