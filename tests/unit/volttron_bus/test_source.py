"""The bus source as the runtime drives it, on the stand-in router."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import zmq

from tieline.api import FatalError, SourceRecord
from tieline.testing.proxy import TcpProxy
from tieline.testing.source_context import RecordingSourceContext
from tieline_connectors.volttron_bus import receiver
from tieline_connectors.volttron_bus.buffer import ReceiveBuffer
from tieline_connectors.volttron_bus.source import VolttronBusTask
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip.connection import Connection

NAME = "tieline.test"
QUICK = {
    "platform.name": "lab",
    "reconnect.backoff.ms": "20",
    "reconnect.backoff.max.ms": "100",
    "ping.interval.ms": "100",
    "ping.timeout.ms": "300",
}


@pytest.fixture
def bus():
    with FakeRouter() as bus:
        yield bus
        assert bus.dropped == 0


@contextmanager
def source(address, **settings):
    """A started task; closed at the end."""
    settings = {key.replace("__", "."): value for key, value in settings.items()}
    config = VolttronBusConfig.parse({**QUICK, "volttron.address": address, **settings})
    context = RecordingSourceContext()
    task = VolttronBusTask(context, config)
    task.start()
    try:
        yield task, context
    finally:
        task.interrupt()
        task.stop()


def polled(task, count, seconds=10.0):
    """The first ``count`` records."""
    records: list[SourceRecord] = []
    end = time.monotonic() + seconds
    while len(records) < count and time.monotonic() < end:
        records += task.poll(100, 0.5)
    assert len(records) == count
    return records


def values(records):
    return [record.value["points"]["n"] for record in records]


def reading(bus, number, topic="devices/a/all"):
    return bus.publish(topic, {"TimeStamp": "2026-01-01T00:00:00Z"}, [{"n": number}, {}])


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def wait_for_warning(caplog, text, seconds=10.0):
    end = time.monotonic() + seconds
    while not any(text in warning for warning in warnings(caplog)):
        assert time.monotonic() < end, warnings(caplog)
        time.sleep(0.01)


def test_messages_become_records_in_order(bus):
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        for number in range(1000):
            assert reading(bus, number) == 1
        assert values(polled(task, 1000)) == list(range(1000))
        assert context.counters == {}


def test_the_subscription_is_logged_once_with_prefixes_and_address(bus, caplog):
    caplog.set_level(logging.INFO)
    with source(bus.address, bus__prefixes="devices,analysis") as (task, _):
        bus.wait_for_subscriber(NAME)
        reading(bus, 1)
        polled(task, 1)
    (event,) = [record for record in caplog.records if record.getMessage() == "subscribed"]
    assert event.levelno == logging.INFO
    assert (event.prefixes, event.address) == (["analysis", "devices"], bus.address)
    assert warnings(caplog) == []


def test_overlapping_prefixes_and_whole_segments(bus):
    with source(bus.address, bus__prefixes="devices/a,devices,datalogger/x") as (task, context):
        bus.wait_for_subscriber(NAME)
        reading(bus, 1)
        bus.publish("datalogger/xy", {}, 1)
        bus.publish("datalogger/x/y", {}, 2)
        records = polled(task, 2)
        assert [record.key for record in records] == ["a", "datalogger/x/y"]
        assert context.counters == {"filtered.prefix": 1}


def test_an_unreadable_time_is_counted_and_reported_once_per_topic(bus, caplog):
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        for topic, headers in (
            ("devices/a/all", {"TimeStamp": "tomorrow"}),
            ("devices/a/all", {"TimeStamp": "tomorrow"}),
            ("devices/b/all", {"Date": "01.03.2026", "other": ""}),
            ("devices/b/all", {"TimeStamp": "soon", "Date": "2026-03-01T00:00:00Z"}),
            ("devices/c/all", {}),
            ("devices/c/all", {"Date": 1772362830}),
        ):
            bus.publish(topic, headers, [{"n": 1}, {}])
        records = polled(task, 6)
        sources = [record.value["time_source"] for record in records]
        assert sources == ["RECEIVED", "RECEIVED", "RECEIVED", "DATE", "RECEIVED", "DATE"]
        assert context.counters == {"times.unreadable": 4}
    fix = "Publish ISO 8601 with a zone; this is logged once per topic, times.unreadable counts"
    assert warnings(caplog) == [
        f"a message of the topic devices/{name}/all is stored under the time of its reception: {text} "
        f"cannot be read. {fix}"
        for name, text in (("a", "TimeStamp: tomorrow"), ("b", "Date: 01.03.2026"))
    ]


@pytest.mark.parametrize(("setting", "hours"), [("UTC", 0), ("points", 8), ("Asia/Tokyo", -9)])
def test_a_naive_time_is_taken_in_the_zone_of_the_setting(bus, setting, hours):
    with source(bus.address, bus__naive__time__zone=setting) as (task, _):
        bus.wait_for_subscriber(NAME)
        body = [{"n": 1}, {"n": {"tz": "US/Pacific"}}]
        bus.publish("devices/a/all", {"TimeStamp": "2026-03-01T00:00:00"}, body)
        (record,) = polled(task, 1)
        assert record.value["time"] == (1772323200 + hours * 3600) * 1_000_000


def test_a_message_under_a_device_that_is_not_a_reading_is_counted_and_reported_once_per_topic(bus, caplog):
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        for topic, body in (
            ("devices/a/all", {"T": 52.5}),
            ("devices/a/all", 5),
            ("devices/a/all", []),
            ("devices/a/T", [[1], {}]),
            ("devices/actuators/schedule/result", 5),
            ("devices/a/T", 52.5),
        ):
            bus.publish(topic, {}, body)
        records = polled(task, 6)
        kinds = [record.value.get("kind") for record in records]
        assert kinds == ["ALL", None, None, None, None, "POINT"]
        assert [record.key for record in records] == ["a", "devices/a/all", "devices/a/all", "devices/a/T",
            "devices/actuators/schedule/result", "a"]  # fmt: skip
        assert context.counters == {"readings.without_points": 3}
    assert [text.partition(" from ")[0] for text in warnings(caplog)] == [
        "a message of the topic devices/a/all",
        "a message of the topic devices/a/T",
    ]


def test_an_echo_is_counted_and_not_sent_back(bus):
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        bus.publish("devices/a/all", {"tieline.origin": "lab"}, [{"n": 1}, {}])
        reading(bus, 2)
        assert values(polled(task, 1)) == [2]
        assert context.counters == {"filtered.echo": 1}


def test_malformed_messages_are_quarantined_raw_and_reception_continues(bus):
    head = [b"", b"VIP1", b"", b"p", b"pubsub", b"publish"]
    good = b'{"sender": "a", "headers": {}, "message": 1}'
    hostile = {
        "frames": [
            [b"", b"VIP1"],
            [b"x"],
            head,
            [*head, b"devices/a"],
            [b"", b"VIP9", *head[2:], b"t", good],
        ],
        "topic": [[*head, b"", good]],
        "not_json": [[*head, b"devices/a", b"{'a'}"], [*head, b"devices/a", b"\xff\xfe"]],
        "body": [[*head, b"devices/a", b"[1]"], [*head, b"devices/a", b"{}"]],
        "too_deep": [[*head, b"devices/a", b"[" * 100_000]],
    }
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        for raw_messages in hostile.values():
            for parts in raw_messages:
                bus.deliver(NAME, parts)
        reading(bus, 1)
        assert values(polled(task, 1)) == [1]
        assert context.counters == {
            f"quarantined.{reason}": len(raw_messages) for reason, raw_messages in hostile.items()
        }
        kept = [(q.reason, vip.unpack(q.raw)) for q in context.quarantined]
        assert kept == [(reason, parts) for reason, raw_messages in hostile.items() for parts in raw_messages]


def test_unrequested_answers_change_nothing(bus):
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        for subsystem in (b"hello", b"ping", b"error", b"RPC", b"peerlist", b"pubsub", b""):
            bus.deliver(NAME, [b"", b"VIP1", b"", b"old", subsystem, b"x", b"y"])
            bus.deliver(NAME, [b"", b"VIP1", b"", b"", subsystem])
        reading(bus, 1)
        assert values(polled(task, 1)) == [1]
        assert context.counters == {}


def test_a_message_larger_than_allowed_is_dropped_and_counted(bus):
    with source(bus.address, bus__max__message__bytes="1000") as (task, context):
        bus.wait_for_subscriber(NAME)
        bus.publish("devices/a/all", {}, "x" * 2000)
        reading(bus, 1)
        assert values(polled(task, 1)) == [1]
        assert context.counters == {"dropped.too_large": 1}


def test_a_full_buffer_drops_what_comes_and_counts_exactly(bus):
    with source(bus.address, buffer__max__messages="10") as (task, context):
        bus.wait_for_subscriber(NAME)
        for number in range(25):
            reading(bus, number)
        context.wait_for("dropped.buffer_full", 15)
        assert values(polled(task, 10)) == list(range(10))
        reading(bus, 99)
        assert values(polled(task, 1)) == [99]
        assert context.counters == {"dropped.buffer_full": 15}


def test_a_restarted_platform_is_read_again(bus, caplog):
    with source(bus.address) as (task, context):
        for number in range(3):
            bus.wait_for_subscriber(NAME)
            reading(bus, number)
            assert values(polled(task, 1)) == [number]
            if number < 2:
                bus.stop()
                bus.start()
        assert context.counters == {"reconnects": 2}
    assert len(warnings(caplog)) == 2


def test_a_platform_that_is_unavailable_at_the_start_is_awaited_and_reported_once(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    with source(address) as (task, context):
        wait_for_warning(caplog, "nothing listens there")
        assert task.poll(10, 0.3) == []
        with FakeRouter(address) as bus:
            bus.wait_for_subscriber(NAME)
            reading(bus, 1)
            assert values(polled(task, 1)) == [1]
        assert context.counters == {}
        assert len(warnings(caplog)) <= 2  # the first start, and the end of the router
        assert "volttron.address" in warnings(caplog)[0]


def test_a_silent_router_is_noticed_by_ping(bus, caplog):
    with source(bus.address) as (task, context):
        bus.wait_for_subscriber(NAME)
        reading(bus, 1)
        polled(task, 1)
        bus.fall_silent()
        wait_for_warning(caplog, "no answer to ping")
        bus.stop()
        bus.start()
        context.wait_for("reconnects")
        assert len(bus.subscriptions()) == 1


def test_a_half_open_connection_is_replaced_by_another_under_a_derived_identity(bus, caplog):
    proxy = TcpProxy("127.0.0.1", int(bus.address.rpartition(":")[2]))
    with proxy, source(f"tcp://127.0.0.1:{proxy.port}") as (task, context):
        bus.wait_for_subscriber(NAME)
        reading(bus, 0)
        polled(task, 1)
        proxy.freeze()
        bus.wait_for_subscriber(f"{NAME}.2")
        reading(bus, 1)
        assert values(polled(task, 1)) == [1]
        context.wait_for("reconnects")
        assert context.counters == {"reconnects": 1}
    reported = warnings(caplog)
    assert "no answer to ping" in reported[0]
    assert len(set(reported)) == len(reported)  # each reason once


def test_a_ping_keeps_a_quiet_connection(bus, caplog):
    with source(bus.address, ping__interval__ms="10") as (task, context):
        bus.wait_for_subscriber(NAME)
        assert task.poll(1, 0.5) == []
        assert context.counters == {}
    assert warnings(caplog) == []


def test_a_peer_that_pings_us_is_answered(bus):
    with source(bus.address), zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        bus.wait_for_subscriber(NAME)
        peer.linger = 0
        peer.identity = b"peer"
        peer.connect(bus.address)
        peer.send_multipart(vip.ping_request(b"p1", NAME))
        assert peer.poll(5000)
        assert peer.recv_multipart() == [b"tieline.test", b"VIP1", b"tieline.test", b"p1", b"ping", b"pong"]


def test_a_wrong_server_key_is_reported_with_what_to_check(caplog):
    with FakeRouter(curve=True) as bus:
        wrong, _ = zmq.curve_keypair()
        with source(bus.address, volttron__serverkey=wrong.decode()) as (task, context):
            wait_for_warning(caplog, "refuses our keys")
            assert task.poll(10, 0.05) == []
            assert context.counters == {}
    assert "credentials_store/platform.json" in warnings(caplog)[0]
    assert wrong.decode() not in caplog.text


def test_a_missing_server_key_is_reported_with_what_to_check(caplog):
    with FakeRouter(curve=True) as bus, source(bus.address):
        wait_for_warning(caplog, "volttron.serverkey")


def test_a_client_with_keys_is_admitted():
    with FakeRouter(curve=True) as bus, source(bus.address, volttron__serverkey=bus.serverkey) as (task, _):
        bus.wait_for_subscriber(NAME)
        reading(bus, 1)
        assert values(polled(task, 1)) == [1]


def test_stop_wakes_a_waiting_poll(bus):
    with source(bus.address) as (task, _):
        bus.wait_for_subscriber(NAME)
        stopped = []

        def stop():
            stopped.append(time.monotonic())
            task.interrupt()

        threading.Timer(0.05, stop).start()
        assert task.poll(10, 30) == []
        assert time.monotonic() - stopped[0] < 5


def test_messages_received_before_an_interrupt_can_still_be_polled(bus):
    with source(bus.address, buffer__max__messages="1") as (task, context):
        bus.wait_for_subscriber(NAME)
        reading(bus, 1)
        reading(bus, 2)
        context.wait_for("dropped.buffer_full")  # so the first is in the buffer
        task.interrupt()
        assert values(task.poll(10, 30)) == [1]
        assert task.poll(10, 30) == []


def test_messages_that_arrive_while_a_task_is_stopped_can_still_be_polled(bus, monkeypatch):
    monkeypatch.setattr(receiver, "_BATCH", 1)
    receive = Connection.receive

    def slowly(connection, limit):
        time.sleep(0.001)  # slower than the bus, so that most messages are in the socket at the interrupt
        return receive(connection, limit)

    monkeypatch.setattr(Connection, "receive", slowly)
    with source(bus.address) as (task, _):
        bus.wait_for_subscriber(NAME)
        for number in range(100):
            reading(bus, number)
        task.interrupt()
        records = []
        while rest := task.poll(100, 0):
            records += rest
    assert values(records) == list(range(100))


def test_a_task_that_never_started_can_be_interrupted_and_stopped():
    config = VolttronBusConfig.parse({**QUICK, "volttron.address": "tcp://127.0.0.1:1"})
    task = VolttronBusTask(RecordingSourceContext(), config)
    task.interrupt()
    task.stop()


def test_a_task_whose_platform_never_comes_closes_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    with source(address, reconnect__backoff__ms="60000", reconnect__backoff__max__ms="60000") as (task, _):
        assert task.poll(10, 0.3) == []
        begin = time.monotonic()
    assert time.monotonic() - begin < 2


def test_keys_that_cannot_be_read_are_fatal(tmp_path):
    config = VolttronBusConfig.parse(
        {
            **QUICK,
            "volttron.address": "tcp://127.0.0.1:1",
            "volttron.server.credentials.file": str(tmp_path / "no"),
        }
    )
    with pytest.raises(FatalError, match="cannot be read"):
        VolttronBusTask(RecordingSourceContext(), config).start()


def test_a_bug_in_the_receiving_thread_fails_the_task(bus, monkeypatch):
    with source(bus.address) as (task, _):
        bus.wait_for_subscriber(NAME)

        def broken(*_):
            raise ZeroDivisionError

        monkeypatch.setattr(ReceiveBuffer, "put", broken)
        reading(bus, 1)
        with pytest.raises(FatalError, match="the receiver failed because of a bug"):
            task.poll(10, 30)


def test_a_command_to_the_cloud_has_its_old_shape(bus):
    settings = {
        "bus__prefixes": "command-to-cloud",
        "topic": "command-to-cloud",
        "value__shape": "cloudagent",
    }
    with source(bus.address, **settings) as (task, context):
        bus.wait_for_subscriber(NAME)
        bus.publish("command-to-cloud", {"date": "2017-09-10 12:00:00"}, [205, {"message": "m"}])
        bus.publish("command-to-cloud", {}, {"no": "list"})
        (record,) = polled(task, 1)
        assert record.topic == "command-to-cloud"
        assert record.value["new_value"] == 205
        assert task.poll(1, 0.01) == []
        assert context.counters == {"quarantined.no_new_value": 1}
