"""The bus source on real VOLTTRON platforms."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from zmq import curve_keypair

from tieline.api import SourceRecord
from tieline.testing.source_context import RecordingSourceContext
from tieline_connectors.volttron_bus.messages.readings import rebuild
from tieline_connectors.volttron_bus.source import VolttronBusTask
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys
from tieline_lab.vip import BusMessage

pytestmark = pytest.mark.volttron


@contextmanager
def source(platform, **settings) -> Iterator[tuple[VolttronBusTask, RecordingSourceContext]]:
    keys = platform.keys("tieline")
    config = VolttronBusConfig.parse(
        {
            "volttron.address": platform.address,
            "volttron.identity": "tieline",
            "volttron.secretkey": keys["secretkey"],
            "volttron.serverkey": keys["serverkey"],
            "platform.name": "lab",
        }
        | {key.replace("__", "."): value for key, value in settings.items()}
    )
    context = RecordingSourceContext()
    task = VolttronBusTask(context, config)
    task.start()
    try:
        yield task, context
    finally:
        task.interrupt()
        task.stop()


@contextmanager
def publisher(platform, identity="spare1") -> Iterator[VipClient]:
    keys = {name: key.encode() for name, key in platform.keys(identity).items()}
    with VipClient(Endpoint(platform.address, identity, CurveKeys(**keys))) as client:
        client.hello()
        yield client


def subscribed(caplog, times=1, seconds=30.0):
    """Until the task has said so."""
    end = time.monotonic() + seconds
    while [record.getMessage() for record in caplog.records].count("subscribed") < times:
        assert time.monotonic() < end, caplog.text
        time.sleep(0.01)


def polled(task, count, seconds=30.0):
    records: list[SourceRecord] = []
    end = time.monotonic() + seconds
    while len(records) < count and time.monotonic() < end:
        records += task.poll(1000, 0.5)
    assert len(records) == count
    return records


@pytest.fixture
def info(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_every_message_of_a_real_driver_is_a_record_that_rebuilds_it(volttron_platform, info):
    messages: list[BusMessage] = []
    with source(volttron_platform, bus__prefixes="devices") as (task, context):
        subscribed(info)
        with volttron_platform.connect("observer") as observer:
            observer.subscribe("devices/")
            while len(messages) < 9:
                message = observer.receive(30)
                assert message is not None
                messages.append(message)
        records: list[SourceRecord] = []
        end = time.monotonic() + 30
        while time.monotonic() < end and not _has(records, messages[-1]):
            records += task.poll(1000, 0.5)
        assert context.counters == {}
    counts = Counter(_text(*rebuild(record.value)) for record in records)
    wanted = Counter(_text(m.topic, m.headers, m.message, m.sender) for m in messages)
    assert wanted <= counts
    assert set(counts.values()) == {1}
    kinds = {(record.key, record.value["kind"], record.value["time_source"]) for record in records}
    assert kinds == {(device, "ALL", "TIMESTAMP") for device in volttron_platform.settings.topics()}


def _has(records, message):
    return any(
        _text(*rebuild(r.value)) == _text(message.topic, message.headers, message.message, message.sender)
        for r in records
    )


def _text(topic, headers, body, sender):
    return json.dumps([topic, headers, body, sender])


def test_a_platform_that_restarts_or_is_killed_is_read_again(platform, info):
    with source(platform) as (task, context):
        for number in range(3):
            subscribed(info, number + 1)
            with publisher(platform) as client:
                assert client.publish("analysis/x", {}, number) == 1
            assert [record.value["body"] for record in polled(task, 1)] == [str(number)]
            if number == 0:
                platform.restart()
            elif number == 1:
                platform.kill()
                platform.start()
        assert context.counters == {"reconnects": 2}
    warnings = [record.getMessage() for record in info.records if record.levelno == logging.WARNING]
    assert len([reported for reported in warnings if "the connection was lost" in reported]) == 2
    assert len(warnings) <= 2 * 4  # each reason once per outage: lost, refused, slow


def test_a_task_that_is_not_polled_counts_what_it_drops_and_the_platform_survives(platform, info):
    count, kept = 15_000, 100
    with source(platform, buffer__max__messages=str(kept)) as (task, context):
        subscribed(info)
        with publisher(platform) as client:
            for number in range(count):
                client.publish_unconfirmed("analysis/x", {}, number)
            client.ping(timeout=60)
        context.wait_for("dropped.buffer_full", count - kept, 60)
        assert [record.value["body"] for record in polled(task, kept)] == [str(n) for n in range(kept)]
        assert context.counters == {"dropped.buffer_full": count - kept}
        with publisher(platform, "spare2") as client:
            client.publish("analysis/x", {}, "after")
        polled(task, 1)


def test_a_wrong_server_key_is_reported(volttron_platform, info):
    wrong, _ = curve_keypair()
    with source(volttron_platform, volttron__serverkey=wrong.decode()) as (task, _):
        assert task.poll(1, 1.0) == []
    (warning,) = [record.getMessage() for record in info.records if record.levelno == logging.WARNING]
    assert "volttron.serverkey" in warning


def test_the_older_generation_is_read(volttron10_platform, info):
    with source(volttron10_platform, bus__prefixes="devices") as (task, context):
        subscribed(info)
        records = polled(task, 1)
        assert context.counters == {}
    assert records[0].value["kind"] == "ALL"
    assert records[0].key in volttron10_platform.settings.topics()


def test_the_older_generation_rejects_unknown_keys_and_the_message_suggests_them(volttron10_platform, info):
    _, stranger = curve_keypair()
    with source(volttron10_platform, volttron__secretkey=stranger.decode()) as (task, _):
        assert task.poll(1, 2.0) == []
    assert "that the platform knows our keys" in info.text
