"""The durable totals and the lag in seconds of a sink task, on the local log."""

import json
import logging

import pytest
from tests.unit.runtime.sink.test_task import Running, Sink, fill, log, wait_for

from tieline.api import RetriableError, TopicPartition
from tieline.broker.records import ProducerRecord
from tieline.runtime.task.totals import add_up, decode_note, summarize
from tieline.transforms.filter import Filter

__all__ = ["log"]  # the fixture

ZERO, ONE = TopicPartition("t", 0), TopicPartition("t", 1)


def run(log, count):
    """Run a task until its sink has ``count`` records. Return the task, which has ended."""
    sink = Sink(count)
    running = Running(log, sink, Filter(Filter.config_type.parse({"key.regex": "drop"})))
    wait_for(lambda: sum(map(len, sink.written.values())) >= count and running.task.totals)
    running.stop()
    return running.task


def totals_of(task):
    return summarize(task.totals)["t"]


def change_note(log, partition, **changes):
    """Change a stored note, as a damaged disk does."""
    stored = log.store.noted("connect-c")[partition]
    note = json.dumps({**json.loads(stored.note), **changes})
    log.store.commit("connect-c", {partition: stored.offset}, notes={partition: note})


def test_the_totals_of_a_topic_continue_in_the_next_life(log):
    fill(log, ["a", "b", "c"])
    log.store.append(
        [ProducerRecord("t", b"d", b"drop", partition=1), ProducerRecord("t", b"e", partition=1)]
    )
    first = totals_of(run(log, 4))
    assert first == {
        "since": first["since"],
        "received": 5,
        "delivered": 4,
        "dead_lettered": 0,
        "filtered": 1,
        "in_flight": 0,
        "skipped": 0,
        "mismatch": 0,
    }
    fill(log, ["f", "g"])
    assert totals_of(run(log, 2)) == first | {"received": 7, "delivered": 6}
    assert totals_of(run(log, 0)) == first | {"received": 7, "delivered": 6}


def test_what_is_read_and_not_committed_is_in_flight(log):
    fill(log, ["a", "b", "c"])
    running = Running(log, Sink(4))  # never enough, so that nothing is committed before the end
    wait_for(lambda: running.task.totals and totals_of(running.task)["in_flight"] == 3)
    shown = totals_of(running.task)
    assert (shown["received"], shown["delivered"]) == (3, 0)
    running.stop()
    shown = totals_of(running.task)
    assert (shown["received"], shown["delivered"], shown["in_flight"]) == (3, 3, 0)


@pytest.mark.parametrize("note", ["", "{", "of another program", '{"tieline":2}', "[" * 4000])
def test_an_unreadable_note_begins_a_new_count_and_no_alarm(log, caplog, note):
    fill(log, ["a", "b", "c"])
    log.store.commit("connect-c", {ZERO: 2}, notes={ZERO: note})
    task = run(log, 1)
    assert (totals_of(task)["received"], totals_of(task)["mismatch"]) == (1, 0)
    assert task.totals[ZERO].totals.first == 2
    assert not [line for line in caplog.records if hasattr(line, "alarm")]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"received": 5, "delivered": 5}, 2),
        ({"received": 1, "delivered": 1}, 2),
        ({"delivered": 2}, 1),
        ({"first": 1}, 1),
    ],
)
def test_changed_totals_raise_an_alarm_with_the_size_of_the_mismatch(log, caplog, changes, size):
    fill(log, ["a", "b", "c"])
    run(log, 3)
    change_note(log, ZERO, **changes)
    fill(log, ["d"])
    with caplog.at_level(logging.ERROR):
        task = run(log, 1)
    alarms = [line for line in caplog.records if getattr(line, "alarm", "") == "ledger.mismatch"]
    assert len(alarms) == 1  # at the start; the next one comes after a minute
    assert f"by {size} records" in alarms[0].getMessage()
    assert "t-0" in alarms[0].getMessage()
    assert totals_of(task)["mismatch"] == size
    assert add_up(summarize(task.totals).values())["mismatch"] == size


def test_an_offset_that_an_operator_sets_begins_a_new_count(log):
    fill(log, ["a", "b", "c"])
    run(log, 3)
    log.offsets.commit("connect-c", {ZERO: 1}, 5)
    task = run(log, 2)
    assert (totals_of(task)["received"], totals_of(task)["mismatch"]) == (2, 0)
    assert task.totals[ZERO].totals.first == 1


def test_a_recreated_topic_begins_a_new_count(log):
    fill(log, ["a", "b", "c"])
    run(log, 3)
    log.delete_topic("t")
    log.create_topic("t", partitions=2)
    fill(log, ["d"])
    task = run(log, 1)
    assert (totals_of(task)["received"], totals_of(task)["mismatch"]) == (1, 0)


def test_records_that_expired_unread_are_no_mismatch(log):
    fill(log, ["a", "b", "c", "d", "e"])
    log.store.commit("connect-c", {ZERO: 1})
    log.store.delete_before("t", 0, 3)
    task = run(log, 2)
    assert (totals_of(task)["received"], totals_of(task)["mismatch"]) == (2, 0)
    assert task.totals[ZERO].totals.skipped == 2


def test_a_task_that_seeks_back_begins_a_new_count(log):
    fill(log, ["a", "b", "c"])
    run(log, 3)

    class Seeking(Sink):
        def open(self, partitions):
            self.context.seek(ZERO, 1)

    sink = Seeking(2)
    running = Running(log, sink)
    wait_for(lambda: len(sink.written[0]) == 2)
    running.stop()
    totals = decode_note(log.store.noted("connect-c")[ZERO].note)
    assert totals is not None
    assert (totals.first, totals.received) == (1, 2)
    assert totals_of(running.task)["mismatch"] == 0


# -- the lag in seconds


def at(log, *ages):
    """Append records whose timestamps are so many seconds before the clock's begin."""
    log.store.append([ProducerRecord("t", b"x", None, (), 1_700_000_000_000 - age * 1000, 0) for age in ages])


def test_the_lag_in_seconds_is_the_age_of_the_oldest_record_that_is_not_committed(log):
    at(log, 500, 300, 100)
    running = Running(log, Sink(9))  # never enough: nothing is committed
    wait_for(lambda: running.task.totals and totals_of(running.task)["in_flight"] == 3)
    assert running.task.lag_seconds == pytest.approx(500, abs=30)
    running.stop()


def test_the_lag_in_seconds_is_zero_if_everything_is_committed(log):
    at(log, 500)
    running = Running(log, Sink(1))
    wait_for(lambda: running.task.lag == 0 and totals_of(running.task)["delivered"] == 1)
    assert running.task.lag_seconds == 0.0
    running.stop()


def test_the_lag_in_seconds_of_a_sink_that_takes_nothing_is_that_of_its_first_record(log):
    def unavailable(batch):
        raise RetriableError("the store is unavailable")

    at(log, 700, 600)
    running = Running(log, Sink(9, unavailable))
    wait_for(lambda: running.task.lag == 2)
    lag_seconds = running.task.lag_seconds
    assert lag_seconds is not None
    assert lag_seconds >= 700
    running.stop()


def test_the_lag_in_seconds_is_unknown_before_the_first_look(log):
    running = Running(log, Sink(1), topic="missing")
    assert running.task.lag_seconds in (None, 0.0)
    running.stop()
