"""A loop that does a sink's work with the bare libraries: it consumes, decodes and inserts.

`python -m bench.raw_loop BOOTSTRAP TOPIC COUNT URI COLLECTION avro|json` prints its figures as JSON. It
commits no offsets and handles no errors. The ``_id`` of a document is topic#partition#offset.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import fastavro
from confluent_kafka import Consumer, Message
from pymongo import MongoClient

from bench.process import cpu_seconds, peak_mb
from tieline.api import Schema


def _create_decoder(encoding: str) -> Callable[[bytes], Any]:
    if encoding == "json":
        return json.loads
    schema = Schema.named("volttron.DeviceReading").parsed

    def decode(data: bytes) -> Any:
        source = io.BytesIO(data)
        source.seek(5)
        value: Any = fastavro.schemaless_reader(source, schema, None)
        return value

    return decode


def main(bootstrap: str, topic: str, count: int, uri: str, collection: str, encoding: str) -> None:
    """Copy ``count`` records from the beginning of the topic."""
    decode = _create_decoder(encoding)
    target = MongoClient[dict[str, Any]](uri)["bench"][collection]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # With the default, librdkafka pauses for 1 s whenever 64 MB are queued.
            "queued.max.messages.kbytes": 262_144,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.subscribe([topic])
    inserted, started, cpu = 0, 0.0, 0.0
    while inserted < count:
        messages: list[Message] = [m for m in consumer.consume(2000, 0.1) if m.error() is None]
        if not messages:
            continue
        if not started:
            started, cpu = time.monotonic(), cpu_seconds(os.getpid())
        documents = []
        for message in messages:
            document = decode(message.value() or b"")
            document["_id"] = f"{message.topic()}#{message.partition()}#{message.offset()}"
            documents.append(document)
        target.insert_many(documents, ordered=False)
        inserted += len(documents)
    seconds = time.monotonic() - started
    cpu = cpu_seconds(os.getpid()) - cpu
    figures = {"rate": inserted / seconds, "cpu_us": cpu / inserted * 1e6, "peak_mb": peak_mb(os.getpid())}
    print(json.dumps({key: round(value, 1) for key, value in figures.items()}))


if __name__ == "__main__":
    bootstrap_servers, topic_name, record_count, *target = sys.argv[1:]
    main(bootstrap_servers, topic_name, int(record_count), *target)
