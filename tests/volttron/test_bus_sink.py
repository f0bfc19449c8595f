"""The bus sink on real VOLTTRON platforms."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from contextlib import contextmanager

import pytest

from tieline.api import RetriableError, SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.sink import VolttronBusSinkTask
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_lab.vip import BusMessage

pytestmark = pytest.mark.volttron


def settings(platform, identity="tieline"):
    keys = platform.keys(identity)
    return {
        "volttron.address": platform.address,
        "volttron.identity": identity,
        "volttron.secretkey": keys["secretkey"],
        "volttron.serverkey": keys["serverkey"],
        "platform.name": "lab",
    }


@contextmanager
def sink(platform, **changes):
    config = VolttronBusSinkConfig.parse(
        settings(platform)
        | {"bus.allowed.prefixes": "analysis", "value.shape": "kafkaagent", "reconnect.backoff.max.ms": "500"}
        | {key.replace("__", "."): value for key, value in changes.items()}
    )
    context = RecordingSinkContext()
    task = VolttronBusSinkTask(context, config)
    try:
        deadline = time.monotonic() + 30
        while not started(task):
            assert time.monotonic() < deadline, "the platform accepts no connection"
        yield task, context
    finally:
        task.interrupt()
        task.stop()


def started(task):
    try:
        task.start()
    except RetriableError:  # the connection of the test before may still hold our identity
        return False
    return True


def record(number, topic, body=None):
    value = {"topic": topic, "headers": {"n": number}, "message": number if body is None else body}
    timestamp = time.time_ns() // 1_000_000
    return SinkRecord("t", 0, number, value, None, identity("t", number), timestamp)


def heard(observer, count, seconds=20.0):
    messages: list[BusMessage] = []
    while len(messages) < count:
        message = observer.receive(seconds)
        assert message is not None, f"{len(messages)} of {count} messages"
        messages.append(message)
    assert observer.receive(0.2) is None
    return messages


def test_a_real_platform_survives_every_rejected_message(platform):
    topics = ["", "42", "true", "null", '"x"', "[]", "{}", " 1 ", "NaN", "-1e5", "日本", "9" * 5000]
    odd = ["analysis/[", "analysis/4 2", "analysis/é", "analysis/'x'"]
    batch = [record(number, topic) for number, topic in enumerate([*topics, *odd])]
    nested: object = 0
    for _ in range(65):
        nested = [nested]
    batch += [record(90, "analysis/deep", nested), record(91, "analysis/large", "x" * 2_000_000)]
    batch += [record(92, "devices/x/all"), record(93, "analysis/last", {"\ud800": [2**70, float("nan")]})]
    with platform.connect() as observer:
        observer.subscribe("")
        with sink(platform) as (task, context):
            task.put(batch)
            assert context.counters == {
                "published": 5,
                "refused.topic": len(topics),
                "refused.message": 1,
                "refused.too_large": 1,
                "refused.not_allowed": 1,
            }
        received = [m for m in heard(observer, 5) if m.sender == "tieline"]
    assert [m.topic for m in received] == [*odd, "analysis/last"]
    assert repr(received[-1].message) == repr({"\ud800": [2**70, float("nan")]})
    assert received[0].headers["n"] == 12
    assert received[0].headers["tieline.origin"] == "lab"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_restarting_platform_is_awaited_and_each_message_is_published_once(platform, how):
    with sink(platform) as (task, context):
        task.put([record(n, "analysis/x") for n in range(50)])
        platform.kill() if how == "kill" else platform.stop()
        rest = [record(n, "analysis/x") for n in range(50, 100)]
        for _ in range(3):
            with pytest.raises(RetriableError) as raised:
                task.put(rest)
            assert raised.value.reached == {}
        platform.start()
        with platform.connect() as observer:
            observer.subscribe("analysis/")
            task.put(rest)
            assert [m.message for m in heard(observer, 50)] == list(range(50, 100))
        assert context.counters == {"published": 100, "reconnects": 1}


def test_both_ways_on_a_real_platform_give_no_echo(volttron_platform, tmp_path):
    """A source and two sinks on one platform, whose driver publishes all the while: counted for 4 s."""
    suffix = uuid.uuid4().hex[:8]
    lines = tmp_path / "lines"
    lines.touch()
    sinks = {"bus.allowed.prefixes": f"analysis/{suffix}, devices", "connector.class": "volttron_bus"}
    connectors = [
        settings(volttron_platform)
        | {"name": "source", "connector.class": "volttron_bus", "topic": "heard"}
        | {"bus.prefixes": f"devices, analysis/{suffix}"},
        settings(volttron_platform, "spare1") | sinks | {"name": "back", "topics": "heard"},
        {"name": "lines", "connector.class": "file", "file": str(lines), "topic": "foreign"}
        | {"value.converter": "string"},
        settings(volttron_platform, "spare2")
        | sinks
        | {"name": "foreign", "topics": "foreign", "value.shape": "kafkaagent", "value.converter": "json"},
    ]
    with (
        volttron_platform.connect() as observer,
        WorkerProcess(tmp_path / "worker", {}, connectors) as worker,
    ):
        worker.wait_for("subscribed")
        worker.wait_for("publishing", count=2)
        observer.subscribe(f"analysis/{suffix}")
        observer.subscribe("devices/")
        end, count, received = time.monotonic() + 4, 0, []
        while time.monotonic() < end:
            with open(lines, "a") as file:
                for _ in range(20):
                    file.write(json.dumps({"topic": f"analysis/{suffix}", "message": count}) + "\n")
                    count += 1
            while message := observer.receive(0.1):
                received.append(message)
        ledger = worker.wait_for_ledger(
            lambda ledger: (
                ledger["foreign"]["counters"].get("published") == count
                and ledger["source"]["counters"].get("filtered.echo") == count
            )
        )
        while message := observer.receive(0.5):
            received.append(message)
            if len(received) > 10 * count:
                break
        read = ledger["source"]["counters"]["spooled"]
        ledger = worker.wait_for_ledger(
            lambda ledger: ledger["back"]["counters"].get("filtered.echo", 0) >= read
        )
        assert worker.stop() == 0
    ours = [m.message for m in received if m.topic == f"analysis/{suffix}"]
    assert ours == list(range(count))
    assert set(
        Counter((m.topic, m.headers["TimeStamp"]) for m in received if m.sender != "spare2").values()
    ) == {1}
    assert {m.sender for m in received} == {"platform.driver", "spare2"}
    assert read >= 9  # three devices, every second
    assert set(ledger["back"]["counters"]) == {"filtered.echo"}
    assert ledger["foreign"]["counters"].get("published") == count


def test_the_older_generation_receives_messages(volttron10_platform):
    with volttron10_platform.connect() as observer:
        observer.subscribe("analysis/ten")
        with sink(volttron10_platform) as (task, context):
            task.put([record(n, "analysis/ten") for n in range(100)])
            assert context.counters == {"published": 100}
        assert [m.message for m in heard(observer, 100)] == list(range(100))
