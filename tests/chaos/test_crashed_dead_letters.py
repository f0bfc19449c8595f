"""A worker with bad records dies at every step that writes a dead letter; then all records are counted.

Of ten numbers, three fail on their way into the topic (transform, converter, size) and three behind it
(converter, transform, put). Each must be in the topic of dead letters before any offset passes it, under one
id however often it was written.
"""

from __future__ import annotations

import dataclasses
import json
import random
import threading
import uuid
from collections import defaultdict
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import pytest

from tieline.api import (
    Config,
    DataError,
    Schema,
    SinkConnector,
    SinkTask,
    SourceConnector,
    SourceRecord,
    SourceTask,
    TopicPartition,
    Transform,
)
from tieline.config.plan import ConverterPlan, SinkPlan, SourcePlan, TransformPlan, check_plan
from tieline.config.settings import SinkSettings, SourceSettings, Timing
from tieline.converters.avro import AvroConverter
from tieline.converters.plain import StringConverter
from tieline.dead_letters.record import read_letter
from tieline.runtime.worker.factory import open_broker
from tieline.testing.crash.runner import CrashPoint, Life, Step

BATCH, TOTAL = 10, 40
PUT_BATCH = 3  # so that some batches of the sink hold no bad record
# A pump sends half of max_records at once: each task sends BATCH.
TIMING = Timing(offset_flush=0.002, max_records=2 * BATCH, max_wait=0.005, call_timeout=5.0)
TRANSFORM_OUT, CONVERTER_OUT, SIZE, CONVERTER_IN, TRANSFORM_IN, PUT = range(1, 7)
SCHEMA = Schema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "dead.Number",
            "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "string"}],
        }
    )
)


def kind(n):
    return n % 10


class Rejecting(Transform[Config]):
    """Rejects the numbers of one kind."""

    rejected: int

    def apply(self, batch):
        if bad := {
            i: ValueError("rejected") for i, r in enumerate(batch) if kind(int(r.key)) == self.rejected
        }:
            raise DataError(bad)
        return batch


class RejectingOut(Rejecting):
    rejected = TRANSFORM_OUT


class RejectingIn(Rejecting):
    rejected = TRANSFORM_IN


class Fussy(AvroConverter):
    """Rejects numbers of one kind in each direction."""

    def serialize(self, batch):
        if bad := {i: ValueError("no number") for i, d in enumerate(batch) if d.data["n"] < 0}:
            raise DataError(bad)
        return super().serialize(batch)

    def deserialize(self, batch):
        data = super().deserialize(batch)
        if bad := {i: ValueError("unread") for i, d in enumerate(data) if kind(d.data["n"]) == CONVERTER_IN}:
            raise DataError(bad)
        return data


class Outside:
    """The external systems, which survive a crash."""

    def __init__(self):
        self.reached = 0
        self.written = set()
        self.rejected = set()


class Numbers(SourceTask[Config]):
    outside: Outside
    topic: str

    def __init__(self, context, config):
        super().__init__(context, config)
        self.interrupted = threading.Event()

    def interrupt(self):
        self.interrupted.set()

    def start(self):
        saved: Any = self.context.offset({"of": "numbers"})
        self.outside.reached = saved["next"] if saved else 0

    def poll(self, max_records, max_wait):
        batch = range(self.outside.reached, min(self.outside.reached + BATCH, TOTAL))
        if not batch:
            self.interrupted.wait(0.002)
            return []
        self.outside.reached = batch.stop
        return [self.record(n) for n in batch]

    def record(self, n):
        pad = random.Random(n).randbytes(3_000 if kind(n) == SIZE else 5).hex()  # compression is no help
        value = {"n": -1 if kind(n) == CONVERTER_OUT else n, "pad": pad}
        where = {"of": "numbers"}, {"next": n + 1}
        return SourceRecord(self.topic, value, str(n), *where, value_schema=SCHEMA)


class Bus(Numbers):
    """Is not replayable, and is read to the end before anything else may happen."""

    replayable = False

    def start(self):
        """Do nothing: a bus has no saved offset."""

    def record(self, n):
        return super().record(n)._replace(source_partition={}, source_offset={})


class Shelf(SinkTask[Config]):
    outside: Outside

    def put(self, batch):
        failures: dict[int, Exception] = {}
        for index, record in enumerate(batch):
            n = int(record.key)
            if kind(n) == PUT:
                failures[index] = ValueError("not stored")
            else:
                self.outside.written.add(n)
        self.context.request_commit()
        if failures:
            raise DataError(failures)


class Found(NamedTuple):
    sent: dict[TopicPartition, dict[int, int]]  # of the topic: offset → number
    committed: dict[TopicPartition, int]
    letters: dict[int, list[str]]  # number → ids
    saved: int

    def is_read(self):
        """Whether the sink has committed everything that the topic has."""
        return sum(self.committed.values()) == sum(max(numbers) + 1 for numbers in self.sent.values())


class Journey:
    def __init__(self, backend, folder, task):
        self.settings, self.folder, self.task = backend, folder, task
        self.local = not backend
        self.outside = Outside()
        self.topic = f"d{uuid.uuid4().hex[:8]}"
        self.out, self.into, self.dead = f"{self.topic}-out", f"{self.topic}-in", f"{self.topic}-dead"
        self.lives = ExitStack()
        self.number = self.committed = 0
        self.broker: Any = None

    @property
    def data(self):
        return self.folder / f"life-{self.number}"

    def plan(self, data):
        key = ConverterPlan(StringConverter, StringConverter.config_type.parse({}), {})
        value = ConverterPlan(Fussy, AvroConverter.config_type.parse({}), {})
        common = {
            "connector.class": "test",
            "max.poll.records": str(BATCH),
            "errors.tolerance": "all",
            "errors.deadletterqueue.topic.name": self.dead,
        }
        writes = SourceSettings.parse({**common, "name": self.out})
        reads = SinkSettings.parse(
            {**common, "name": self.into, "topics": self.topic, "max.poll.records": str(PUT_BATCH)}
        )
        out = {"outside": self.outside, "topic": self.topic}
        source: Any = type("Source", (SourceConnector,), {"task_type": type("Task", (self.task,), out)})
        sink: Any = type("Sink", (SinkConnector,), {"task_type": type("Task", (Shelf,), out)})
        parts = [Config.parse({}), {}, key, value]
        source_plan: Any = SourcePlan
        sink_plan: Any = SinkPlan
        connectors = [
            source_plan(*parts, [TransformPlan(RejectingOut, Config.parse({}))], {}, writes, source),
            sink_plan(*parts, [TransformPlan(RejectingIn, Config.parse({}))], {}, reads, sink),
        ]
        worker = check_plan("test", {**self.settings, "data.dir": str(data)}, [])
        return dataclasses.replace(worker, connectors=connectors)

    def live(self, crash=None):
        plan = self.plan(self.data)
        broker = self.broker = open_broker(plan)
        broker.create_topic(self.topic, partitions=2, config={"max.message.bytes": "1500"})
        life = self.lives.enter_context(Life(plan, broker, crash, timing=TIMING))
        crashed = life.run(lambda: self.arrived(life), timeout=25)
        self.number += crashed
        if crashed:
            life.leave(self.data)
            life.leave(self.folder / f"look-{self.number}")
            found = self.found(self.folder / f"look-{self.number}")
            self.check_offsets(found)
            self.committed = sum(found.committed.values())
        return crashed

    def run(self, *crashes):
        with self.lives:
            for crash in crashes:
                assert self.live(crash), f"{crash} was never reached"
            assert not self.live()
            found = self.found(self.data)
            if not found.is_read():  # Kafka accepts late what a producer had on its way when it died
                self.committed = sum(found.committed.values())
                assert not self.live()
                found = self.found(self.data)
            self.check_at_the_end(found)

    def arrived(self, life):
        ledger = life.ledger()
        out, into = ledger[self.out], ledger[self.into]
        return (
            self.outside.reached >= TOTAL
            and not out.get("spool_records")
            and out["in_flight"] == into["in_flight"] == 0
            and self.outside.written >= {n for n in range(TOTAL) if kind(n) in (0, 7, 8, 9)}
            and into["received"] >= self.sent_records() - self.committed
        )

    def sent_records(self):
        count = 0

        def note(record):
            nonlocal count
            count += 1

        self.broker.read(self.topic, note)
        return count

    def found(self, data):
        sent: dict[TopicPartition, dict[int, int]] = defaultdict(dict)
        letters: dict[int, list[str]] = defaultdict(list)
        broker = open_broker(self.plan(data))

        def note(record):
            sent[TopicPartition(record.topic, record.partition)][record.offset] = int(record.key)

        def read(record):
            letter = read_letter(record)
            letters[int(record.key)].append(letter.id)

        try:
            broker.read(
                self.topic, lambda r: sent[TopicPartition(r[0], r[1])].update({r[2]: int(r.key or 0)})
            )
            if self.dead in broker.topic_names():
                broker.read(self.dead, read)
            consumer = broker.consumer(f"connect-{self.into}", "look", {})
            stored = consumer.committed([TopicPartition(self.topic, p) for p in range(2)], 5)
            consumer.close(5)
            saved = broker.source_offsets(self.out, 5)
        finally:
            broker.close()
        reached = json.loads(saved['{"of":"numbers"}'])["next"] if saved else 0
        return Found(sent, {p: c.offset for p, c in stored.items()}, letters, reached)

    def check_offsets(self, found):
        """No offset passes a record that is neither further on nor a stored letter."""
        for partition, offset in found.committed.items():
            passed = {n for at, n in found.sent[partition].items() if at < offset}
            assert {n for n in passed if kind(n) in (CONVERTER_IN, TRANSFORM_IN, PUT)} <= found.letters.keys()
        sent = {n for numbers in found.sent.values() for n in numbers.values()}
        if self.task is Numbers:
            assert set(range(found.saved)) <= sent | found.letters.keys()

    def check_at_the_end(self, found):
        bad = {n for n in range(TOTAL) if 1 <= kind(n) <= 6}
        sent = {n for numbers in found.sent.values() for n in numbers.values()}
        assert found.letters.keys() == bad
        ids = {n: set(of) for n, of in found.letters.items()}
        for n, of_number in ids.items():
            repeated_records = sum(list(numbers.values()).count(n) for numbers in found.sent.values())
            assert len(of_number) == max(1, repeated_records), "a repeated letter has the same id"
        assert sent == {n for n in range(TOTAL) if kind(n) not in (TRANSFORM_OUT, CONVERTER_OUT, SIZE)}
        assert self.outside.written == set(range(TOTAL)) - bad
        assert found.is_read()
        if self.local:  # letters and offsets of a sink are one transaction
            behind = [n for n in bad if kind(n) in (CONVERTER_IN, TRANSFORM_IN, PUT)]
            assert all(len(found.letters[n]) == len(ids[n]) for n in behind)


@pytest.fixture
def backend(request):
    if request.param == "local":
        return {}
    offsets = {"offset.storage.topic": "offsets-of-crashed-letters", "offset.storage.partitions": "1"}
    return {"bootstrap.servers": request.getfixturevalue("kafka_bootstrap"), **offsets}


WHEN: tuple[Literal["before", "after"], ...] = ("before", "after")


def cases():
    for step, passings in [
        (Step.PRODUCE, (1, 2, 3, 4)),
        (Step.ACKNOWLEDGE, (1, 2)),
        (Step.SAVE, (1,)),
        (Step.LETTERS, (1, 2)),
        (Step.COMMIT, (1, 2)),
        (Step.PUT, (1, 2)),
        (Step.FLUSH, (1,)),
    ]:
        for task in (Numbers, Bus):
            if task is Bus and step in (Step.PUT, Step.FLUSH, Step.COMMIT):
                continue  # the same as with Numbers
            for when in WHEN:
                for passing in passings:
                    point = CrashPoint(step, when, passing)
                    if (step, when) != (Step.LETTERS, "after"):  # that is one transaction
                        yield named("local", point, task)
                    if step in (Step.PRODUCE, Step.LETTERS, Step.COMMIT) and passing < 3:
                        yield named("kafka", point, task)


def named(backend, point, task):
    marks = [pytest.mark.kafka] if backend == "kafka" else []
    name = f"{backend}-{task.__name__.lower()}-{point}-{point.passing}"
    return pytest.param(backend, point, task, id=name, marks=marks)


@pytest.mark.parametrize(("backend", "point", "task"), list(cases()), indirect=["backend"])
def test_a_crash_loses_no_bad_record_and_a_repeated_letter_has_the_same_id(backend, tmp_path, point, task):
    Journey(backend, tmp_path, task).run(point)
