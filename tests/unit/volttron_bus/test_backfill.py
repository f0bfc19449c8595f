"""Back-fill as the runtime drives it, on the stand-ins of router and historian."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest

from tieline.api import BACKFILL_HEADER, ID_HEADER, header
from tieline.testing.source_context import RecordingSourceContext
from tieline_connectors.volttron_bus.source import VolttronBusTask
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.testing.fake_historian import FakeHistorian
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter, NoAnswerError, RawAnswer

NAME = "tieline.test"
TOPIC = "devices/campus/ahu1/all"
QUICK = {
    "platform.name": "lab",
    "reconnect.backoff.ms": "20",
    "reconnect.backoff.max.ms": "100",
    "backfill.historian": "platform.historian",
    "backfill.rate": "100000",
}
START = datetime.now(timezone.utc) - timedelta(hours=1)


class Platform:
    """A router, its historian, and what agents publish: reading ``n`` at microsecond ``n``."""

    def __init__(self, router, historian):
        self.router = router
        self.historian = historian

    def publish(self, *numbers, topic=TOPIC):
        for number in numbers:
            stamp = (START + timedelta(microseconds=number)).isoformat(timespec="microseconds")
            points = {"n": number, "half": number / 2}
            meta = {"units": "x", "type": "float", "tz": "UTC"}
            self.router.publish(topic, {"TimeStamp": stamp}, [points, {"n": meta, "half": meta}])


@pytest.fixture
def platform():
    historian = FakeHistorian()
    with FakeRouter(rpc={"platform.historian": dict(historian.methods)}) as router:
        router.listeners.append(historian.capture)
        yield Platform(router, historian)
        assert router.dropped == 0


class Running:
    """A started task with its context, and the records that it has returned."""

    def __init__(self, task, context):
        self.task = task
        self.context = context
        self.records = []

    def poll(self, until, seconds=10.0, max_records=500):
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (self.context.counters, numbers(self.records))
            self.records += self.task.poll(max_records, 0.05)

    def poll_count(self, count):
        self.poll(lambda: len(self.records) >= count)

    def poll_counter(self, name, number=1):
        self.poll(lambda: self.context.counters[name] >= number)


@contextmanager
def source(platform, tmp_path, *, killed=False, **settings):
    """A started task that has subscribed. ``killed``: its file is left as it was before the stop."""
    settings = {key.replace("__", "."): value for key, value in settings.items()}
    config = VolttronBusConfig.parse({**QUICK, "volttron.address": platform.router.address, **settings})
    context = RecordingSourceContext(data_dir=tmp_path)
    file = tmp_path / "backfill" / "test-0.received"
    task = VolttronBusTask(context, config)
    task.start()
    platform.router.wait_for_subscriber(NAME)
    running = Running(task, context)
    try:
        yield running
    finally:
        left = file.read_bytes() if killed else b""
        task.interrupt()
        while not killed and (rest := task.poll(500, 0)):
            running.records += rest
        task.stop()
        if killed:
            file.write_bytes(left)
    end = time.monotonic() + 10
    while NAME in platform.router.subscriptions():
        assert time.monotonic() < end


def numbers(records):
    return sorted(record.value["points"]["n"] for record in records)


def marks(records):
    return [header(record, BACKFILL_HEADER) for record in records]


def ids(records):
    return [header(record, ID_HEADER) for record in records]


def test_what_was_published_while_the_worker_was_down_arrives_with_the_ids_of_the_bus(platform, tmp_path):
    with source(platform, tmp_path) as first:
        platform.publish(1, 2, 3)
        first.poll_count(3)
    platform.publish(*range(4, 54))
    with source(platform, tmp_path) as second:
        platform.publish(54)
        second.poll_counter("backfill.gaps.complete")
        second.poll_counter("backfill.recovered", 50)
        platform.publish(55)
        second.poll_count(52)
    assert numbers(first.records + second.records) == list(range(1, 56))
    assert Counter(marks(second.records)) == {None: 2, b"verified": 50}
    assert second.context.counters == {
        "backfill.gaps": 1, "backfill.gaps.complete": 1, "backfill.recovered": 50,
    }  # fmt: skip
    with source(platform, tmp_path / "other", backfill__historian="") as live:
        platform.publish(*range(4, 54))
        live.poll_count(50)
    recovered = [record for record in second.records if header(record, BACKFILL_HEADER)]
    assert sorted(ids(recovered)) == sorted(ids(live.records))


def test_a_lost_connection_is_a_gap_too(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
        platform.router.stop()
        platform.router.start()
        platform.publish(2, 3)
        platform.router.wait_for_subscriber(NAME)
        platform.publish(4)
        running.poll_counter("backfill.recovered", 2)
        running.poll_counter("backfill.gaps.complete")
    assert numbers(running.records) == [1, 2, 3, 4]
    assert running.context.counters["reconnects"] == 1


def test_nothing_is_fetched_if_nothing_was_missed_but_the_neighbours_of_the_gap(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    with source(platform, tmp_path) as running:
        platform.publish(2)
        running.poll_counter("backfill.gaps.complete")
    assert numbers(running.records) == [2]
    assert running.context.counters == {"backfill.gaps": 1, "backfill.gaps.complete": 1}


def test_a_kill_in_the_middle_loses_nothing_and_repeats_with_the_same_ids(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(*range(2, 402))
    with source(platform, tmp_path, killed=True, backfill__page__size="100") as second:
        platform.publish(402)
        second.poll(lambda: len(second.records) >= 100, max_records=50)
    with source(platform, tmp_path) as third:
        platform.publish(403)
        third.poll_counter("backfill.gaps.complete")
        third.poll(lambda: third.context.counters["backfill.recovered"] >= 1)
        third.poll(lambda: {*numbers(second.records), *numbers(third.records)} == set(range(2, 404)))
    by_number: dict[int, set[bytes | None]] = {}
    for record in second.records + third.records:
        by_number.setdefault(record.value["points"]["n"], set()).add(header(record, ID_HEADER))
    assert all(len(one) == 1 for one in by_number.values())


def test_a_stop_in_the_middle_repeats_nothing(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(*range(2, 402))
    with source(platform, tmp_path, backfill__page__size="100") as second:
        platform.publish(402)
        second.poll(lambda: len(second.records) >= 100, max_records=50)
    assert len(second.records) < 401
    with source(platform, tmp_path, backfill__page__size="100") as third:
        platform.publish(403)
        third.poll_counter("backfill.gaps.complete", 2)
        third.poll_count(402 - len(second.records))
    assert numbers(second.records + third.records) == list(range(2, 404))


def test_a_batch_holds_recovered_readings_only_if_live_ones_leave_room(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(*range(2, 102))
    with source(platform, tmp_path, buffer__max__messages="100") as running:
        platform.publish(102)
        running.poll_count(1)
        while not platform.historian.queries:
            assert running.task.poll(0, 0.01) == []
        platform.publish(*range(103, 206))
        running.context.wait_for("dropped.buffer_full", 3)  # so 100 live ones wait
        live = [*running.task.poll(60, 0), *running.task.poll(40, 0)]
        assert numbers(live) == list(range(103, 203))
        assert marks(live) == [None] * 100
        running.records += live
        running.poll_count(201)
    assert numbers(running.records) == list(range(2, 203))


def test_nothing_is_fetched_while_the_spool_is_half_full(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    with source(platform, tmp_path) as running:
        running.context.spool_used = 0.6
        platform.publish(3)
        running.poll(lambda: running.context.counters["backfill.gaps"])
        for _ in range(10):
            running.records += running.task.poll(10, 0.02)
        assert platform.historian.queries == []
        running.context.spool_used = 0.4
        running.poll_counter("backfill.gaps.complete")
    assert numbers(running.records) == [2, 3]


def test_a_missing_historian_is_reported_and_the_gap_stays_open(platform, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    methods = platform.router.rpc.pop("platform.historian")
    with source(platform, tmp_path) as running:
        platform.publish(3)
        running.poll(lambda: running.context.connections.all())
        reason = running.context.connections.all()
        assert "platform.historian" in str(reason)
        platform.router.rpc["platform.historian"] = methods
        running.poll_counter("backfill.gaps.complete")
        running.poll(lambda: "back-fill ended" in caplog.text)
    assert numbers(running.records) == [2, 3]
    assert "no agent is connected as platform.historian" in caplog.text
    messages = [r.getMessage() for r in caplog.records if r.getMessage().startswith("back-fill")]
    assert messages[0].startswith("back-fill begins: 1 devices may have missed readings, the first after ")
    assert messages[1:] == ["back-fill ended: 1 readings recovered, 1 gaps complete, 0 incomplete"]


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON", b"[]", b'{"jsonrpc": "2.0", "id": "m3", "result": 5}',
        b'{"jsonrpc": "2.0", "id": "m3", "result": {"values": 7}}',
        b'{"jsonrpc": "2.0", "id": "m3", "result": {"values": {"other/topic": []}}}',
        b'{"jsonrpc": "2.0", "id": "m3", "result": {"values": {"campus/ahu1/n": 3}}}',
    ],
)  # fmt: skip
def test_a_hostile_answer_is_counted_and_asked_for_again(platform, tmp_path, answer, monkeypatch):
    monkeypatch.setattr("tieline_connectors.volttron_bus.backfill.progress._FIRST_DELAY", 0.01)
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    query = platform.historian.methods["query"]
    answers = [RawAnswer(answer)]
    platform.router.rpc["platform.historian"]["query"] = lambda **asked: (
        answers.pop() if answers else query(**asked)
    )
    with source(platform, tmp_path) as running:
        platform.publish(3)
        running.poll_counter("backfill.gaps.complete")
    assert answers == []
    assert numbers(running.records) == [2, 3]
    assert running.context.counters["backfill.invalid"] == 1


def test_rows_without_a_time_or_outside_the_gap_are_counted_and_left_out(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    query = platform.historian.methods["query"]

    def bad(**asked):
        answer = query(**asked)
        rows = answer["values"]["campus/ahu1/n"]
        rows += [[7, 1], ["yesterday", 1], "row", [rows[0][0]], ["2199-01-01T00:00:00Z", 1]]
        return answer

    platform.router.rpc["platform.historian"]["query"] = bad
    with source(platform, tmp_path) as running:
        platform.publish(3)
        running.poll_counter("backfill.gaps.complete")
    assert numbers(running.records) == [2, 3]
    assert (running.context.counters["backfill.invalid"], running.context.counters["backfill.outside"]) == (
        4,
        1,
    )


def test_a_historian_that_lacks_points_gives_unverified_readings(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("tieline_connectors.volttron_bus.backfill.progress._FIRST_DELAY", 0.01)
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    topics = platform.historian.methods["get_topic_list"]
    platform.router.rpc["platform.historian"]["get_topic_list"] = lambda: [
        topic for topic in topics() if topic.endswith("/n")
    ]
    with source(platform, tmp_path) as running:
        platform.publish(3)
        running.poll_counter("backfill.gaps.complete")
    assert running.records[-1].value["points"] == {"n": 2}
    assert marks(running.records) == [None, b"unverified"]
    assert running.context.counters["backfill.unverified"] == 1


def test_a_reading_that_the_historian_stores_late_is_awaited(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("tieline_connectors.volttron_bus.backfill.progress._FIRST_DELAY", 0.01)
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    platform.historian.stores = False
    with source(platform, tmp_path) as running:
        platform.publish(4)
        running.poll(lambda: len(platform.historian.queries) >= 3)
        assert numbers(running.records) == [4]  # 2 is held: it may still lack points
        platform.historian.stores = True
        platform.publish(3, 4)
        running.poll_counter("backfill.gaps.complete")
    recovered = [record for record in running.records if header(record, BACKFILL_HEADER)]
    assert numbers(recovered) == [2, 3]


def test_a_gap_whose_end_the_historian_never_has_is_reported_as_incomplete(
    platform, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("tieline_connectors.volttron_bus.backfill.progress.SETTLE", 0.0)
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    platform.historian.stores = False
    with source(platform, tmp_path) as running:
        platform.publish(3)
        running.poll_counter("backfill.gaps.incomplete")
        running.poll(lambda: len(running.records) == 2)
    assert numbers(running.records) == [2, 3]
    assert "readings of campus/ahu1 between " in caplog.text
    assert "may be missing: the historian does not have the reading after it" in caplog.text


def test_a_gap_older_than_the_largest_age_is_not_fetched(platform, tmp_path):
    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.publish(2)
    with source(platform, tmp_path, backfill__max__age__ms="60000") as running:
        platform.publish(3)
        running.poll_count(1)
        for _ in range(5):
            running.records += running.task.poll(10, 0.02)
    assert numbers(running.records) == [3]
    assert platform.historian.queries == []


def test_messages_that_came_from_kafka_are_not_fetched(platform, tmp_path):
    def echo(number):
        stamp = (START + timedelta(seconds=number)).isoformat()
        platform.router.publish(TOPIC, {"TimeStamp": stamp, "tieline.origin": "lab"}, [{"n": number}, {}])

    with source(platform, tmp_path) as running:
        echo(1)
        running.poll_counter("filtered.echo")
    echo(2)
    with source(platform, tmp_path) as running:
        echo(3)
        running.poll_counter("filtered.echo")
    assert running.records == []
    assert platform.historian.queries == []


def test_a_silent_historian_delays_neither_live_messages_nor_the_stop(platform, tmp_path):
    asked = []

    def silent(**query):
        asked.append(query)
        raise NoAnswerError

    with source(platform, tmp_path) as running:
        platform.publish(1)
        running.poll_count(1)
    platform.router.rpc["platform.historian"]["query"] = silent
    with source(platform, tmp_path) as running:
        platform.publish(2)
        running.poll(lambda: asked)
        platform.publish(*range(3, 103))
        running.poll_count(101)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 5
    assert numbers(running.records) == list(range(2, 103))
