"""Sources on the real local log: offsets, filtered records, outages, broken producers, spooled ones."""

import threading
from typing import Any

import pytest

from tieline.api import Config, DataError, FatalError, RetriableError, SourceRecord, SourceTask, Transform
from tieline.broker.local.log import LocalLog
from tieline.config.settings import Timing
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.source.pump import Pump, SpoolInput
from tieline.runtime.source.receiver import Receiver
from tieline.runtime.source.sender import ProducerOptions, Sender
from tieline.runtime.source.task import SavedOffsets, WorkerSourceTask
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.totals import Totals, decode_note, describe, encode_note
from tieline.runtime.task.transform_chain import TransformChain
from tieline.testing.clock import FakeClock
from tieline.transforms.filter import Filter, FilterConfig

TIMING = Timing(offset_flush=0.05, max_records=10, max_wait=0.01, drain=5.0, call_timeout=5.0)


class Numbers(SourceTask[Config]):
    """0, 1, 2 … up to a total; each number is its offset."""

    def __init__(self, total, fail=lambda n: None):
        self.total, self.fail = total, fail
        self.acknowledged = []
        self.commits = 0
        self.done = threading.Event()
        self.closed = False

    def given(self, context):
        self.context = context
        return self

    def start(self):
        saved = self.context.offset({"p": "n"})
        self.next: int = saved["n"] if saved else 0  # type: ignore[assignment]

    def poll(self, max_records, max_wait):
        self.fail(self.next)
        end = min(self.total, self.next + max_records)
        batch = [
            SourceRecord("t", str(n), "drop" if n % 5 == 4 else None, {"p": "n"}, {"n": n + 1})
            for n in range(self.next, end)
        ]
        self.next = end
        if not batch:
            self.done.set()
        return batch

    def commit_record(self, record, metadata):
        self.acknowledged.append((record.value, metadata and metadata.offset))

    def commit(self):
        self.commits += 1

    def stop(self):
        self.closed = True


class Stream(Numbers):
    replayable = False


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    yield log
    log.close()


def strings(kind=StringConverter):
    no_store: Any = None
    return kind(StringConverterConfig.parse({}), is_key=False, schemas=no_store)


def conversion(*transforms):
    converter = strings()
    return SourceConversion(TransformChain(transforms), converter, converter)


def running(log, task, *transforms, broker=None):
    environment = TaskEnvironment("c", 0, clock=FakeClock(step=0.001))
    options = ProducerOptions(broker or log, "c-0", {})
    worker = WorkerSourceTask(
        environment,
        task.given,
        lambda acknowledged: Sender(environment, conversion(*transforms), options, acknowledged),
        SavedOffsets.of(log, "c", 1),
        TIMING,
    )
    return worker, environment


def run_until(worker, event):
    """Run a task in a thread until the event (none: until it ends by itself); its failure, or none."""
    failures = []

    def target():
        try:
            worker.run()
        except TaskFailedError as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    if event is not None:
        assert event.wait(10)
        worker.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    return failures[0] if failures else None


def totals(worker):
    """Return the numbers of the durable ledger that are not 0."""
    (view,) = worker.totals.values()
    numbers = describe(view)
    return {key: numbers[key] for key in numbers if numbers[key] and key not in ("since", "mismatch")}


def values(log):
    return [r.value.decode() for r in log.store.read_from("t", 0, 0, 10_000)]


def test_records_and_offsets_reach_the_log_and_each_record_is_acknowledged_in_order(log):
    task = Numbers(25)
    worker, _ = running(log, task)
    assert run_until(worker, task.done) is None
    assert values(log) == [str(n) for n in range(25)]
    assert log.source_offsets("c", 1) == {'{"p":"n"}': '{"n":25}'}
    assert task.acknowledged == [(str(n), n) for n in range(25)]
    assert worker.stats == (25, 25, 0, 0, 0)
    assert task.commits >= 1
    assert task.closed


def test_a_restarted_source_continues_after_its_saved_offset(log):
    for total in (12, 30):
        task = Numbers(total)
        worker, _ = running(log, task)
        run_until(worker, task.done)
        assert totals(worker) == {"received": total, "delivered": total}
    assert values(log) == [str(n) for n in range(30)]


def test_the_totals_are_loaded_before_the_task_starts_and_what_is_not_saved_is_in_flight(log):
    stored = Totals(5, 0, received=7, delivered=6, filtered=1)
    log.store.save_source_offsets(
        "c", {'{"p":"n"}': '{"n":10}', '{"p":"other"}': "{}"}, notes={'{"p":"n"}': encode_note(stored)}
    )
    seen = []
    held = threading.Event()

    class Looking(Numbers):
        def start(self):
            super().start()
            seen.append(totals(worker))

        def poll(self, max_records, max_wait):
            batch = super().poll(max_records, max_wait)
            seen.append(totals(worker))
            if not batch:
                held.set()
            return batch

    worker, _ = running(log, Looking(12))
    assert run_until(worker, held) is None
    assert seen[:2] == [{"received": 7, "delivered": 6, "filtered": 1}] * 2
    assert seen[2] == {"received": 9, "delivered": 6, "filtered": 1, "in_flight": 2}
    assert totals(worker) == {"received": 9, "delivered": 8, "filtered": 1}
    assert worker.totals.keys() == {'{"p":"n"}'}
    assert worker.totals['{"p":"n"}'].totals.since == 5


def test_stored_totals_that_do_not_add_up_are_an_alarm_with_the_size_of_the_difference(log, caplog):
    wrong = Totals(5, 0, received=7, delivered=4)
    log.store.save_source_offsets("c", {'{"p":"n"}': '{"n":10}'}, notes={'{"p":"n"}': encode_note(wrong)})
    task = Numbers(12)
    worker, _ = running(log, task)
    assert run_until(worker, task.done) is None
    (alarm,) = [r for r in caplog.records if getattr(r, "alarm", "") == "ledger.mismatch"]
    assert 'the source partition {"p":"n"} differs by 3 records' in alarm.getMessage()
    assert worker.totals['{"p":"n"}'].mismatch == 3


def test_filtered_records_are_counted_acknowledged_without_metadata_and_advance_the_offset(log):
    drop = Filter(FilterConfig.parse({"key.regex": "drop"}))
    task = Numbers(15)
    worker, _ = running(log, task, drop)
    run_until(worker, task.done)
    assert worker.stats == (15, 12, 0, 3, 0)
    assert totals(worker) == {"received": 15, "delivered": 12, "filtered": 3}
    assert [value for value, offset in task.acknowledged if offset is None] == ["4", "9", "14"]
    assert log.source_offsets("c", 1) == {'{"p":"n"}': '{"n":15}'}


def test_a_source_that_is_unavailable_is_polled_again_later(log):
    failures = [3]

    def unavailable(number):
        if number == 10 and failures[0]:
            failures[0] -= 1
            raise RetriableError("the source is unavailable")

    task = Numbers(25, unavailable)
    worker, environment = running(log, task)
    assert run_until(worker, task.done) is None
    assert values(log) == [str(n) for n in range(25)]
    assert environment.counters["retries"] == 3


def test_a_source_with_a_fatal_error_stops_after_its_records_are_acknowledged_and_saved(log):
    def dies(number):
        if number == 20:
            raise FatalError("the licence is over")

    worker, _ = running(log, Numbers(99, dies))
    failure = run_until(worker, None)
    assert "the licence is over" in str(failure)
    assert values(log) == [str(n) for n in range(20)]
    assert log.source_offsets("c", 1) == {'{"p":"n"}': '{"n":20}'}


class BreakingLog:
    """The local log, whose first producer breaks after some units, as librdkafka's does on a fatal error."""

    def __init__(self, log, units):
        self._log, self._units, self.made = log, units, 0

    def __getattr__(self, name):
        return getattr(self._log, name)

    def producer(self, client_id, overrides):
        self.made += 1
        real = self._log.producer(client_id, overrides)
        return BreakingProducer(real, self._units) if self.made == 1 else real


class BreakingProducer:
    def __init__(self, real, units):
        self._real, self._left = real, units

    def __getattr__(self, name):
        return getattr(self._real, name)

    def send(self, unit):
        self._left -= 1
        if self._left >= 0:
            self._real.send(unit)

    def poll(self, timeout):
        delivered = self._real.poll(5 if self._left < 0 else timeout)
        if self._left < 0 and not delivered:
            raise RetriableError("the producer broke")
        return delivered


def test_a_broken_producer_is_replaced_and_only_what_was_not_acknowledged_is_sent_again(log):
    task = Numbers(100)
    broker = BreakingLog(log, 4)
    worker, _ = running(log, task, broker=broker)
    assert run_until(worker, task.done) is None
    assert broker.made == 2
    assert values(log) == [str(n) for n in range(100)]
    assert worker.stats == (100, 100, 0, 0, 0)
    stored = decode_note(log.source_notes("c", 1)['{"p":"n"}'])
    assert stored is not None
    assert totals(worker) == {"received": stored.received, "delivered": 100}


def spooled(log, task, path, create_sender=None):
    environment = TaskEnvironment("c", 0, clock=FakeClock(step=0.001))
    spool = Spool(path, Limits(1 << 30, True, 1 << 20), environment.counters)
    receiver = Receiver(environment, task.given, spool, TIMING)
    sender = create_sender or (
        lambda: Sender(environment, conversion(), ProducerOptions(log, "c-0", {}, positions=spool))
    )
    return environment, spool, receiver, Pump(environment, spool, sender, TIMING)


def test_the_records_of_a_spooled_source_are_sent_and_its_spool_is_empty_afterwards(log, tmp_path):
    task = Stream(40)
    environment, spool, receiver, pump = spooled(log, task, tmp_path / "s.db")
    threads = [threading.Thread(target=part.run) for part in (receiver, pump)]
    for thread in threads:
        thread.start()
    assert task.done.wait(10)
    deadline = threading.Event()
    while spool.waiting[0] and not deadline.wait(0.005):
        pass
    for part in (receiver, pump):
        part.interrupt()
    for thread in threads:
        thread.join(10)
    assert values(log) == [str(n) for n in range(40)]
    assert environment.counters["spooled"] == 40
    assert pump.stats == (40, 40, 0, 0, 0)
    spool.close()


def test_a_pump_that_fails_does_not_stop_the_reception(log, tmp_path):
    class Broken(StringConverter):
        def serialize(self, batch):
            raise ValueError("a bug in a converter")

    task = Stream(50)
    environment, spool, receiver, pump = spooled(log, task, tmp_path / "s.db")
    converter = strings(Broken)
    bad = SourceConversion(TransformChain([]), converter, converter)
    pump = Pump(
        environment,
        spool,
        lambda: Sender(environment, bad, ProducerOptions(log, "c-0", {}, positions=spool)),
        TIMING,
    )
    thread = threading.Thread(target=receiver.run)
    thread.start()
    with pytest.raises(TaskFailedError, match="a bug in a converter"):
        pump.run()
    assert task.done.wait(10)
    receiver.interrupt()
    thread.join(10)
    assert spool.waiting[0] == 50
    spool.close()
    task = Stream(0)
    environment, spool, receiver, pump = spooled(log, task, tmp_path / "s.db")
    thread = threading.Thread(target=pump.run)
    thread.start()
    while spool.waiting[0]:
        environment.stop.wait(0.005)
    pump.interrupt()
    thread.join(10)
    assert values(log) == [str(n) for n in range(50)]
    spool.close()


class DiskAway:
    """A spool of which nothing can be deleted until the disk is back."""

    def __init__(self):
        self.back = False
        self.rejected = 0
        self.spool: Spool

    def save(self, reached, ended):
        if not self.back:
            self.rejected += 1
            raise RetriableError("the disk is unavailable")
        self.spool.save(reached, ended)


def test_no_more_than_one_batch_is_sent_and_still_in_the_spool(log, tmp_path):
    environment: TaskEnvironment
    task, disk = Stream(50), DiskAway()
    options = ProducerOptions(log, "c-0", {}, positions=disk)
    environment, spool, receiver, pump = spooled(
        log, task, tmp_path / "s.db", lambda: Sender(environment, conversion(), options)
    )
    disk.spool = spool
    run_until(receiver, task.done)
    environment.stop.clear()
    thread = threading.Thread(target=pump.run)
    thread.start()
    while pump.stats.delivered < TIMING.max_records:
        environment.stop.wait(0.005)
    enough = disk.rejected + 3
    while disk.rejected < enough:
        environment.stop.wait(0.005)
    assert values(log) == [str(n) for n in range(TIMING.max_records)]
    assert spool.waiting[0] == 50
    disk.back = True
    while spool.waiting[0]:
        environment.stop.wait(0.005)
    pump.interrupt()
    thread.join(10)
    assert values(log) == [str(n) for n in range(50)]
    spool.close()


class AwayOrEndless(Stream):
    """A bus that is unavailable, or one that never becomes silent, when it is asked to stop."""

    def poll(self, max_records, max_wait):
        self.fail(0)
        return [SourceRecord("t", "again")]


def unavailable(number):
    raise RetriableError("the bus is unavailable")


@pytest.mark.parametrize("fail", [unavailable, lambda number: None])
def test_a_receiver_ends_in_time_whatever_its_source_does_then(log, tmp_path, fail):
    environment, spool, _, _ = spooled(log, Stream(0), tmp_path / "s.db")
    timing = TIMING._replace(drain=0.05)
    receiver = Receiver(environment, AwayOrEndless(0, fail).given, spool, timing)
    thread = threading.Thread(target=receiver.run)
    environment.stop.set()
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    spool.close()


def test_a_source_whose_commit_fails_continues(log):
    class Untold(Numbers):
        def commit(self):
            super().commit()
            raise RetriableError("the queue manager is unavailable")

    task = Untold(25)
    worker, _ = running(log, task)
    assert run_until(worker, task.done) is None
    assert values(log) == [str(n) for n in range(25)]
    assert task.commits >= 1


class Rejecting(StringConverter):
    """Rejects texts that begin with a given one."""

    bad: str

    def serialize(self, batch):
        if failures := {i: ValueError(f"bad {d.data}") for i, d in enumerate(batch) if self.rejects(d)}:
            raise DataError(failures)
        return super().serialize(batch)

    def rejects(self, datum):
        return str(datum.data).startswith(self.bad)


class RejectingTransform(Transform[Config]):
    def apply(self, batch):
        if bad := {i: ValueError("bad transform") for i, r in enumerate(batch) if r.value == "transform"}:
            raise DataError(bad)
        return batch


def rejecting():
    key, value = strings(Rejecting), strings(Rejecting)
    key.bad, value.bad = "key", "value"
    return SourceConversion(TransformChain([RejectingTransform(Config())]), key, value)


def test_each_failure_of_a_batch_has_its_own_stage_and_cause():
    good = SourceRecord("t", "good")
    batch = [
        good,
        SourceRecord("t", "v", "key 1"),
        SourceRecord("t", "transform"),
        SourceRecord("t", "value 3"),
        good,
    ]
    records, failures = rejecting().convert(batch)
    assert [record and record.value for record in records] == [b"good", None, None, None, b"good"]
    assert {i: (f.stage.value, str(f.cause)) for i, f in failures.items()} == {
        1: ("KEY_CONVERTER", "bad key 1"),
        2: ("TRANSFORMATION", "bad transform"),
        3: ("VALUE_CONVERTER", "bad value 3"),
    }


class Given(Numbers):
    """Returns one batch."""

    def __init__(self, batch):
        super().__init__(0)
        self.batch = batch

    def poll(self, max_records, max_wait):
        batch, self.batch = self.batch, []
        return batch


@pytest.mark.parametrize(
    ("bad", "stage", "fix"),
    [
        (("v", "key"), "KEY_CONVERTER", "Correct the converter's settings"),
        (("value", None), "VALUE_CONVERTER", "Correct the converter's settings"),
        (
            ("transform", None),
            "TRANSFORMATION",
            "Repair or remove the record, or filter it with a transform",
        ),
        (
            ("x" * 2_000_000, None),
            "KAFKA_PRODUCE",
            "Change the topic's settings, or filter the record with a transform",
        ),
    ],
)
def test_a_data_error_of_a_source_names_connector_topic_position_and_fix(log, bad, stage, fix):
    batch = [
        SourceRecord("t", value, key, {"file": "a"}, {"line": line})
        for line, (value, key) in enumerate([("good", None), bad, ("behind", None)], 1)
    ]
    environment = TaskEnvironment("c", 0, clock=FakeClock(step=0.001))
    options = ProducerOptions(log, "c-0", {})
    log.create_topic("t", partitions=1, config={"max.message.bytes": "1000000"})
    worker = WorkerSourceTask(
        environment,
        Given(batch).given,
        lambda acknowledged: Sender(environment, rejecting(), options, acknowledged),
        SavedOffsets.of(log, "c", 1),
        TIMING,
    )
    failure = str(run_until(worker, None))
    assert failure.startswith(
        f'{stage}: the record of the connector c for the topic t at source partition {{"file":"a"}}, '
        'offset {"line":2} cannot be handled: '
    )
    assert failure.endswith(f"; its batch and everything behind it wait where they are. {fix}")
    assert log.source_offsets("c", 1) == {}


def test_a_data_error_of_a_spooled_source_names_the_position_in_the_spool(log, tmp_path):
    environment, spool, _, _ = spooled(log, Stream(0), tmp_path / "s.db")
    spool.append([SourceRecord("t", value) for value in ("a", "b", "value", "c")])
    options = ProducerOptions(log, "c-0", {}, positions=spool)
    pump = Pump(environment, spool, lambda: Sender(environment, rejecting(), options), TIMING)
    failure = str(run_until(pump, None))
    assert "VALUE_CONVERTER: the record of the connector c for the topic t at spool position 2" in failure
    assert spool.waiting[0] == 4
    spool.close()


def test_a_pump_whose_input_has_ended_drains_the_spool_and_ends(log, tmp_path):
    environment, spool, _, _ = spooled(log, Stream(0), tmp_path / "s.db")
    spool.append([SourceRecord("t", str(n)) for n in range(25)])
    options = ProducerOptions(log, "c-0", {}, positions=spool)
    spool_input = SpoolInput()
    pump = Pump(environment, spool, lambda: Sender(environment, conversion(), options), TIMING, spool_input)
    spool_input.end()
    assert run_until(pump, None) is None
    assert values(log) == [str(n) for n in range(25)]
    assert spool.waiting[0] == pump.lag == 0
    assert spool_input.reopen()
    assert not spool_input.reopen()
    spool.close()


class StreamWithoutQuestion(Stream):
    def start(self):
        self.next = 0


@pytest.mark.parametrize("asks", [True, False])
def test_a_spooled_source_that_uses_source_offsets_is_reported_once(log, tmp_path, caplog, asks):
    task = Stream(30) if asks else StreamWithoutQuestion(30)
    _, spool, receiver, _ = spooled(log, task, tmp_path / "s.db")
    assert run_until(receiver, task.done) is None
    (message,) = [m for m in caplog.messages if "replayable = False" in m]
    what = "asks for source offsets" if asks else "returns records with a source offset"
    assert message == (
        f"the task c-0 {what}, but has replayable = False: source offsets are not saved, and context.offsets "
        "returns None. The position in its spool is used instead. See the page 'Replayable or not?'"
    )
    spool.close()


def test_a_source_whose_polls_return_nothing_after_an_error_is_not_called_available(log, caplog):
    caplog.set_level("INFO")
    polls = []

    class Slow(Numbers):
        """Polls its device at every fifth call only, and the device is unavailable."""

        def poll(self, max_records, max_wait):
            polls.append(1)
            if len(polls) % 5 == 1:
                raise RetriableError("the device is unavailable")
            if len(polls) > 50:
                self.done.set()
            return []

    task = Slow(0)
    worker, _ = running(log, task)
    assert run_until(worker, task.done) is None
    assert caplog.messages.count("unavailable, waiting: the device is unavailable") == 1
    assert "available again" not in caplog.messages
