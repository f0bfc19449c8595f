"""The kit that crashes a worker: after a crash, nothing of its process has an effect."""

import inspect
import sys

import pytest

from tieline.broker import port
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import check_plan
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.worker.factory import open_broker
from tieline.testing.crash.points import Guarded, GuardedBroker, Process
from tieline.testing.crash.runner import Crash, CrashPoint, Life, Step
from tieline.testing.distribution import distribution


def methods(kind):
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            parameters = list(inspect.signature(function).parameters.values())[1:]
            yield name, [None for p in parameters if p.default is p.empty]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_after_a_crash_every_method_of_a_broker_and_a_spool_raises_and_changes_no_file(
    tmp_path,
):
    process = Process(None)
    log = LocalLog.open(tmp_path)
    spool = Spool(tmp_path / "spool.db", Limits(1 << 20, True, 0), Counters())
    log.create_topic("t")
    broker = GuardedBroker(process, log)
    parts = [
        (broker, port.Broker),
        (broker.producer("", {}), port.Producer),
        (broker.consumer("g", "", {}), port.Consumer),
        (Guarded(process, spool), Spool),
    ]
    process.dead.set()
    before = content(tmp_path)
    for thing, kind in parts:
        for name, arguments in methods(kind):
            with pytest.raises(Crash):  # noqa: PT012 - a context manager refuses when it is entered
                answer = getattr(thing, name)(*arguments)
                with answer:
                    pass
    assert content(tmp_path) == before
    spool.close()
    log.close()


def test_an_exclusive_writer_writes_nothing_after_its_process_has_died(tmp_path):
    process, log = Process(None), LocalLog.open(tmp_path)
    log.create_topic("t", partitions=1)
    holding = GuardedBroker(process, log).exclusive("t")
    holding.__enter__().append([ProducerRecord("t", b"1")])
    process.dead.set()
    with pytest.raises(Crash):
        holding.__exit__(None, None, None)
    assert log.read("t", lambda record: None) == {0: 0}
    log.close()


@pytest.mark.parametrize(("when", "happened"), [("before", [1]), ("after", [1, 2])])
def test_a_crash_comes_before_an_effect_or_after_it_and_nothing_comes_after_a_crash(when, happened):
    process = Process(CrashPoint(Step.PUT, when, 2))
    effects: list[object] = []
    put = process.guard(effects.append, Step.PUT)
    flush = process.guard(lambda: effects.append("flushed"), None)
    put(1)
    try:
        with pytest.raises(Crash, match=f"10-put-{when}"):
            put(2)
    finally:
        with pytest.raises(Crash, match="dead"):
            flush()
    assert effects == happened
    assert process.done == {Step.PUT: len(happened)}


def test_an_empty_answer_does_not_count_as_an_effect():
    answers = iter([[], [], ["a batch"]])
    poll = Process(CrashPoint(Step.POLL, "after")).guard(lambda: next(answers), Step.POLL)
    assert [poll(), poll()] == [[], []]
    with pytest.raises(Crash):
        poll()


def test_a_produced_record_is_stored_before_the_crash_after_it(tmp_path):
    process, log = Process(CrashPoint(Step.PRODUCE, "after", 2)), LocalLog.open(tmp_path)
    log.create_topic("t", partitions=1)
    producer = GuardedBroker(process, log).producer("", {})
    producer.send(Unit([ProducerRecord("t", b"1")]))
    with pytest.raises(Crash):
        producer.send(Unit([ProducerRecord("t", b"2")]))
    assert log.read("t", lambda record: None) == {0: 2}
    log.close()


def test_a_file_is_copied_through_a_crash_as_the_kits_documentation_says(tmp_path):
    lines = [f"line {n}" for n in range(500)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.txt"

    def plan(folder):
        common = {"value.converter": "string", "connector.class": "file", "max.poll.records": "100"}
        source = {**common, "name": "in", "file": str(tmp_path / "in.txt"), "topic": "t"}
        sink = {**common, "name": "out", "file": str(out), "topics": "t"}
        settings = {"data.dir": str(folder), "offset.flush.interval.ms": "10"}
        return check_plan("test", settings, [("in", source), ("out", sink)])

    def copied():
        return out.exists() and set(out.read_text().splitlines()) == set(lines)

    one, two = plan(tmp_path / "one"), plan(tmp_path / "two")
    with Life(one, open_broker(one), CrashPoint(Step.PRODUCE, "after", 2)) as first:
        assert first.run(until=copied)
        first.leave(tmp_path / "two")
        assert (tmp_path / "two" / "log.db-wal").stat().st_size > 0, "the log is not checkpointed"
        with Life(two, open_broker(two)) as second:
            assert not second.run(until=copied)
        written = out.read_text().splitlines()
    assert set(written) == set(lines)
    assert len(written) <= len(lines) + 200, "what the log had when it crashed may have been written twice"


PLUGINS = """
from tieline.api import Config, SinkConnector, SinkTask, SourceConnector, SourceRecord, SourceTask

ends = []


class Outlives(SinkTask[Config]):
    def put(self, batch):
        pass

    def flush(self, offsets):
        ends.append("flush")

    def close(self, partitions, lost):
        ends.append("close")

    def interrupt(self):
        ends.append("interrupt")

    def stop(self):
        ends.append("stop")


class One(SourceTask[Config]):
    def start(self):
        self.batch = [SourceRecord("t", "1")]

    def poll(self, max_records, max_wait):
        batch, self.batch = self.batch, []
        return batch


class Fails(One):
    def poll(self, max_records, max_wait):
        raise ValueError("a bug")


class OutlivesSink(SinkConnector[Config]):
    task_type = Outlives


class OneSource(SourceConnector[Config]):
    task_type = One


class FailsSource(SourceConnector[Config]):
    task_type = Fails
"""


@pytest.fixture
def plan(tmp_path):
    sinks, sources = {"outlives": "crashing:OutlivesSink"}, {"one": "crashing:OneSource"}
    groups = {"tieline.sinks": sinks, "tieline.sources": sources | {"fails": "crashing:FailsSource"}}

    def plan(**connectors):
        settings = {"data.dir": str(tmp_path / "data"), "offset.flush.interval.ms": "10"}
        planned = [
            (name, {"name": name, "connector.class": name, "value.converter": "string", **own})
            for name, own in connectors.items()
        ]
        return check_plan("test", settings, planned)

    with distribution(tmp_path, "crashing", groups, {"crashing": PLUGINS}):
        yield plan


def test_a_crashed_task_is_not_stopped_and_its_resources_are_released_afterwards(plan):
    planned = plan(one={}, outlives={"topics": "t"})
    ends = sys.modules["crashing"].ends
    with Life(planned, open_broker(planned), CrashPoint(Step.PUT, "after")) as life:
        assert life.run(until=lambda: False)
        assert ends == []
        ledger = life.ledger()
        assert ledger["one"]["received"] == 1
        assert ledger["outlives"]["received"] == 0, "the worker does not know that the sink took it"
    assert ends == ["stop"]


def test_a_task_that_fails_by_itself_is_not_taken_for_a_crash(plan):
    planned = plan(fails={})
    with Life(planned, open_broker(planned)) as life, pytest.raises(AssertionError, match="a bug"):
        life.run(until=lambda: False)


def test_a_run_with_neither_a_crash_nor_an_end_fails_after_its_timeout(plan):
    planned = plan(one={})
    life = Life(planned, open_broker(planned), CrashPoint(Step.SPOOL, "before"))
    with life, pytest.raises(AssertionError, match="neither a crash nor the end within"):
        life.run(until=lambda: False, timeout=0.1)
