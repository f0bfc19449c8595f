"""The follower of readings, on a real local log: what it reads, and how little it takes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tieline.api import SinkRecord, SourceRecord
from tieline.api.commands import TopicClient
from tieline.api.pages import RunningConnector
from tieline.broker.backend import Backend
from tieline.topics.client import WorkerTopics
from tieline.topics.session import BrokerSession
from tieline_connectors.points.follower import ReadingFollower, reading_topics, values_of
from tieline_connectors.points.live.table import LiveTable
from tieline_connectors.points.questions import PointName

NAME = PointName("vol1", "campus/ahu1", "Zone")


def fields(value: Any, time_us: Any) -> dict[str, Any]:
    """Return the fields of a reading of one point."""
    return {
        "platform": NAME.platform,
        "topic": f"devices/{NAME.device}/all",
        "device": NAME.device,
        "time": time_us,
        "time_source": "TIMESTAMP",
        "points": {NAME.point: value},
        "metadata": {NAME.point: {"units": "degF"}},
    }


def record(value: Any, seconds_ago: float = 0.0) -> SourceRecord:
    now = time.time() - seconds_ago
    return SourceRecord("bus", fields(value, int(now * 1_000_000)), timestamp=int(now * 1000))


def opener(backend: Backend) -> Callable[[], Any]:
    """Return what opens the topics of a worker beside it."""

    @contextmanager
    def open_client() -> Iterator[TopicClient]:
        with ExitStack() as at_exit:
            session = BrokerSession(backend.open(owner=False), backend.name, {})
            at_exit.enter_context(closing(session))
            yield WorkerTopics(session, at_exit)

    return open_client


@pytest.fixture
def open_topics(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """What opens the topics of a local log that another broker of this process owns."""
    backend = Backend(tmp_path)
    with closing(backend.open(owner=True)):
        yield opener(backend)


@contextmanager
def following(
    open_topics: Any, table: LiveTable, *, watched: bool = True, topic: str = "bus"
) -> Iterator[ReadingFollower]:
    follower = ReadingFollower([topic], open_topics, table, lambda: watched)
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not happen within 30 s"
        time.sleep(0.05)


def newest(table: LiveTable) -> Any:
    point = table.get(NAME)
    return None if point is None else point.value


def test_values_arrive_from_kafka_also_after_a_skip(tmp_path, kafka_bootstrap):
    topic = f"bus-{uuid.uuid4().hex[:8]}"
    open_topics = opener(Backend(tmp_path, kafka_bootstrap))
    table = LiveTable()

    def send_and_look() -> bool:  # a reader begins at the end that the topic has when it is ready
        client.send([record(-1.0)._replace(topic=topic)])
        return bool(newest(table) == -1.0)

    with open_topics() as client:
        for _ in range(4):
            client.send([record(float(n), 60)._replace(topic=topic) for n in range(500)])
        with following(open_topics, table, topic=topic) as follower:
            wait_for(lambda: follower.is_sampling)
            wait_for(send_and_look)


@pytest.mark.parametrize("watched", [True, False])
def test_values_from_before_and_after_its_start_arrive(open_topics, watched):
    table = LiveTable()
    with open_topics() as client:
        client.send([record(1.5)])
        with following(open_topics, table, watched=watched):
            wait_for(lambda: newest(table) == 1.5)
            client.send([record(2.5)])
            wait_for(lambda: newest(table) == 2.5)


def test_a_record_that_is_no_reading_holds_nothing_up(open_topics):
    table = LiveTable()
    others: list[Any] = [None, 3, "text", {"device": "x"}, {**fields(1, 0), "points": 7}, [1], {"body": "{}"}]
    others += [fields(1, time_us) for time_us in (-1, 2**70, "now", 1.5, None)]
    others += [
        {**fields(1, 0), name: wrong} for name in ("platform", "device", "topic") for wrong in (3, None)
    ]
    others += [{**fields(1, 0), "metadata": {NAME.point: {"units": 3}}}]
    with open_topics() as client, following(open_topics, table):
        client.send([SourceRecord("bus", other) for other in others])
        client.send([record(2.5)])
        wait_for(lambda: newest(table) == 2.5)


@pytest.mark.slow
def test_a_follower_that_falls_behind_skips_and_says_so(open_topics):
    table = LiveTable()
    with open_topics() as client:
        for _ in range(6):
            client.send([record(float(number), 60) for number in range(500)])
        with following(open_topics, table) as follower:
            wait_for(lambda: follower.is_sampling)
            wait_for(lambda: table.unseen >= 50_000_000)
            client.send([record(-1.0)])
            wait_for(lambda: newest(table) == -1.0)


@pytest.mark.slow
def test_it_takes_a_small_part_of_a_processor(open_topics, capsys):
    table = LiveTable()
    with open_topics() as client:
        for _ in range(20):
            client.send([record(float(number)) for number in range(500)])
        before, wall = time.process_time(), time.monotonic()
        with following(open_topics, table):
            time.sleep(6)
        used = (time.process_time() - before) / (time.monotonic() - wall)
    with capsys.disabled():
        print(f"\nfollowing a full topic takes {used:.1%} of a processor")
    assert used < 0.2  # 1 % in the long run; the first batch is at its begin


def test_the_topics_of_readings_are_those_of_sources_and_stores():
    def connector(plugin: str, kind: Any, settings: Mapping[str, str], topics: list[str]) -> RunningConnector:
        return RunningConnector(plugin, plugin, kind, settings, topics)

    bus = {"volttron.address": "tcp://127.0.0.1:1", "platform.name": "v", "topic": "bus"}
    routes = {"topic.routes": "analysis=analyses"}
    connectors = [
        connector("volttron_bus", "source", bus | routes, []),
        connector("history", "sink", {}, ["bus", "elsewhere"]),
        connector("command", "sink", {}, ["commands"]),
        connector("file", "sink", {}, ["lines"]),
    ]
    assert sorted(reading_topics(connectors)) == ["analyses", "bus", "elsewhere"]


def test_a_value_beyond_64_bits_is_shown_as_a_number():
    given = SinkRecord("bus", 0, 0, fields({"json": str(2**70)}, 1), None, (), 0)
    assert [value.value for value in values_of(given)] == [2**70]


def test_a_name_that_no_page_can_encode_is_shown_with_a_replacement():
    given = SinkRecord("bus", 0, 0, {**fields(1.5, 1), "platform": "\ud800"}, None, (), 0)
    assert [value.name.platform for value in values_of(given)] == ["?"]
