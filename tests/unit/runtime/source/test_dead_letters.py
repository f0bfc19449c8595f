"""Sources with dead letters on the real local log: one bad record costs itself alone, at every stage."""

from __future__ import annotations

import threading
from typing import Any

import apsw
import pytest

from tieline.api import DataError, SourceRecord, SourceTask, Transform
from tieline.api.config import Config
from tieline.broker.local.log import LocalLog
from tieline.config.dead_letters import DeadLetterQueue, Window
from tieline.config.settings import Timing
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.dead_letters.record import read_letter
from tieline.dead_letters.source_record import source_record
from tieline.runtime.errors.dead_letters import DeadLetters
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.source.pump import Pump, SpoolInput
from tieline.runtime.source.sender import ProducerOptions, Sender
from tieline.runtime.source.task import SavedOffsets, WorkerSourceTask
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.totals import decode_note
from tieline.runtime.task.transform_chain import TransformChain
from tieline.testing.clock import FakeClock

TIMING = Timing(offset_flush=0.05, max_records=10, max_wait=0.01, drain=5.0, call_timeout=5.0)
LARGE = "x" * 2_000_000


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    log.create_topic("t", partitions=1, config={"max.message.bytes": "1000000"})
    yield log
    log.close()


class Given(SourceTask[Config]):
    """Returns its records in batches, until none is left."""

    def __init__(self, records, size):
        self.records, self.size = records, size
        self.acknowledged: list[tuple[str, bool]] = []
        self.done = threading.Event()

    def given(self, context):
        return self

    def start(self):
        self.left = list(self.records)

    def poll(self, max_records, max_wait):
        batch, self.left = self.left[: self.size], self.left[self.size :]
        if not batch:
            self.done.set()
        return batch

    def commit_record(self, record, metadata):
        self.acknowledged.append((record.value[:9], metadata is not None))


class RejectingTransform(Transform[Config]):
    def apply(self, batch):
        if bad := {i: ValueError("no transform") for i, r in enumerate(batch) if r.value == "transform"}:
            raise DataError(bad)
        return [None if record.value == "drop" else record for record in batch]


class Rejecting(StringConverter):
    bad: str

    def serialize(self, batch):
        if failures := {i: ValueError(f"no {self.bad}") for i, d in enumerate(batch) if d.data == self.bad}:
            raise DataError(failures)
        return super().serialize(batch)


def conversion():
    no_store: Any = None
    sides: list[Any] = []
    for bad in ("key", "value"):
        converter = Rejecting(StringConverterConfig.parse({}), is_key=bad == "key", schemas=no_store)
        converter.bad = bad
        sides.append(converter)
    return SourceConversion(TransformChain([RejectingTransform(Config())]), sides[0], sides[1])


def records(*values):
    return [
        SourceRecord(
            "t", "v" if value == "key" else value, "key" if value == "key" else None, {"p": 1}, {"n": n}
        )
        for n, value in enumerate(values, 1)
    ]


def environment():
    return TaskEnvironment("c", 0, clock=FakeClock(step=0.001))


def worker(log, task, window=None, env=None):
    env = env or environment()
    dead = DeadLetters(DeadLetterQueue("dead", window=window), log, env)
    options = ProducerOptions(log, "c-0", {})
    return WorkerSourceTask(
        env,
        task.given,
        lambda acknowledged: Sender(env, conversion(), options, acknowledged, dead),
        SavedOffsets.of(log, "c", 1),
        TIMING,
    )


def run_until(running, event):
    failures = []

    def target():
        try:
            running.run()
        except TaskFailedError as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    assert event is None or event.wait(10)
    if event is not None:
        running.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    return failures[0] if failures else None


def values(log, topic="t"):
    return [(r.value or b"").decode()[:9] for r in log.store.read_from(topic, 0, 0, 10_000)]


def letters(log):
    return [read_letter(record) for record in log.store.read_from("dead", 0, 0, 10_000)]


@pytest.mark.parametrize(
    ("bad", "stage"),
    [
        ("key", "KEY_CONVERTER"),
        ("value", "VALUE_CONVERTER"),
        ("transform", "TRANSFORMATION"),
        (LARGE, "KAFKA_PRODUCE"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_bad_record_becomes_a_dead_letter_and_all_others_arrive_in_order(log, bad, stage, size):
    values_sent = ["a", "b", bad, "drop", "c", "d"]
    task, env = Given(records(*values_sent), size), environment()
    running = worker(log, task, env=env)
    assert run_until(running, task.done) is None
    assert values(log) == ["a", "b", "c", "d"]
    (letter,) = letters(log)
    assert (letter.cause.stage, letter.topic, letter.connector, letter.task) == (stage, "t", "c", 0)
    assert letter.position == 'source partition {"p":1}, offset {"n":3}'
    assert letter.cause.fix.endswith(", then replay the letter")
    original = source_record(letter)
    assert (original.value, original.key) == (records(*values_sent)[2].value, records(*values_sent)[2].key)
    assert log.source_offsets("c", 1) == {'{"p":1}': '{"n":6}'}
    assert running.stats == (6, 4, 1, 1, 0)
    totals = decode_note(log.source_notes("c", 1)['{"p":1}'])
    assert totals is not None
    assert (totals.received, totals.delivered, totals.dead_lettered, totals.filtered) == (6, 4, 1, 1)
    assert env.counters[f"dead_letters.{stage}"] == 1
    assert [(v, m) for v, m in task.acknowledged] == [
        ("a", True),
        ("b", True),
        (("v" if bad == "key" else bad)[:9], False),
        ("drop", False),
        ("c", True),
        ("d", True),
    ]


def test_bad_records_of_one_batch_at_several_stages_are_letters_in_the_order_of_the_batch(log):
    task = Given(records("value", "a", "key", "b", "transform", "c"), 100)
    assert run_until(worker(log, task), task.done) is None
    assert values(log) == ["a", "b", "c"]
    assert [letter.cause.stage for letter in letters(log)] == [
        "VALUE_CONVERTER",
        "KEY_CONVERTER",
        "TRANSFORMATION",
    ]


def test_records_at_one_position_have_letters_of_their_own_and_a_repetition_has_the_same_ids(log, tmp_path):
    batch = [record._replace(source_offset={"n": 1}) for record in records("value", "a", "value", "key")]
    ids = []
    for number in range(2):
        with_log = LocalLog.open(tmp_path / str(number))
        task = Given(batch, 100)
        assert run_until(worker(with_log, task), task.done) is None
        ids.append([letter.id for letter in letters(with_log)])
        with_log.close()
    assert len(set(ids[0])) == 3
    assert ids[0] == ids[1]


def test_more_bad_records_than_tolerated_stop_the_task_and_no_offset_behind_them_is_saved(log):
    task = Given(records("a", "value", "b", "value", "c", "value", "d"), 2)
    failure = run_until(worker(log, task, Window(2, 10)), None)
    assert failure is not None
    assert not failure.restart_helps
    assert str(failure).startswith(
        "more than 2 of the last 10 records cannot be handled (errors.tolerance.window). "
        "The letters before this one are in dead. VALUE_CONVERTER: the record of the connector c"
    )
    assert log.source_offsets("c", 1) == {'{"p":1}': '{"n":4}'}
    assert len(letters(log)) == 2


def test_records_that_the_broker_refuses_count_for_the_window(log):
    task = Given(records("a", LARGE, LARGE, LARGE), 100)
    failure = run_until(worker(log, task, Window(2, 10)), None)
    assert "more than 2 of the last 10 records" in str(failure)
    assert log.source_offsets("c", 1) == {}


def test_a_letter_that_does_not_fit_loses_its_traceback_before_progress_stops(log, tmp_path):
    with_log = LocalLog.open(tmp_path / "measured")
    with_log.create_topic("t", partitions=1, config={"max.message.bytes": "1000000"})
    task = Given(records("a", LARGE), 1)
    assert run_until(worker(with_log, task), task.done) is None
    size = with_log.store.size("dead")[1]
    with_log.close()
    log.create_topic("dead", partitions=1, config={"max.message.bytes": str(size - 1)})
    task = Given(records("a", LARGE, "b"), 1)
    assert run_until(worker(log, task), task.done) is None
    (letter,) = letters(log)
    assert (letter.cause.stage, letter.cause.traceback, len(letter.value)) == ("KAFKA_PRODUCE", "", 2_000_000)


def test_a_letter_that_does_not_fit_at_all_stops_progress_and_drops_nothing(log, caplog):
    log.create_topic("dead", partitions=1, config={"max.message.bytes": "1000"})
    task, env = Given(records("a", LARGE, "b"), 1), environment()
    running = worker(log, task, env=env)
    waited = threading.Event()
    count = env.counters.add

    def counting(name, number=1):
        count(name, number)
        if name == "retries" and env.counters["retries"] == 5:
            waited.set()

    env.counters.add = counting
    assert run_until(running, waited) is None
    assert log.source_offsets("c", 1) == {'{"p":1}': '{"n":1}'}
    assert (values(log)[0], letters(log)) == ("a", [])
    assert "Raise the max.message.bytes of this dead letter topic" in caplog.text


def test_a_row_of_the_spool_that_the_disk_has_changed_is_a_letter_with_its_raw_bytes(log, tmp_path):
    env = environment()
    spool = Spool(tmp_path / "s.db", Limits(1 << 30, True, 1 << 20), env.counters, dead_letters=True)
    spool.append([SourceRecord("t", value) for value in ("a", "b", "c")])
    spool.close()
    with apsw.Connection(str(tmp_path / "s.db")) as connection:
        rows: Any = connection.execute("SELECT position, value FROM record ORDER BY position").fetchall()
        position, raw = rows[1]
        damaged = b"damaged!" + raw[8:]
        connection.execute("UPDATE record SET value = ? WHERE position = ?", (damaged, position))
    connection.close()
    spool = Spool(tmp_path / "s.db", Limits(1 << 30, True, 1 << 20), env.counters, dead_letters=True)
    dead = DeadLetters(DeadLetterQueue("dead"), log, env)
    options = ProducerOptions(log, "c-0", {}, positions=spool)
    ended = SpoolInput()
    ended.end()
    pump = Pump(env, spool, lambda: Sender(env, conversion(), options, dead_letters=dead), TIMING, ended)
    assert run_until(pump, None) is None
    assert values(log) == ["a", "c"]
    (letter,) = letters(log)
    assert (letter.cause.stage, letter.form.value, letter.position) == ("SPOOL", "spool", "spool position 1")
    assert letter.value == damaged
    assert pump.stats == (3, 2, 1, 0, 0)
    assert spool.waiting[0] == 0
    assert env.counters["quarantined.damaged"] == 0
    spool.close()
