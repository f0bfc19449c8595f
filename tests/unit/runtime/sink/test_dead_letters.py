"""Sinks with dead letters on the real local log: one bad record costs itself alone, at every stage."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest

from tieline.api import Config, DataError, RecordError, RetriableError, Schema, SinkTask, Transform
from tieline.broker.local.consumer import LocalConsumer
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.config.dead_letters import DeadLetterQueue, Window
from tieline.config.settings import Subscription, Timing
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.dead_letters.record import read_letter
from tieline.logs import redaction
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.errors.dead_letters import DeadLetters
from tieline.runtime.errors.failed_records import Failure
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import Claims
from tieline.runtime.sink.context import SinkInputs
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.sink.letters import SinkLetters
from tieline.runtime.sink.partition_counts import PartitionCounts
from tieline.runtime.sink.task import WorkerSinkTask
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.transform_chain import TransformChain
from tieline.testing.clock import FakeClock


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    log.create_topic("t", partitions=2)
    yield log
    for running in Running.all:
        running.task.interrupt()
        running.thread.join(10)
    Running.all.clear()
    log.close()


class Rejecting(StringConverter):
    def deserialize(self, batch):
        if failures := {i: ValueError("no converter") for i, d in enumerate(batch) if d.data == b"converter"}:
            raise DataError(failures)
        return super().deserialize(batch)


class RejectingTransform(Transform[Config]):
    def apply(self, batch):
        if bad := {i: ValueError("no transform") for i, r in enumerate(batch) if r.value == "transform"}:
            raise DataError(bad)
        return [None if record.value == "drop" else record for record in batch]


class Sink(SinkTask[Config]):
    """Writes; rejects ``put``, and ``nameless`` without naming it; reports ``report``."""

    def __init__(self, meet=lambda batch: None):
        self.meet = meet
        self.written: dict[int, list[str]] = defaultdict(list)
        self.puts: list[int] = []
        self.futures: list[Any] = []

    def given(self, context):
        self.context = context
        return self

    def put(self, batch):
        self.puts.append(len(batch))
        self.meet(batch)
        if any(record.value == "nameless" for record in batch):
            raise DataError({})
        failures: dict[int, Exception] = {}
        for index, record in enumerate(batch):
            if record.value == "put":
                failures[index] = RecordError("no put", field="a.b", expected="a number", fix="Repair it")
            elif record.value == "report":
                self.futures.append(self.context.report(record, ValueError("reported")))
            else:
                self.written[record.partition].append(record.value)
        self.context.request_commit()
        if failures:
            raise DataError(failures)


class Running:
    all: ClassVar[list[Running]] = []

    def __init__(self, log, sink, window=None, avro=False, broker=None):
        self.environment = TaskEnvironment("c", 0, clock=FakeClock(step=0.01))
        broker = broker or log
        maker = DeadLetters(DeadLetterQueue("dead", window=window), broker, self.environment)
        converters = []
        no_store: Any = None
        for kind in (StringConverter, Rejecting):
            converters.append(kind(StringConverterConfig.parse({}), is_key=False, schemas=no_store))
        count = self.environment.counters.add
        transforms = TransformChain([RejectingTransform(Config())])
        self.task = WorkerSinkTask(
            self.environment,
            sink.given,
            SinkInputs(
                lambda: broker.consumer("connect-c", "c-0", {}),
                SinkConversion(log, transforms, converters[0], converters[1], count),
                TaskChangelogs("c", TopicSchemaStore(log), 10.0),
                Claims(log, 10.0),
                PartitionCounts(log),
                SinkLetters(maker, avro=avro),
            ),
            Subscription(("t", "tieline-replay-c"), None),
            Timing(offset_flush=0.5, max_records=5000, max_wait=0.02),
        )
        self.error: TaskFailedError | None = None
        self.all.append(self)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.task.run()
        except TaskFailedError as error:
            self.error = error

    def stop(self):
        self.task.interrupt()
        return self.join()

    def join(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.task.stats


def fill(log, values, partition=0, headers=()):
    log.store.append([ProducerRecord("t", v.encode(), b"k", headers, partition=partition) for v in values])


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def committed(log):
    return {partition.partition: offset for partition, offset in log.store.committed("connect-c").items()}


def letters(log):
    found: list[Any] = []
    while batch := log.store.read_from("dead", 0, found[-1].offset + 1 if found else 0, 10_000):
        found += batch
    return [read_letter(record) for record in found]


@pytest.mark.parametrize(
    ("bad", "stage"),
    [
        ("converter", "VALUE_CONVERTER"),
        ("transform", "TRANSFORMATION"),
        ("put", "TASK_PUT"),
        ("nameless", "TASK_PUT"),
        ("report", "TASK_PUT"),
    ],
)
def test_one_bad_record_in_ten_thousand_costs_one_record(log, bad, stage):
    good = [str(number) for number in range(9_999)]
    fill(log, [*good[:6_173], bad, *good[6_173:]], headers=(("h", b"1"),))
    sink = Sink()
    running = Running(log, sink, Window(25, 30))
    wait_for(lambda: committed(log) == {0: 10_000})
    assert running.stop() == (10_000, 9_999, 1, 0, 0)
    (letter,) = letters(log)
    assert (letter.where, letter.cause.stage, letter.id) == ("t-0@6173", stage, "c:t-0@6173")
    assert (letter.value, letter.key, letter.headers) == (bad.encode(), b"k", (("h", b"1"),))
    assert running.environment.counters[f"dead_letters.{stage}"] == 1
    if bad != "nameless":
        assert sink.written == {0: good}
    else:  # halves that were offered together with it were offered again
        assert sink.written[0][:6_000] == good[:6_000]
        assert sorted(set(sink.written[0]), key=int) == good
        assert len(sink.puts) < 30


def test_bad_records_at_every_stage_leave_the_order_of_all_others(log):
    fill(log, ["a", "converter", "b", "put", "drop", "transform", "c", "report", "d"])
    fill(log, ["put", "x", "y"], 1)
    sink = Sink()
    running = Running(log, sink)
    wait_for(lambda: committed(log) == {0: 9, 1: 3})
    assert running.stop() == (12, 6, 5, 1, 0)
    assert sink.written == {0: ["a", "b", "c", "d"], 1: ["x", "y"]}
    assert sorted(letter.where for letter in letters(log)) == ["t-0@1", "t-0@3", "t-0@5", "t-0@7", "t-1@0"]
    assert [future.done() for future in sink.futures] == [True]


def test_a_letter_names_field_expectation_fix_and_classes(log):
    fill(log, ["put"])
    running = Running(log, Sink())
    wait_for(lambda: committed(log) == {0: 1})
    running.stop()
    (letter,) = letters(log)
    assert letter.cause[:3] == ("TASK_PUT", "tieline.api.errors.RecordError", "no put")
    assert letter.cause.raised_by.endswith("test_dead_letters.Sink")
    assert letter.cause[4:8] == ("a.b", None, "a number", "Repair it")


def test_a_partition_of_bad_records_alone_moves_on(log):
    fill(log, ["converter"] * 40)
    sink = Sink()
    running = Running(log, sink)
    wait_for(lambda: committed(log) == {0: 40})
    assert running.stop() == (40, 0, 40, 0, 0)
    assert sink.puts == []
    assert len(letters(log)) == 40


def test_more_bad_records_than_tolerated_stop_the_task_behind_everything_before_them(log):
    fill(log, ["a", "converter", "put", "b", "transform", "c"])
    sink = Sink()
    running = Running(log, sink, Window(2, 10))
    running.join()
    assert running.error is not None
    assert not running.error.restart_helps
    assert str(running.error).startswith("more than 2 of the last 10 records cannot be handled (errors.tol")
    assert "TRANSFORMATION: the record t-0@4 cannot be handled: no transform" in str(running.error)
    assert committed(log) == {0: 4}
    assert len(letters(log)) == 2
    assert sink.written == {0: ["a", "b", "c"]}  # c is not committed, and comes again


def test_reported_records_count_for_the_window(log):
    fill(log, ["report"] * 4)
    running = Running(log, Sink(), Window(2, 10))
    running.join()
    assert "more than 2 of the last 10 records cannot be handled" in str(running.error)
    assert committed(log) == {}
    assert letters(log) == []


def test_letters_of_records_behind_the_safe_offset_wait_for_a_later_commit(log):
    safe = {"offset": 2}

    class Holding(Sink):
        def pre_commit(self, offsets):
            self.flush(offsets)
            return {partition: min(offset, safe["offset"]) for partition, offset in offsets.items()}

    fill(log, ["a", "put", "b", "put", "c"])
    running = Running(log, Holding())
    wait_for(lambda: committed(log) == {0: 2})
    assert [letter.where for letter in letters(log)] == ["t-0@1"]
    safe["offset"] = 9
    wait_for(lambda: committed(log) == {0: 5})
    assert [letter.where for letter in letters(log)] == ["t-0@1", "t-0@3"]
    assert running.stop() == (5, 3, 2, 0, 0)


def test_so_many_letters_that_a_sink_holds_back_are_written_early_and_each_once(log):
    held = [True]

    class Holding(Sink):
        def pre_commit(self, offsets):
            return {} if held[0] else offsets

    fill(log, ["a", *["converter"] * 2_500, "b"])
    sink = Holding()
    running = Running(log, sink)
    wait_for(lambda: len(letters(log)) == 2_500)
    assert committed(log) == {}
    fill(log, ["c"])
    wait_for(lambda: sink.written[0] == ["a", "b", "c"])
    held[0] = False
    wait_for(lambda: committed(log) == {0: 2_503})
    assert running.stop() == (2_503, 3, 2_500, 0, 0)
    assert len({letter.id for letter in letters(log)}) == len(letters(log)) == 2_500


def test_thousands_of_letters_in_one_batch_ask_the_sink_for_its_offsets_once(log, monkeypatch):
    """A sink flushes to answer. While a commit is on its way, once for each letter would be thousands."""
    asked = []
    commit = LocalConsumer.commit_async

    def answered_late(*args):
        answer: Future[None] = Future()
        stored = commit(*args)
        threading.Timer(0.03, lambda: answer.set_result(stored.result())).start()
        return answer

    monkeypatch.setattr(LocalConsumer, "commit_async", answered_late)

    class Counting(Sink):
        def pre_commit(self, offsets):
            asked.append(dict(offsets))
            return offsets

    fill(log, ["converter"] * 4_000)
    running = Running(log, Counting())
    wait_for(lambda: committed(log) == {0: 4_000})
    assert running.stop() == (4_000, 0, 4_000, 0, 0)
    assert len(letters(log)) <= 8_000  # a stop before the answer writes them again
    assert len({letter.id for letter in letters(log)}) == 4_000
    assert len(asked) < 20


def test_an_outage_holds_bad_records_of_its_partition_and_makes_each_letter_once(log):
    left = [3]

    def unavailable(batch):
        if left[0] and any(record.partition == 1 for record in batch):
            left[0] -= 1
            written = [record.value for record in batch if record.partition == 0]
            sink.written[0] += written
            raise RetriableError(
                "away", partitions=[record.consumed_from for record in batch if record.partition]
            )

    fill(log, ["a", "converter", "b"])
    fill(log, ["x", "converter", "y"], 1)
    sink = Sink(unavailable)
    running = Running(log, sink)
    wait_for(lambda: committed(log) == {0: 3, 1: 3})
    assert running.stop() == (6, 4, 2, 0, 0)
    assert sink.written == {0: ["a", "b"], 1: ["x", "y"]}
    assert sorted(letter.where for letter in letters(log)) == ["t-0@1", "t-1@1"]
    assert running.environment.counters["dead_letters.VALUE_CONVERTER"] == 2


class UnwritableLetters:
    """The local log, whose consumers cannot write records with a commit while ``error`` is set."""

    def __init__(self, log):
        self._log, self.error, self.attempts = log, None, 0

    def __getattr__(self, name):
        return getattr(self._log, name)

    def consumer(self, *arguments):
        real, outer = self._log.consumer(*arguments), self

        class Consumer:
            def __getattr__(self, name):
                return getattr(real, name)

            def commit(self, offsets, timeout, records=(), *more):
                outer.check(records)
                real.commit(offsets, timeout, records, *more)

            def commit_async(self, offsets, records=(), *more):
                outer.check(records)
                return real.commit_async(offsets, records, *more)

        return Consumer()

    def check(self, records):
        if records and self.error is not None:
            self.attempts += 1
            raise self.error


def test_letters_that_cannot_be_written_stop_progress_and_drop_nothing(log):
    broker = UnwritableLetters(log)
    broker.error = RetriableError("the topic is unavailable")
    fill(log, ["a", "put", "b"])
    sink = Sink()
    running = Running(log, sink, broker=broker)
    wait_for(lambda: broker.attempts >= 2)
    fill(log, ["c"])
    before = broker.attempts
    wait_for(lambda: broker.attempts >= before + 2)
    assert (sink.written[0], committed(log), letters(log)) == (["a", "b"], {}, [])
    broker.error = None
    wait_for(lambda: committed(log) == {0: 4})
    assert running.stop() == (4, 3, 1, 0, 0)
    assert sink.written[0] == ["a", "b", "c"]
    assert [letter.where for letter in letters(log)] == ["t-0@1"]


def test_a_sink_waits_in_its_own_thread_for_the_topic_of_its_letters_and_can_be_stopped_meanwhile(log):
    class NoTopics(UnwritableLetters):
        def create_topic(self, name, **options):
            self.attempts += 1
            raise RetriableError("the broker is unavailable")

    broker = NoTopics(log)
    running = Running(log, Sink(), broker=broker)
    wait_for(lambda: broker.attempts >= 3)
    assert running.stop() == (0, 0, 0, 0, 0)
    assert running.error is None


def test_a_letter_that_is_too_large_loses_its_traceback_and_then_waits(log, caplog):
    log.create_topic("dead", partitions=1, config={"max.message.bytes": "300"})
    fill(log, ["a", "put", "b"])
    running = Running(log, Sink())
    wait_for(lambda: "Raise its max.message.bytes" in caplog.text)
    running.stop()
    assert (committed(log), letters(log)) == ({}, [])


def test_a_letter_that_fits_without_its_traceback_is_written(log, tmp_path):
    def size_of(letter_log):
        fill(letter_log, ["converter"])
        running = Running(letter_log, Sink())
        wait_for(lambda: committed(letter_log) == {0: 1})
        running.stop()
        return letter_log.store.size("dead")[1]

    measured = LocalLog.open(tmp_path / "measured")
    measured.create_topic("t", partitions=2)
    size = size_of(measured)
    measured.close()
    log.create_topic("dead", partitions=1, config={"max.message.bytes": str(size - 1)})
    size_of(log)
    assert [letter.cause.traceback for letter in letters(log)] == [""]


def test_letters_of_lost_partitions_are_dropped_because_their_records_come_again(log):
    letters_of_task = SinkLetters(DeadLetters(DeadLetterQueue("dead"), log, TaskEnvironment("c", 0)))
    fill(log, ["put"])
    record = log.store.read_from("t", 0, 0, 1)[0]
    letters_of_task.add(record, Failure(Stage.TASK_PUT, ValueError("x")))
    (pending,) = letters_of_task.all()
    letters_of_task.drop([pending.partition])
    assert pending.stored.cancelled()
    assert letters_of_task.all() == []


def test_a_task_that_keeps_a_changelog_refuses_dead_letters(log):
    class Keeping(Sink):
        def open(self, partitions):
            self.context.changelog(next(iter(partitions)), Schema.parse('"long"'))

    running = Running(log, Keeping())
    running.join()
    assert "a dead letter queue is not possible" in str(running.error)


def test_a_record_of_an_earlier_batch_that_is_reported_is_kept_as_data(log):
    class Late(Sink):
        def put(self, batch):
            self.kept = [*getattr(self, "kept", ()), *batch]

        def flush(self, offsets):
            for record in self.kept:
                self.context.report(record._replace(offset=record.offset), ValueError("late"))
            self.kept = []

    fill(log, ["a"])
    sink = Late()
    running = Running(log, sink)
    wait_for(lambda: committed(log) == {0: 1})
    fill(log, ["b"])
    wait_for(lambda: committed(log) == {0: 2})
    assert running.stop() == (2, 0, 2, 0, 0)
    assert [(letter.value, letter.form) for letter in letters(log)] == [(b"a", None), (b"b", None)]


def test_a_record_is_reported_once_although_it_is_offered_again(log):
    left = [2]

    class Reporting(Sink):
        def put(self, batch):
            super().put(batch)
            if left[0]:
                left[0] -= 1
                raise RetriableError("away")

    fill(log, ["a", "report"])
    sink = Reporting()
    running = Running(log, sink)
    wait_for(lambda: committed(log) == {0: 2})
    assert running.stop() == (2, 1, 1, 0, 0)
    assert len(letters(log)) == 1
    assert all(future is sink.futures[0] for future in sink.futures)


REPLAYED = (
    ("own", b"1"),
    ("tieline.dlq.attempts", b"2"),
    ("tieline.dlq.replay.of", b"c:bus-1@7#1"),
    ("tieline.dlq.replay.job", b"j"),
    ("tieline.dlq.replay.origin", b"bus-1@7"),
)


@pytest.mark.parametrize(
    ("topic", "place", "letter_id"),
    [
        ("tieline-replay-c", ("bus", 1, 7), "c:bus-1@7#2"),
        ("t", ("t", 0, 3), "c:t-0@3#2"),  # any producer could write such a header there
    ],
)
def test_a_replay_that_fails_again_is_a_letter_about_the_first_place(log, topic, place, letter_id):
    maker = DeadLetters(DeadLetterQueue("dead"), log, TaskEnvironment("c", 0, clock=FakeClock()))
    record = ConsumedRecord(topic, 0, 3, b"v", None, REPLAYED, 9)
    made = maker.of_consumed(record, Failure(Stage.TASK_PUT, ValueError("no")))
    letter = read_letter(ConsumedRecord("dead", 0, 0, made.value, made.key, made.headers, 0))
    assert (letter.topic, letter.partition, letter.offset) == place
    assert (letter.id, letter.attempts, letter.replay_of) == (letter_id, 2, "c:bus-1@7#1")
    assert letter.headers == (("own", b"1"),)


def test_a_letter_shows_no_secret_of_the_configuration(log, monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", ("hunter2!",))

    def refuse(batch):
        raise DataError({0: ValueError("mongodb://me:hunter2!@host refuses it")})

    fill(log, ["a"])
    running = Running(log, Sink(refuse))
    wait_for(lambda: committed(log) == {0: 1})
    running.stop()
    (letter,) = letters(log)
    assert letter.cause.message == "mongodb://me:********@host refuses it"
    assert "hunter2!" not in repr(letter)


def test_replays_that_fail_again_do_not_stop_the_task_and_hide_no_broken_converter(log):
    log.create_topic("tieline-replay-c", partitions=1)
    bad = [b"put", b"report", b"converter"] * 10
    log.store.append([ProducerRecord("tieline-replay-c", value, None, REPLAYED) for value in bad])
    fill(log, ["good"])
    running = Running(log, Sink(), Window(2, 5))
    wait_for(lambda: running.task.stats.dead_lettered == 30)
    fill(log, ["put", "put", "put"])
    stats = running.join()
    assert "more than 2 of the last 5 records" in str(running.error)
    assert stats.dead_lettered == 32
