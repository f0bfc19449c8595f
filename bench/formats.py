"""Which message format is best? The same six-point readings in each: bytes and time."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import fastavro
from confluent_kafka import Producer

from bench.figure import figure, say
from bench.readings import records
from bench.stand import Stand, new_name
from tieline.api import Schema, parse_json
from tieline.converters.codec import AvroCodec

_COUNT = 10_000
_BATCH = 100
_ROUNDS = 3
_ID = b"\0\0\0\0\x07"


class _Format(NamedTuple):
    """``encode``: readings to the messages that carry them; ``decode``: back."""

    encode: Callable[[Sequence[dict[str, Any]]], list[bytes]]
    decode: Callable[[Sequence[bytes]], list[Any]]


def run(stand: Stand) -> None:
    """One line a format: bytes a reading in the message and on the broker's disk, µs to write and read."""
    made = list(records("formats", _COUNT))
    values, schema = [record.value for record in made], made[0].value_schema
    assert schema is not None
    for name, form in _formats(schema).items():
        say(f"format {name}")
        messages = form.encode(values)
        if form.decode(messages) != values:
            raise RuntimeError(f"{name}: what is read is not what was written")
        figure(
            f"format.{name}",
            sum(map(len, messages)) / _COUNT,
            "bytes/reading",
            on_disk_lz4=round(_on_disk(stand, messages) / _COUNT, 1),
            write_us=_microseconds(partial(form.encode, values)),
            read_us=_microseconds(partial(form.decode, messages)),
        )


def _formats(schema: Schema) -> dict[str, _Format]:
    codec = AvroCodec.of(schema)

    def dump(data: Any) -> bytes:
        return json.dumps(data, separators=(",", ":")).encode()

    def container(values: Sequence[dict[str, Any]]) -> bytes:
        out = io.BytesIO()
        fastavro.writer(out, schema.parsed, values)
        return out.getvalue()

    def contained(messages: Sequence[bytes]) -> list[Any]:
        return [value for message in messages for value in fastavro.reader(io.BytesIO(message))]

    return {
        "json": _Format(lambda values: list(map(dump, values)), lambda found: list(map(parse_json, found))),
        "json_batched": _Format(
            lambda values: [dump(part) for part in _parts(values)],
            lambda found: [value for message in found for value in parse_json(message)],
        ),
        "avro": _Format(lambda values: list(map(codec.encode, values)), lambda m: list(map(codec.decode, m))),
        "avro_with_registry_id": _Format(
            lambda values: [_ID + codec.encode(value) for value in values],
            lambda found: [codec.decode(message, len(_ID)) for message in found],
        ),
        "avro_with_its_schema": _Format(lambda values: [container([value]) for value in values], contained),
        "avro_batched": _Format(lambda values: [container(part) for part in _parts(values)], contained),
    }


def _parts(values: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    return [values[at : at + _BATCH] for at in range(0, len(values), _BATCH)]


def _microseconds(work: Callable[[], object]) -> float:
    """CPU time a reading, the best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return round(best / _COUNT * 1e6, 1)


def _on_disk(stand: Stand, messages: Sequence[bytes]) -> int:
    """Bytes of the broker's log segments, written with tieline's own producer settings but for the key."""
    name = new_name("format")
    where = {"bootstrap.servers": stand.kafka.bootstrap}
    stand.create_topic(name, 1)
    producer = Producer({**where, "linger.ms": 5, "compression.type": "lz4", "batch.size": 1_000_000})
    for message in messages:
        producer.produce(name, message)
    if producer.flush(60):
        raise RuntimeError("not all was produced")
    folder = stand.kafka.work / "data" / f"{name}-0"
    return sum(file.stat().st_size for file in folder.glob("*.log"))
