"""A worker dies before and after every step of a record's journey; then all records are counted.

The external systems (a source's numbers, a store) survive every life. The log and the spool are reopened from
the files that the crash left, which show what will be repeated before the next life begins. The steps are
those of ARCHITECTURE.md.
"""

import dataclasses
import json
import random
import re
import threading
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    Config,
    Schema,
    SinkConnector,
    SinkTask,
    SourceConnector,
    SourceRecord,
    SourceTask,
    TopicPartition,
    header,
    identity,
)
from tieline.broker.records import Delivery
from tieline.config.plan import ConverterPlan, SinkPlan, SourcePlan, TransformPlan, check_plan
from tieline.config.settings import SinkSettings, SourceSettings, Timing
from tieline.converters.avro import AvroConverter
from tieline.converters.plain import StringConverter
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.task.totals import decode_note, describe
from tieline.runtime.worker.factory import open_broker
from tieline.testing.crash.runner import CrashPoint, Life, Step
from tieline.transforms.filter import Filter

BATCH, PARTITIONS = 10, 2
TIMING = Timing(offset_flush=0.002, max_wait=0.005, call_timeout=5.0)


class Backend(NamedTuple):
    """A backend of the broker interface, and the worker's settings for it."""

    name: str
    worker: dict[str, str]


@pytest.fixture
def backend(request):
    if request.param == "local":
        return Backend("local", {})
    servers = request.getfixturevalue("kafka_bootstrap")
    offsets = {"offset.storage.topic": "offsets-of-crashed-workers", "offset.storage.partitions": "1"}
    return Backend("kafka", {"bootstrap.servers": servers, **offsets})


class Outside:
    """The external systems, which survive a crash: the source's numbers, and what the sink has stored."""

    def __init__(self):
        self.topic = f"n{uuid.uuid4().hex[:8]}"
        fields = [{"name": "n", "type": "long"}]
        text = json.dumps({"type": "record", "name": f"{self.topic}.Number", "fields": fields})
        self.schema = Schema.parse(text)
        self.reached = self.total = 0
        self.given = []  # batches, of this life
        self.may_give = lambda: True
        self.written = []  # (partition, offset, number) of every write, as a file keeps them
        self.by_id = {}  # by identity, as MongoDB keeps them

    def write(self, records):
        for r in records:
            self.written.append((TopicPartition(r.topic, r.partition), r.offset, r.value["n"]))
            content = (header(r, DIGEST_HEADER), r.value["n"])
            assert self.by_id.setdefault(header(r, ID_HEADER), content) == content


class Numbers(SourceTask[Config]):
    """A replayable source, which resumes at the saved offset."""

    def __init__(self, outside, context, config):
        super().__init__(context, config)
        self.outside = outside
        self.interrupted = threading.Event()

    def interrupt(self):
        self.interrupted.set()

    def start(self):
        saved = self.context.offset({"of": "numbers"})
        self.outside.reached = saved["next"] if saved else 0

    def poll(self, max_records, max_wait):
        outside = self.outside
        batch = range(outside.reached, min(outside.reached + BATCH, outside.total))
        if not batch or not outside.may_give():
            self.interrupted.wait(0.002)
            return []
        outside.given.append(batch)
        outside.reached = batch.stop
        return [self.record(n) for n in batch]

    def record(self, n):
        ids = identity("number", n, digest_of=b"%d" % n)
        partition, offset = {"of": "numbers"}, {"next": n + 1}
        return SourceRecord(
            self.outside.topic, {"n": n}, str(n), partition, offset, ids, value_schema=self.outside.schema
        )


class Bus(Numbers):
    """A source that is not replayable, and whose records have no identity."""

    replayable = False

    def start(self):
        """Do nothing: a bus has no saved offset."""

    def record(self, n):
        return super().record(n)._replace(source_partition={}, source_offset={}, headers=())


class Shelf(SinkTask[Config]):
    """A sink whose records are safe after a flush, and not before."""

    def __init__(self, outside, context, config):
        super().__init__(context, config)
        self.outside = outside
        self.buffer = []

    def put(self, batch):
        self.buffer += batch
        self.context.request_commit()

    def flush(self, offsets):
        self.outside.write(self.buffer)
        self.buffer = []


def connector(kind, task, outside):
    def init(self, context, config):
        task.__init__(self, outside, context, config)

    return type("Connector", (kind,), {"task_type": type(task.__name__, (task,), {"__init__": init})})


def is_sent(n):
    """Return whether the source's transform passes a number."""
    return n % 10 != 7


def is_stored(n):
    """Return whether both transforms pass a number."""
    return is_sent(n) and n % 10 != 3


class Found(NamedTuple):
    """The content of the log, the offsets and the spool while no worker runs."""

    records: list[tuple[TopicPartition, int, int]] = []  # of the topic: partition, offset, number
    committed: dict[TopicPartition, int] = {}
    totals: dict[TopicPartition, Any] = {}  # of the ledger, stored with the committed offset
    unsaved: frozenset[int] = frozenset()  # numbers that the source or the spool will deliver again
    spool: dict[str, int] = {}  # the totals of the ledger in the spool
    source: Any = None  # the totals of the ledger that are stored with the source offset


class Journey:
    """One source and one sink on one backend, over several lives of the worker.

    ``window``: how many batches may be in flight to the log. ``broker`` and ``sink`` may be broken ones.
    """

    def __init__(self, backend, folder, task, window=1, *, broker=lambda broker: broker, sink=Shelf):
        self.backend, self.folder, self.task, self.window = backend, folder, task, window
        self.broker, self.sink = broker, sink
        self.outside = Outside()
        self.out, self.into = f"{self.outside.topic}-out", f"{self.outside.topic}-in"
        self.accepted = set()
        self.lost = set()  # polled from a bus, but not yet in the spool: nothing is promised for these
        self.before = Found()
        self.lives = ExitStack()
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.lives.close()

    @property
    def data(self):
        return self.folder / f"life-{self.number}"

    def plan(self, data):
        key = ConverterPlan(StringConverter, StringConverter.config_type.parse({}), {})
        value = ConverterPlan(AvroConverter, AvroConverter.config_type.parse({}), {})
        common = {"connector.class": "test", "max.poll.records": str(BATCH)}
        partitions = {"topic.creation.default.partitions": str(PARTITIONS)}
        writes = SourceSettings.parse({**common, **partitions, "name": self.out})
        reads = SinkSettings.parse({**common, "name": self.into, "topics": self.outside.topic})

        def planned(kind, settings, connector, dropped):
            drop = TransformPlan(Filter, Filter.config_type.parse({"key.regex": dropped}))
            return kind(Config.parse({}), {}, key, value, [drop], {}, settings, connector)

        source = connector(SourceConnector, self.task, self.outside)
        sink = connector(SinkConnector, self.sink, self.outside)
        connectors = [planned(SourcePlan, writes, source, ".*7"), planned(SinkPlan, reads, sink, ".*3")]
        worker = check_plan("test", {**self.backend.worker, "data.dir": str(data)}, [])
        return dataclasses.replace(worker, connectors=connectors)

    def live(self, crash=None):
        """Run one life from the files on disk, and check the counts. Return whether it crashed."""
        outside, plan = self.outside, self.plan(self.data)
        outside.given = []
        outside.total += 3 * BATCH if outside.total == 0 else 2 * BATCH  # something is left to do
        if self.task is Numbers:
            outside.reached = 0  # until it has looked at its offset
        broker = self.broker(open_broker(plan))
        if self.backend.name == "kafka" and self.number == 0 and crash and crash.step is not Step.TOPIC:
            # Otherwise every case would wait a second until a consumer sees the new topic.
            broker.create_topic(outside.topic, partitions=PARTITIONS)
        life = self.lives.enter_context(Life(plan, broker, crash, timing=TIMING))
        outside.may_give = lambda: len(outside.given) < self.window + life.done[Step.SAVE]
        already = len(outside.written)
        crashed = life.run(lambda: self.arrived(life))
        self.new = outside.written[already:]
        ledger = life.ledger()
        for counts in ledger.values():
            assert counts["received"] == counts["delivered"] + counts["filtered"] + counts["in_flight"]
        promised = life.done[Step.SPOOL] if self.task is Bus else len(outside.given)
        self.accepted.update(*outside.given[:promised])
        in_hand = outside.given[promised:]
        assert len(in_hand) <= crashed
        self.lost.update(*in_hand)
        if crashed:
            self.number += 1
            life.leave(self.data)
            life.leave(self.folder / f"look-{self.number}")
            found = self.found(self.folder / f"look-{self.number}")
            self.check_after_a_crash(found)
            self.before = found
        else:
            self.check_at_the_end(self.found(self.data), ledger)
        return crashed

    def run(self, *crashes):
        """Run a life for each of these crashes, and a last one to the end."""
        for crash in crashes:
            assert self.live(crash), f"{crash} was never reached"
        assert not self.live()

    def arrived(self, life):
        """Return whether nothing is left to do. The earlier steps are checked first."""
        reached = self.outside.reached
        given = sum(map(len, self.outside.given))
        out = life.ledger()[self.out]
        if (
            reached < self.outside.total
            or out.get("spool_records")
            or given > out["counters"].get("spooled", given)
        ):
            return False
        ledger = life.ledger()
        out, into = ledger[self.out], ledger[self.into]
        if self.task is Numbers and given > out["received"]:
            return False
        unread = len(self.before.records) - sum(self.before.committed.values()) + out["delivered"]
        return out["in_flight"] == into["in_flight"] == 0 and into["received"] >= unread

    def found(self, data):
        plan = self.plan(data)
        topic, broker = self.outside.topic, open_broker(plan)
        records, committed, totals = [], {}, {}
        try:
            if topic in broker.topics():
                broker.read(
                    topic, lambda r: records.append((TopicPartition(r[0], r[1]), r[2], int(r.key or 0)))
                )
                consumer = broker.consumer(f"connect-{self.into}", "look", {})
                stored = consumer.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], 5)
                committed = {partition: position.offset for partition, position in stored.items()}
                totals = {partition: decode_note(position.note) for partition, position in stored.items()}
                consumer.close(5)
            saved = broker.source_offsets(self.out, 5)
            notes = broker.source_notes(self.out, 5)
        finally:
            broker.close()
        spool = plan.worker.data_dir / "spools" / f"{self.out}-0.db"
        if self.task is Bus:
            return Found(records, committed, totals, *spooled(spool))
        first = json.loads(saved['{"of":"numbers"}'])["next"] if saved else 0
        source = decode_note(notes['{"of":"numbers"}']) if saved else None
        return Found(records, committed, totals, frozenset(range(first, self.outside.total)), {}, source)

    def check_after_a_crash(self, found):
        """Check that at most the records in flight at the crash will be repeated."""
        self.check_totals(found)
        twice = {n for _, _, n in found.records} & found.unsaved
        in_flight = self.window * BATCH
        if self.task is Bus:  # also what the last life left in the spool
            in_flight += len(self.before.unsaved)
        assert len(twice) <= in_flight, "more than the records in flight will be sent again"
        if self.backend.name == "local" and self.task is Numbers:
            assert not twice, "records and source offsets are one transaction"
        twice = {(at, offset) for at, offset, _ in self.new if offset >= found.committed.get(at, 0)}
        assert len(twice) <= BATCH, "more than a batch was written and not committed"

    def check_at_the_end(self, found, ledger):
        """Check that no record is missing or invented, and that only those of the last crash are repeated."""
        self.check_totals(found)
        if self.task is Numbers:
            shown = ledger[self.out]["totals"]
            assert (shown["received"], shown["in_flight"], shown["mismatch"]) == (self.outside.total, 0, 0)
        shown = ledger[self.into]["totals"]
        assert (shown["received"], shown["in_flight"], shown["mismatch"]) == (len(found.records), 0, 0)
        assert not found.unsaved
        assert self.accepted | self.lost == set(range(self.outside.total))
        numbers = [n for _, _, n in found.records]
        assert set(numbers) == {n for n in self.accepted if is_sent(n)}, "the log lacks some"
        stored_numbers = {n for n in self.accepted if is_stored(n)}
        expected = {record for record in found.records if is_stored(record[2])}
        assert set(self.outside.written) == expected, "the sink lacks some"
        stored = sorted(n for _, n in self.outside.by_id.values())
        assert stored == sorted(stored_numbers), "some are stored twice under different identities"
        before, out, into = self.before, ledger[self.out], ledger[self.into]
        sent = [n for n in before.unsaved.union(*self.outside.given) if is_sent(n)]
        assert len(numbers) == len(before.records) + len(sent)
        read = [(at, offset, n) for at, offset, n in found.records if offset >= before.committed.get(at, 0)]
        assert sorted(self.new) == sorted(r for r in read if is_stored(r[2]))
        assert sum(found.committed.values()) == len(numbers)
        assert out["in_flight"] == into["in_flight"] == 0
        if self.task is Bus:  # since the first life: each record of the spool, once
            counts = found.spool
            assert counts["received"] == counts["delivered"] + counts["filtered"] == len(self.accepted)
            assert counts["delivered"] == sum(map(is_sent, self.accepted))
            assert (counts["in_flight"], counts["skipped"], counts["mismatch"]) == (0, 0, 0)
        assert (out["delivered"], into["received"]) == (len(sent), len(read))

    def check_totals(self, found):
        """Check that the stored totals are those of each record before the committed offsets, once."""
        for partition, offset in found.committed.items():
            numbers = [n for at, where, n in found.records if at == partition and where < offset]
            delivered = sum(map(is_stored, numbers))
            totals = found.totals[partition]
            assert (totals.first, totals.received, totals.delivered) == (0, len(numbers), delivered)
            assert totals.filtered == len(numbers) - delivered
            assert totals.mismatch(offset, gapless=True) == 0
        if found.source is not None:
            numbers = sorted(set(range(self.outside.total)) - found.unsaved)
            sent = sum(map(is_sent, numbers))
            assert found.source[2:] == (len(numbers), sent, 0, len(numbers) - sent, 0)


def spooled(path):
    """Return the numbers that wait in a spool, and its totals."""
    if not path.exists():
        return frozenset(), {}
    spool = Spool(path, Limits(1 << 30, True, 1 << 20), Counters())
    try:
        numbers = frozenset(int(record.key) for record in spool.read(spool.start, 10_000, 0)[0])
        return numbers, describe(spool.view.totals)
    finally:
        spool.close()


WHEN: tuple[Literal["before", "after"], ...] = ("before", "after")
ONCE = {Step.SCHEMA, Step.TOPIC}
SINK = {Step.CONSUME, Step.DESERIALIZE, Step.TRANSFORM_IN, Step.PUT, Step.FLUSH, Step.COMMIT}
NOT_WITH = {Numbers: {Step.SPOOL}, Bus: SINK | {Step.COMMIT_SOURCE}}  # or the same with both
AT_THE_SPOOL = {Step.SPOOL, Step.PRODUCE, Step.ACKNOWLEDGE, Step.SAVE}


ELSEWHERE = {Step.CHANGELOG, Step.LETTERS}  # in test_crashed_changelog and test_crashed_dead_letters
STEPS = [step for step in Step if step not in ELSEWHERE]


def cases():
    for step in STEPS:
        for task in (Numbers, Bus):
            if (step is Step.SPOOL and task is Numbers) or (
                step in SINK | {Step.COMMIT_SOURCE} and task is Bus
            ):
                continue  # the step does not occur, or the case is the same as with Numbers
            for when in WHEN:
                yield "local", CrashPoint(step, when, 1 if step in ONCE else 2), task
                if task is Numbers or step in AT_THE_SPOOL:
                    yield "kafka", CrashPoint(step, when, 1 if step in ONCE else 2), task


def named(backend, *values):
    name = "-".join([backend, *(str(getattr(value, "__name__", value)).lower() for value in values)])
    return pytest.param(backend, *values, id=name, marks=[pytest.mark.kafka] if backend == "kafka" else [])


@pytest.mark.parametrize(
    ("backend", "point", "task"), [named(*case) for case in cases()], indirect=["backend"]
)
def test_a_crash_loses_nothing_and_duplicates_only_records_in_flight(backend, tmp_path, point, task):
    with Journey(backend, tmp_path, task) as journey:
        journey.run(point)
        if str(point) in ("1-poll-after", "2-spool-before") and task is Bus:
            assert journey.lost == set(range(BATCH, 2 * BATCH))
        if task is Numbers:
            assert not journey.lost


def pairs():
    """Two crashes in a row, seeded: the second in the life that recovers from the first."""
    dice = random.Random(6)
    for number in range(12):
        task = dice.choice([Numbers, Bus])
        again = {Step.SPOOL} if task is Numbers else {Step.COMMIT_SOURCE}
        steps = [step for step in STEPS if step not in ONCE | again]
        first, second = (CrashPoint(dice.choice(steps), dice.choice(WHEN)) for _ in range(2))
        yield "kafka" if number < 3 else "local", first, second, task


@pytest.mark.parametrize(
    ("backend", "first", "second", "task"), [named(*case) for case in pairs()], indirect=["backend"]
)
def test_a_crash_during_the_recovery_from_a_crash_is_recovered_the_same_way(
    backend, tmp_path, first, second, task
):
    with Journey(backend, tmp_path, task, window=3) as journey:
        journey.run(first, second)


def test_every_step_of_the_architecture_has_a_crash_before_and_after_it_on_both_backends():
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")
    rows = re.findall(r"^\| ([①-⑫ ]+) \|", text, re.MULTILINE)
    numbers = {ord(sign) - ord("①") + 1 for row in rows for sign in row if sign != " "}
    assert numbers == set(range(1, 13))
    steps = numbers - {12}  # a decision there has no effect
    for backend in ("local", "kafka"):
        for when in WHEN:
            found = {int(p.step.value.split("-")[0]) for h, p, _ in cases() if (h, p.when) == (backend, when)}
            assert found == steps


# A runtime that breaks a promise must not pass. Each of these works until it crashes.


class Broken:
    """A part of a broker with one broken method; all others are those of the real one."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class AcknowledgesWhatItHasNotSent(Broken):
    """A producer that acknowledges at once, and sends five polls later."""

    def __init__(self, inner):
        super().__init__(inner)
        self.waiting = []
        self.acknowledged = []
        self.polls_left = 0

    def send(self, unit):
        self.waiting.append(unit)

    def poll(self, timeout):
        if not self.acknowledged:
            self.acknowledged, self.waiting, self.polls_left = self.waiting, [], 5
            return [Delivery(unit, [None] * len(unit.records), {}) for unit in self.acknowledged]
        self.polls_left -= 1
        if self.polls_left == 0:
            for unit in self.acknowledged:
                self.inner.send(unit)
            self.acknowledged = []
        self.inner.poll(timeout)
        return []


class ChangesIdentities(Broken):
    """A producer that gives a record another identity each time it sends it."""

    def __init__(self, inner):
        super().__init__(inner)
        self.units = {}

    def send(self, unit):
        records = [r._replace(headers=identity(uuid.uuid4().hex)) for r in unit.records]
        sent = dataclasses.replace(unit, records=records)
        self.units[sent] = unit
        self.inner.send(sent)

    def poll(self, timeout):
        return [d._replace(unit=self.units.pop(d.unit)) for d in self.inner.poll(timeout)]


class CommitsTooLate(Broken):
    """A consumer that commits two batches late, and never the last ones."""

    def __init__(self, inner):
        super().__init__(inner)
        self.late: list[Any] = [({},), ({},)]

    def commit_async(self, *arguments):
        self.late.append(arguments)
        return self.inner.commit_async(*self.late.pop(0))

    def commit(self, *arguments):
        """Do not commit the last ones."""


class BrokenBroker(Broken):
    """A broker whose producers or consumers are broken."""

    def __init__(self, inner, part, kind):
        super().__init__(inner)
        setattr(self, part, lambda *args: kind(getattr(inner, part)(*args)))


class CommitsBeforeItWrites(Shelf):
    """A sink that writes a batch with the next one, or when it is closed."""

    def pre_commit(self, offsets):
        return offsets

    def put(self, batch):
        self.flush({})
        super().put(batch)

    def close(self, partitions, lost):
        self.flush({})


BROKEN: dict[str, tuple[dict[str, Any], CrashPoint]] = {
    "the log lacks some": (
        {"broker": lambda broker: BrokenBroker(broker, "producer", AcknowledgesWhatItHasNotSent)},
        CrashPoint(Step.SAVE, "after", 2),
    ),
    "some are stored twice under different identities": (
        {"broker": lambda broker: BrokenBroker(broker, "producer", ChangesIdentities)},
        CrashPoint(Step.PRODUCE, "after", 2),
    ),
    "the sink lacks some": ({"sink": CommitsBeforeItWrites}, CrashPoint(Step.COMMIT, "after", 2)),
    "more than a batch was written and not committed": (
        {"broker": lambda broker: BrokenBroker(broker, "consumer", CommitsTooLate)},
        CrashPoint(Step.COMMIT, "after", 2),
    ),
}


@pytest.mark.parametrize("expected", BROKEN)
def test_a_crash_reveals_a_broken_runtime(tmp_path, expected):
    parts, point = BROKEN[expected]
    with Journey(Backend("local", {}), tmp_path, Bus, **parts) as journey:
        with pytest.raises(AssertionError) as caught:
            journey.run(point)
        assert expected in str(caught.value)


@pytest.mark.parametrize("expected", list(BROKEN)[:3])
def test_without_a_crash_a_broken_runtime_may_pass(tmp_path, expected):
    with Journey(Backend("local", {}), tmp_path, Bus, **BROKEN[expected][0]) as journey:
        journey.run()
