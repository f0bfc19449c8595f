"""The bare libraries doing a sink's job: consume, decode, insert; nothing else.

`python -m bench.raw_loop BOOTSTRAP TOPIC COUNT URI COLLECTION avro|json`; prints its figures as JSON.
No offsets are committed and no error is looked at. The documents' ``_id`` is topic#partition#offset.
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


def _decoder(form: str) -> Callable[[bytes], Any]:
    if form == "json":
        return json.loads
    schema = Schema.named("volttron.DeviceReading").parsed

    def decode(data: bytes) -> Any:
        source = io.BytesIO(data)
        source.seek(5)
        value: Any = fastavro.schemaless_reader(source, schema, None)
        return value

    return decode


def main(bootstrap: str, topic: str, count: int, uri: str, collection: str, form: str) -> None:
    """Read ``count`` records from the beginning."""
    decode = _decoder(form)
    target = MongoClient[dict[str, Any]](uri)["bench"][collection]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # once 64 MB are queued librdkafka rests for 1 s: with the defaults that would be measured
            "queued.max.messages.kbytes": 262_144,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.subscribe([topic])
    done, started, cpu = 0, 0.0, 0.0
    while done < count:
        messages: list[Message] = [m for m in consumer.consume(2000, 0.1) if m.error() is None]
        if not messages:
            continue
        if not started:
            started, cpu = time.monotonic(), cpu_seconds(os.getpid())
        documents = []
        for message in messages:
            found: Any = message
            document = decode(found.value())
            document["_id"] = f"{found.topic()}#{found.partition()}#{found.offset()}"
            documents.append(document)
        target.insert_many(documents, ordered=False)
        done += len(documents)
    wall = time.monotonic() - started
    used = cpu_seconds(os.getpid()) - cpu
    figures = {"rate": done / wall, "cpu_us": used / done * 1e6, "peak_mb": peak_mb(os.getpid())}
    print(json.dumps({key: round(value, 1) for key, value in figures.items()}))


if __name__ == "__main__":
    boot, name, number, where, into, how = sys.argv[1:]
    main(boot, name, int(number), where, into, how)
