"""(g) What each step of a reading's journey costs: CPU seconds a million six-point readings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from bench.figure import figure, say
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


class _Everything:
    """A listener that takes whatever is assigned."""

    def assigned(self, partitions: Collection[TopicPartition]) -> None: ...

    def revoked(self, partitions: Collection[TopicPartition]) -> None: ...

    def lost(self, partitions: Collection[TopicPartition]) -> None: ...


def run(stand: Stand) -> None:
    """One journey, step by step, each by itself; in this process, with the local log."""
    say("(g) CPU by step")
    raw = [frames(number) for number in range(_COUNT)]
    mapper = RecordMapper("lab", [Route("devices", _TOPIC)], "")
    records = _step("1-receive", lambda: [mapper.record(parse_message(f, 0, ParseLimits())) for f in raw])
    folder = stand.folder("stages")
    with contextlib.ExitStack() as ends:
        spool = Spool(folder / "s.db", Limits(1 << 33, True, 0), Counters(), as_avro=True)
        ends.callback(spool.close)
        _step("2-spool", lambda: _each(spool.append, _parts(records)))
        spooled = _step("2-spool-read", lambda: list(_drained(spool)))
        log = LocalLog.open(folder / "log")
        ends.callback(log.close)
        store = TopicSchemaStore(log)
        outbound = SourceConversion(TransformChain([]), *_converters(store))
        units = _step(
            "3-4-convert", lambda: [Unit(_all(outbound.convert(p).records)) for p in _parts(spooled)]
        )
        log.create_topic(_TOPIC, partitions=4)
        producer = log.producer("bench", {})

        def produce() -> None:
            for unit in units:
                producer.send(unit)
            ended = 0
            while ended < len(units):
                ended += len(producer.poll(1))

        _step("5-6-produce", produce)
        producer.close(1)
        consumer = log.consumer("bench", "bench", {})
        consumer.subscribe([_TOPIC], None, _Everything())

        def consume() -> list[Any]:
            batches: list[Any] = []
            while sum(map(len, batches)) < _COUNT:
                batches.append(consumer.poll(_BATCH, 1))
            return batches

        consumed = _step("7-consume", consume)
        consumer.close(1)
        inbound = SinkConversion(log, TransformChain([]), *_converters(store))
        converted = _step("8-9-convert", lambda: [inbound.convert(batch).records for batch in consumed])
        settings = {"connection.uri": ends.enter_context(stand.null_mongo()), "database": "bench"}
        task = MongoSinkTask(RecordingSinkContext(), MongoSinkConfig.parse(settings))
        ends.callback(task.stop)
        task.start()
        _step("10-put", lambda: _each(task.put, converted))


def _step(name: str, work: Callable[[], T]) -> T:
    start = time.process_time()
    result = work()
    figure(f"cpu.{name}", (time.process_time() - start) / _COUNT * 1e6, "s/million")
    return result


def _each(work: Callable[[Any], None], batches: Iterable[Any]) -> None:
    for batch in batches:
        work(batch)


def _parts(records: list[T]) -> Iterator[list[T]]:
    for at in range(0, len(records), _BATCH):
        yield records[at : at + _BATCH]


def _drained(spool: Spool) -> Iterator[Any]:
    position = spool.start
    while True:
        batch, position, _ = spool.read(position, _BATCH, 0)
        if not batch:
            return
        yield from batch


def _all(records: Sequence[T | None]) -> list[T]:
    return [record for record in records if record is not None]


def _converters(store: SchemaStore) -> tuple[StringConverter, AvroConverter]:
    key = StringConverter(StringConverterConfig(), is_key=True, schemas=store)
    value = AvroConverter(AvroConverterConfig(), is_key=False, schemas=store)
    return key, value
