"""The size and the time of the same six-point readings in several message formats."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import fastavro
from confluent_kafka import Producer

from bench.figure import print_figure, say
from bench.readings import records
from bench.stand import Stand, create_name
from tieline.api import Schema, parse_json
from tieline.converters.codec import AvroCodec

_COUNT = 10_000
_BATCH = 100
_ROUNDS = 3
_SCHEMA_ID = b"\0\0\0\0\x07"


class _Format(NamedTuple):
    """``encode`` turns readings into messages, ``decode`` turns messages into readings."""

    encode: Callable[[Sequence[dict[str, Any]]], list[bytes]]
    decode: Callable[[Sequence[bytes]], list[Any]]


def run(stand: Stand) -> None:
    """Print for each format the bytes per reading, in the message and on disk, and the µs per reading."""
    readings = list(records("formats", _COUNT))
    values, schema = [record.value for record in readings], readings[0].value_schema
    assert schema is not None
    for name, format_ in _create_formats(schema).items():
        say(f"format {name}")
        messages = format_.encode(values)
        if format_.decode(messages) != values:
            raise RuntimeError(f"{name}: the decoded values differ from the encoded ones")
        print_figure(
            f"format.{name}",
            sum(map(len, messages)) / _COUNT,
            "bytes/reading",
            on_disk_lz4=round(_measure_disk(stand, messages) / _COUNT, 1),
            write_us=_measure_us(partial(format_.encode, values)),
            read_us=_measure_us(partial(format_.decode, messages)),
        )


def _create_formats(schema: Schema) -> dict[str, _Format]:
    codec = AvroCodec.of(schema)

    def to_json(data: Any) -> bytes:
        return json.dumps(data, separators=(",", ":")).encode()

    def to_container(values: Sequence[dict[str, Any]]) -> bytes:
        out = io.BytesIO()
        fastavro.writer(out, schema.parsed, values)
        return out.getvalue()

    def from_containers(messages: Sequence[bytes]) -> list[Any]:
        return [value for message in messages for value in fastavro.reader(io.BytesIO(message))]

    return {
        "json": _Format(lambda values: list(map(to_json, values)), lambda m: list(map(parse_json, m))),
        "json_batched": _Format(
            lambda values: [to_json(batch) for batch in _split(values)],
            lambda messages: [value for message in messages for value in parse_json(message)],
        ),
        "avro": _Format(lambda values: list(map(codec.encode, values)), lambda m: list(map(codec.decode, m))),
        "avro_with_registry_id": _Format(
            lambda values: [_SCHEMA_ID + codec.encode(value) for value in values],
            lambda messages: [codec.decode(message, len(_SCHEMA_ID)) for message in messages],
        ),
        "avro_with_its_schema": _Format(
            lambda values: [to_container([value]) for value in values], from_containers
        ),
        "avro_batched": _Format(
            lambda values: [to_container(batch) for batch in _split(values)], from_containers
        ),
    }


def _split(values: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    return [values[start : start + _BATCH] for start in range(0, len(values), _BATCH)]


def _measure_us(work: Callable[[], object]) -> float:
    """Return the CPU time per reading, the best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return round(best / _COUNT * 1e6, 1)


def _measure_disk(stand: Stand, messages: Sequence[bytes]) -> int:
    """Return the bytes of the broker's log segments, produced without keys but with tieline's settings."""
    name = create_name("format")
    stand.create_topic(name, 1)
    settings = {"linger.ms": 5, "compression.type": "lz4", "batch.size": 1_000_000}
    producer = Producer({**stand.kafka_settings, **settings})
    for message in messages:
        producer.produce(name, message)
    if producer.flush(60):
        raise RuntimeError(f"the topic {name} could not be filled within 60 s")
    folder = stand.kafka.work / "data" / f"{name}-0"
    return sum(file.stat().st_size for file in folder.glob("*.log"))
