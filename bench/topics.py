"""Topics that sinks read: the same readings as Avro, as the bus source writes them, or as plain JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Producer

from bench.figure import say
from bench.readings import POINTS, records
from bench.stand import Stand
from tieline.api import Datum
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore

_Message = tuple[str, bytes | None, list[tuple[str, Any]]]  # key, value, headers
_DISTINCT = 10_000
PARTITIONS = 4


def create_avro_topic(stand: Stand, count: int) -> str:
    """Return a topic of ``count`` readings with the bus source's headers; values repeat after 10,000."""
    name = f"readings-avro-{count}"
    with stand.open_broker() as broker:
        if name in broker.topics():
            return name
        converter = AvroConverter(AvroConverterConfig(), is_key=False, schemas=TopicSchemaStore(broker))
        readings = list(records(name, _DISTINCT))
        values = converter.serialize([Datum(name, r.value, r.value_schema) for r in readings])

    def messages() -> Iterator[_Message]:
        for number in range(count):
            reading = readings[number % _DISTINCT]
            id_header = ("tieline.id", b"%032x" % number)
            yield reading.key, values[number % _DISTINCT], [id_header, *reading.headers[1:]]

    _fill(stand, name, messages())
    return name


def create_json_topic(stand: Stand, count: int) -> str:
    """Return a topic of ``count`` readings as JSON of 240 bytes, as another program would write them."""
    name = f"readings-json-{count}"
    with stand.open_broker() as broker:
        if name in broker.topics():
            return name
    generator = random.Random(1)

    def messages() -> Iterator[_Message]:
        for number in range(count):
            topic = f"devices/campus/building{number % 7}/unit{number % 500}"
            time = f"2026-01-01T{number % 24:02}:{number % 60:02}:00.000000+00:00"
            points = {point: round(generator.random() * 100, 6) for point in POINTS}
            yield topic, json.dumps({"topic": topic, "ts": time, "points": points}).encode(), []

    _fill(stand, name, messages())
    return name


def _fill(stand: Stand, name: str, messages: Iterable[_Message]) -> None:
    say(f"filling the topic {name}")
    stand.create_topic(name, PARTITIONS)
    settings = {"linger.ms": 20, "compression.type": "lz4", "partitioner": "murmur2_random"}
    producer = Producer({**stand.kafka_settings, **settings})
    for key, value, headers in messages:
        while len(producer) > 50_000:
            producer.poll(0.1)
        producer.produce(name, value, key, headers=headers)
    if producer.flush(60):
        raise RuntimeError(f"the topic {name} could not be filled within 60 s")
