"""Topics to read from: the same readings as Avro (as the bus source makes them) or as plain JSON."""

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

_Headers = list[tuple[str, Any]]
_DISTINCT = 10_000
PARTITIONS = 4


def avro_topic(stand: Stand, count: int) -> str:
    """``count`` readings with the headers that the bus source gives; values repeat after 10,000."""
    name = f"readings-avro-{count}"
    with stand.broker() as broker:
        if name in broker.topics():
            return name
        converter = AvroConverter(AvroConverterConfig(), is_key=False, schemas=TopicSchemaStore(broker))
        made = list(records(name, _DISTINCT))
        values = converter.serialize([Datum(name, r.value, r.value_schema) for r in made])

    def all_of_them() -> Iterator[tuple[str, bytes | None, _Headers]]:
        for number in range(count):
            record = made[number % _DISTINCT]
            own = ("tieline.id", b"%032x" % number)
            yield record.key, values[number % _DISTINCT], [own, *record.headers[1:]]

    _fill(stand, name, all_of_them())
    return name


def json_topic(stand: Stand, count: int) -> str:
    """``count`` readings as JSON of 240 bytes from a producer that knows nothing of tieline."""
    name = f"readings-json-{count}"
    with stand.broker() as broker:
        if name in broker.topics():
            return name
    chance = random.Random(1)

    def all_of_them() -> Iterator[tuple[str, bytes, _Headers]]:
        for number in range(count):
            topic = f"devices/campus/building{number % 7}/unit{number % 500}"
            moment = f"2026-01-01T{number % 24:02}:{number % 60:02}:00.000000+00:00"
            points = {point: round(chance.random() * 100, 6) for point in POINTS}
            yield topic, json.dumps({"topic": topic, "ts": moment, "points": points}).encode(), []

    _fill(stand, name, all_of_them())
    return name


def _fill(stand: Stand, name: str, content: Iterable[tuple[str, bytes | None, _Headers]]) -> None:
    say(f"filling the topic {name}")
    where = {"bootstrap.servers": stand.kafka.bootstrap}
    stand.create_topic(name, PARTITIONS)
    producer = Producer(
        {**where, "linger.ms": 20, "compression.type": "lz4", "partitioner": "murmur2_random"}
    )
    for key, value, headers in content:
        while len(producer) > 50_000:
            producer.poll(0.1)
        producer.produce(name, value, key, headers=headers)
    if producer.flush(60):
        raise RuntimeError(f"the topic {name} could not be filled")
