"""The bus sink as the runtime drives it, on the stand-in router."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from tieline.api import DataError, RetriableError, SinkRecord, TopicPartition, identity
from tieline.config.plan import check_plan
from tieline.testing.proxy import TcpProxy
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.volttron_bus.sink import VolttronBusSink, VolttronBusSinkTask
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint

QUICK = {
    "platform.name": "lab",
    "bus.allowed.prefixes": "analysis",
    "value.shape": "json",
    "publish.timeout.ms": "300",
    "reconnect.backoff.ms": "20",
    "rate.limit": "0",
}


@pytest.fixture
def bus():
    with FakeRouter() as bus:
        yield bus
        assert bus.dropped == 0


@contextmanager
def observer(bus):
    """``seen()``: topic and body of all that the router has handed on until now."""
    with VipClient(Endpoint(bus.address, "observer")) as client:
        client.hello()
        client.subscribe("")
        received: list[tuple[str, object]] = []

        def observed():
            client.ping()  # what was handed on before the answer is here with it
            while messages := client.messages(0.001, 1):
                received.extend((m.topic, m.body) for m in messages)
            return list(received)

        yield observed


@contextmanager
def sink(address, **settings):
    config = VolttronBusSinkConfig.parse(
        {**QUICK, "volttron.address": address}
        | {key.replace("__", "."): value for key, value in settings.items()}
    )
    context = RecordingSinkContext()
    task = VolttronBusSinkTask(context, config)
    try:
        task.start()
        yield task, context
    finally:
        task.interrupt()
        task.stop()


def record(number, topic="analysis/x", partition=0, **fields):
    return SinkRecord(
        "t", partition, number, number, topic, identity("t", partition, number), now_ms(), **fields
    )


def now_ms():
    return time.time_ns() // 1_000_000


def records(*numbers, **fields):
    return [record(number, **fields) for number in numbers]


def bodies(observed):
    return [body for _, body in observed()]


def test_a_batch_is_published_in_its_order_and_a_commit_is_requested(bus):
    with observer(bus) as observed, sink(bus.address) as (task, context):
        task.put(records(*range(100)))
        assert bodies(observed) == list(range(100))
        assert context.counters == {"published": 100}
        assert context.commit_requests == 1


def test_a_rejected_record_is_counted_reported_once_with_its_position_and_skipped(bus, caplog):
    bad = [record(n, topic) for n, topic in enumerate(["42", "true", "devices/x", "", "analysis/\n"])]
    with observer(bus) as observed, sink(bus.address) as (task, context):
        task.put([record(10), *bad, record(11)])
        assert bodies(observed) == [10, 11]
        assert context.counters == {"published": 2, "refused.topic": 4, "refused.not_allowed": 1}
    reported = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [line.partition(" is not")[0] for line in reported] == ["the record t-0@0", "the record t-0@2"]


def test_with_stop_a_rejected_record_is_a_data_error_and_all_others_are_published(bus):
    with observer(bus) as observed, sink(bus.address, on__refused="stop") as (task, context):
        with pytest.raises(DataError) as raised:
            task.put([record(0), record(1, "null"), record(2)])
        assert list(raised.value.failures) == [1]
        assert bodies(observed) == [0, 2]
        assert context.counters == {"published": 2, "refused.topic": 1}


def test_messages_of_this_platform_are_not_published_back_to_it(bus):
    with observer(bus) as observed, sink(bus.address) as (task, context):
        ours, theirs = (
            record(n)._replace(headers=(("tieline.origin", o),)) for n, o in enumerate((b"lab", b"b"))
        )
        task.put([ours, theirs])
        assert bodies(observed) == [1]
        assert context.counters == {"published": 1, "filtered.echo": 1}


def test_records_that_are_too_old_are_skipped_counted_and_reported(bus, caplog):
    with observer(bus) as observed, sink(bus.address, max__age__ms="60000") as (task, context):
        task.put([record(0)._replace(timestamp=now_ms() - 61_000), record(1)])
        assert bodies(observed) == [1]
        assert context.counters == {"published": 1, "filtered.expired": 1}
    assert "t-0@0 is not published: it is older than max.age.ms" in caplog.text


def test_over_the_rate_limit_the_rest_waits_and_nothing_is_published_twice(bus):
    with observer(bus) as observed, sink(bus.address, rate__limit="200", rate__burst="20") as (task, context):
        batch, began = records(*range(60)), time.monotonic()
        waits = []
        while batch:
            try:
                task.put(batch)
                batch = []
            except RetriableError as error:
                batch = batch[error.reached[TopicPartition("t", 0)] - batch[0].offset :]
                waits.append(error.after or 0.0)
                time.sleep(waits[-1])
        assert time.monotonic() - began >= (60 - 20) / 200
        assert bodies(observed) == list(range(60))
        assert context.counters == {"published": 60, "throttled": len(waits)}
    assert all(0 < wait <= 0.1 for wait in waits)


def test_a_lost_platform_is_retriable_with_the_progress_and_a_new_connection_continues(bus):
    with sink(bus.address) as (task, context):
        task.put(records(0))
        bus.stop()
        # The first may still go into the connection that is just being lost.
        for message in (r"nothing listens there|the connection was lost", r"nothing listens there"):
            with pytest.raises(RetriableError, match=message) as raised:
                task.put(records(1, 2))
            assert raised.value.reached == {}
        bus.start()
        with observer(bus) as observed:
            task.put(records(1, 2))
            assert bodies(observed) == [1, 2]
        assert context.counters == {"published": 3, "reconnects": 1}


def test_a_router_that_falls_silent_is_abandoned_in_time_and_reconnected(bus):
    with sink(bus.address) as (task, _):
        bus.fall_silent()
        began = time.monotonic()
        with pytest.raises(RetriableError, match="has not confirmed"):
            task.put(records(0))
        assert 0.3 <= time.monotonic() - began < 1.0
        bus.stop()
        bus.start()
        with observer(bus) as observed:
            task.put(records(0))
            assert bodies(observed) == [0]


def test_a_half_open_connection_is_replaced_by_another_under_a_derived_identity(bus):
    with (
        observer(bus) as observed,
        TcpProxy("127.0.0.1", int(bus.address.rpartition(":")[2])) as proxy,
        sink(f"tcp://127.0.0.1:{proxy.port}") as (task, context),
    ):
        task.put(records(0))
        proxy.freeze()
        for _ in range(2):  # not confirmed; then the name is taken
            with pytest.raises(RetriableError):
                task.put(records(1))
        task.put(records(1))
        assert bodies(observed) == [0, 1]
        assert context.counters == {"published": 2, "reconnects": 1}


def test_a_stop_ends_the_wait_for_a_silent_router(bus):
    with sink(bus.address, publish__timeout__ms="60000") as (task, _):
        bus.fall_silent()
        stopper = threading.Timer(0.1, task.interrupt)
        stopper.start()
        began = time.monotonic()
        with pytest.raises(RetriableError):
            task.put(records(0))
        stopper.join()
        assert time.monotonic() - began < 2


@contextmanager
def router_that_says(answers):
    """Answers a hello, and the messages p1, p2, … as configured, for what the fake router does not do."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def answer():
            confirmed = [b"pubsub", b"request_response", b"\x01\x00\x00\x00"]
            expected = {b"hello": [[b"hello", b"welcome", b"1.0", b"router", b"us"]], **answers}
            while expected and socket.poll(5000):
                sender, peer, protocol, user, ident, *_ = socket.recv_multipart()
                for rest in expected.pop(ident) or [confirmed]:
                    socket.send_multipart([sender, peer, protocol, user, ident, *(rest or confirmed)])

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"tcp://127.0.0.1:{port}"
        thread.join()


def test_messages_that_the_router_refuses_and_slow_subscribers_are_counted():
    """As a 2.x platform says it: an error, and behind it the confirmation all the same."""
    answers = {
        b"p1": [[b"error", b"101", b"not authorized to publish to analysis/x", b"", b"pubsub"], None],
        b"p2": [[b"error", b"11", b"Resource temporarily unavailable", b"slow.agent", b"pubsub"], None],
        b"p3": None,
    }
    with router_that_says(answers) as address, sink(address) as (task, context):
        task.put(records(0, 1, 2))
        assert context.counters == {"published": 2, "refused.by_router": 1, "slow_subscribers": 1}


def test_a_loss_within_a_batch_reports_its_progress_including_rejected_records():
    with router_that_says({b"p1": None, b"p3": None}) as address, sink(address) as (task, context):
        batch = [record(0), record(1, "42"), record(2), record(3), record(4, partition=1)]
        with pytest.raises(RetriableError) as raised:
            task.put(batch)
        assert raised.value.reached == {TopicPartition("t", 0): 3}
        assert context.counters == {"published": 2, "refused.topic": 1}
        assert context.commit_requests == 1


def test_one_task_however_many_are_allowed():
    settings = {**QUICK, "volttron.address": "tcp://127.0.0.1:1"}
    context: Any = SimpleNamespace(settings=settings)
    connector = VolttronBusSink(
        context, VolttronBusSinkConfig.parse({**settings, "bus.allowed.prefixes": "a"})
    )
    assert connector.task_configs(7) == [settings]


@pytest.mark.parametrize("name", ["volttron_bus", "volttron_bus_sink"])
def test_a_connector_with_topics_is_the_sink_under_its_name_and_its_old_one(name):
    settings = {"name": "back", "connector.class": name, "topics": "commands", "value.converter": "json"}
    settings |= {"volttron.address": "tcp://127.0.0.1:22916", **QUICK}
    (planned,) = check_plan("worker", {}, [("back.yaml", settings)]).connectors
    assert planned.connector is VolttronBusSink
