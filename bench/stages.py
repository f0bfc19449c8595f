"""(g) The cost of each step of a reading's journey, in CPU seconds per million six-point readings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from bench.figure import print_figure, say
from bench.readings import frames
from bench.stand import Stand
from tieline.api import SchemaStore, TopicPartition
from tieline.broker.local.log import LocalLog
from tieline.broker.records import Unit
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.task.transform_chain import TransformChain
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.sink import MongoSinkTask
from tieline_connectors.volttron_bus.messages.message import ParseLimits, parse_message
from tieline_connectors.volttron_bus.messages.records import RecordMapper, Route

T = TypeVar("T")
_COUNT = 20_000
_BATCH = 2000
_TOPIC = "readings"


class _Listener:
    """A listener that accepts every assignment."""

    def assigned(self, partitions: Collection[TopicPartition]) -> None: ...

    def revoked(self, partitions: Collection[TopicPartition]) -> None: ...

    def lost(self, partitions: Collection[TopicPartition]) -> None: ...


def run(stand: Stand) -> None:
    """Run each step of the journey by itself, in this process, with the local log."""
    say("(g) CPU by step")
    raw = [frames(number) for number in range(_COUNT)]
    mapper = RecordMapper("lab", [Route("devices", _TOPIC)], "")
    records = _measure("1-receive", lambda: [mapper.record(parse_message(f, 0, ParseLimits())) for f in raw])
    folder = stand.create_folder("stages")
    with contextlib.ExitStack() as stack:
        spool = Spool(folder / "s.db", Limits(1 << 33, True, 0), Counters(), as_avro=True)
        stack.callback(spool.close)
        _measure("2-spool", lambda: _call_for_each(spool.append, _split(records)))
        spooled = _measure("2-spool-read", lambda: list(_drain(spool)))
        log = LocalLog.open(folder / "log")
        stack.callback(log.close)
        store = TopicSchemaStore(log)
        source = SourceConversion(TransformChain([]), *_create_converters(store))
        units = _measure(
            "3-4-convert",
            lambda: [Unit(_drop_filtered(source.convert(batch).records)) for batch in _split(spooled)],
        )
        log.create_topic(_TOPIC, partitions=4)
        producer = log.producer("bench", {})

        def produce() -> None:
            for unit in units:
                producer.send(unit)
            acknowledged = 0
            while acknowledged < len(units):
                acknowledged += len(producer.poll(1))

        _measure("5-6-produce", produce)
        producer.close(1)
        consumer = log.consumer("bench", "bench", {})
        consumer.subscribe([_TOPIC], None, _Listener())

        def consume() -> list[Any]:
            batches: list[Any] = []
            while sum(map(len, batches)) < _COUNT:
                batches.append(consumer.poll(_BATCH, 1))
            return batches

        consumed = _measure("7-consume", consume)
        consumer.close(1)
        sink = SinkConversion(log, TransformChain([]), *_create_converters(store))
        converted = _measure("8-9-convert", lambda: [sink.convert(batch).records for batch in consumed])
        settings = {"connection.uri": stack.enter_context(stand.run_mongo("null")), "database": "bench"}
        task = MongoSinkTask(RecordingSinkContext(), MongoSinkConfig.parse(settings))
        stack.callback(task.stop)
        task.start()
        _measure("10-put", lambda: _call_for_each(task.put, converted))


def _measure(name: str, work: Callable[[], T]) -> T:
    start = time.process_time()
    result = work()
    print_figure(f"cpu.{name}", (time.process_time() - start) / _COUNT * 1e6, "s/million")
    return result


def _call_for_each(function: Callable[[Any], None], batches: Iterable[Any]) -> None:
    for batch in batches:
        function(batch)


def _split(records: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(records), _BATCH):
        yield records[start : start + _BATCH]


def _drain(spool: Spool) -> Iterator[Any]:
    position = spool.start
    while True:
        batch, position, *_ = spool.read(position, _BATCH, 0)
        if not batch:
            return
        yield from batch


def _drop_filtered(records: Sequence[T | None]) -> list[T]:
    return [record for record in records if record is not None]


def _create_converters(store: SchemaStore) -> tuple[StringConverter, AvroConverter]:
    key = StringConverter(StringConverterConfig(), is_key=True, schemas=store)
    value = AvroConverter(AvroConverterConfig(), is_key=False, schemas=store)
    return key, value
