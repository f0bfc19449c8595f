"""Bus → log → bus, on either home of the log: each message is heard once, and nothing comes back."""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter

from tieline.broker.records import ProducerRecord, Unit
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.client import BusMessage, VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint


def source(backend, bus, platform, topic, **settings):
    return {
        "name": f"from-{platform}-{backend.suffix}",
        "connector.class": "volttron_bus",
        "volttron.address": bus.address,
        "platform.name": platform,
        "bus.prefixes": "all",
        "topic": topic,
        "topic.creation.default.partitions": "2",
        **settings,
    }


def sink(backend, bus, platform, topics, **settings):
    return {
        "name": f"to-{platform}-{backend.suffix}",
        "connector.class": "volttron_bus",
        "volttron.address": bus.address,
        "platform.name": platform,
        "bus.allowed.prefixes": "devices, analysis, datalogger",
        "topics": topics,
        "max.age.ms": "-1",
        "rate.limit": "2000",
        "consumer.override.group.instance.id": f"to-{platform}-{backend.suffix}",
        **settings,
    }


@contextlib.contextmanager
def observer(bus):
    """``seen()``: all that the router has handed on until now."""
    with VipClient(Endpoint(bus.address, "observer")) as client:
        client.hello()
        client.subscribe("")
        received: list[BusMessage] = []

        def observed():
            client.ping()  # what was handed on before the answer is here with it
            while messages := client.messages(0.001, 1):
                received.extend(messages)
            return list(received)

        yield observed


def message(number, device="d"):
    headers = {"TimeStamp": f"2026-03-01T00:00:00.{number:06d}+00:00", "Date": "2026-03-01", "n": number}
    body = [{"n": number, "t": 20.5, "big": 2**70}, {"n": {"units": "1"}}]
    return f"devices/campus/{device}{number % 5}/all", headers, body


def as_said(topic, headers, body):
    return json.dumps([topic, headers, body])


def as_heard(message):
    headers = {name: value for name, value in message.headers.items() if not name.startswith("tieline.")}
    return json.dumps([message.topic, headers, message.body])


def counters(ledger, backend, name):
    return ledger[f"{name}-{backend.suffix}"]["counters"]


def test_a_message_of_one_platform_reaches_the_other_and_is_not_sent_back(backend, tmp_path):
    """One topic, two platforms, a source and a sink on each: both ways, 300 messages of each."""
    topic, count = f"shared-{backend.suffix}", 300
    with FakeRouter() as north, FakeRouter() as south:
        connectors = []
        for bus, platform in ((north, "north"), (south, "south")):
            connectors += [source(backend, bus, platform, topic), sink(backend, bus, platform, topic)]
        with (
            observer(north) as in_north,
            observer(south) as in_south,
            WorkerProcess(tmp_path, backend.worker, connectors) as worker,
        ):
            worker.wait_for("subscribed", count=2)
            worker.wait_for("publishing", count=2)
            published = {}
            for name, bus in (("north", north), ("south", south)):
                published[name] = [message(number, name) for number in range(count)]
                published[name].append(
                    ("analysis/report", {"TimeStamp": "2026-03-01T01:00:00Z"}, {"from": name})
                )
                for content in published[name]:
                    bus.publish(*content)
            total = count + 1

            def everything(ledger):
                return all(
                    counters(ledger, backend, f"to-{name}") == {"published": total, "filtered.echo": total}
                    and counters(ledger, backend, f"from-{name}").get("filtered.echo") == total
                    for name in ("north", "south")
                )

            ledger = worker.wait_for_ledger(everything)
            assert worker.stop() == 0
            heard = {"north": in_north(), "south": in_south()}
        assert (north.dropped, south.dropped) == (0, 0)
    for name, other in (("north", "south"), ("south", "north")):
        brought = [m for m in heard[name] if m.sender.startswith("tieline.")]
        assert len(heard[name]) == 2 * total
        assert Counter(map(as_heard, brought)) == Counter(as_said(*content) for content in published[other])
        assert {m.headers["tieline.origin"] for m in brought} == {name}
        for device in range(5):  # the order of a key
            mine = [m.body[0]["n"] for m in brought if m.topic == f"devices/campus/{other}{device}/all"]
            assert mine == sorted(mine)
        assert counters(ledger, backend, f"from-{name}")["spooled"] == total


def test_both_ways_on_one_platform_give_no_echo(backend, tmp_path):
    """A source, and a sink that reads the source's topic and another's, on one platform, for 3 s."""
    topic, other = f"here-{backend.suffix}", f"elsewhere-{backend.suffix}"
    with FakeRouter() as here, FakeRouter() as elsewhere:
        connectors = [
            source(backend, here, "here", topic),
            source(backend, elsewhere, "elsewhere", other),
            sink(backend, here, "here", f"{topic},{other}"),
        ]
        with observer(here) as observed, WorkerProcess(tmp_path, backend.worker, connectors) as worker:
            worker.wait_for("subscribed", count=2)
            worker.wait_for("publishing")
            end, count = time.monotonic() + 3, 0
            while time.monotonic() < end:
                for bus, device in ((here, "own"), (elsewhere, "foreign")):
                    bus.publish(*message(count, device))
                count += 1
                time.sleep(0.005)  # the rate of the load, nothing waits for it
            ledger = worker.wait_for_ledger(
                lambda ledger: (
                    counters(ledger, backend, "to-here") == {"published": count, "filtered.echo": count}
                    and counters(ledger, backend, "from-here").get("filtered.echo") == count
                    and ledger[f"to-here-{backend.suffix}"]["lag"] == 0
                )
            )
            assert worker.stop() == 0
            heard = [as_heard(message) for message in observed()]
        assert (here.dropped, elsewhere.dropped) == (0, 0)
    assert counters(ledger, backend, "from-here")["spooled"] == count
    assert count > 200
    published = [as_said(*message(n, device)) for n in range(count) for device in ("own", "foreign")]
    assert Counter(heard) == Counter(published)


def fill(backend, topic, count):
    """``count`` messages of the old agent's shape, in two partitions."""
    values = [json.dumps({"topic": f"analysis/{n % 2}", "message": n}).encode() for n in range(count)]
    with contextlib.closing(backend.open()) as broker:
        broker.create_topic(topic, partitions=2)
        producer = broker.producer("fill", {})
        producer.send(Unit([ProducerRecord(topic, value, partition=n % 2) for n, value in enumerate(values)]))
        (delivery,) = producer.poll(10)
        assert not delivery.failures
        producer.close(5)


def test_kill_9_under_load_loses_nothing_and_duplicates_at_most_one_batch(backend, tmp_path):
    topic, count, batch, kills = f"t-{backend.suffix}", 600, 40, 3
    fill(backend, topic, count)
    with FakeRouter() as bus, observer(bus) as observed:
        settings = {"value.shape": "kafkaagent", "value.converter": "json", "max.poll.records": str(batch)}
        back = sink(backend, bus, "south", topic, **settings, **{"rate.limit": "400", "rate.burst": "20"})
        worker = WorkerProcess(tmp_path, backend.worker, [back])
        heard: list[BusMessage] = []
        for kill in range(kills + 1):
            worker.start()
            enough = 150 * (kill + 1)
            while len({m.body for m in heard}) < enough:
                worker.wait_for_ledger(lambda _: True)  # a tenth of a second
                heard = observed()
            worker.kill() if kill < kills else worker.stop()
        heard = observed()
        assert bus.dropped == 0
    doubled = len(heard) - count
    print(f"{backend.name}: {doubled} of {count} messages twice after {kills} kills")
    assert {m.body for m in heard} == set(range(count))
    assert 0 <= doubled <= kills * batch
    assert len({m.headers["tieline.id"] for m in heard}) == count
    for partition in range(2):
        first = list(dict.fromkeys(m.body for m in heard if m.body % 2 == partition))
        assert first == sorted(first)


def test_the_old_message_file_is_published_by_the_recipe_of_its_page(backend, tmp_path):
    """docs/how-to/old-agents.md: ``tieline produce`` beside the worker, and a bus sink of the old shape."""
    topic, entries = f"msg-to-volttron-{backend.suffix}", 5
    listed = [
        {"sender": "ops", "topic": f"devices/campus/ahu{n}", "value": n, "description": "test"}
        for n in range(entries)
    ]
    file = tmp_path / "message.json"
    file.write_text(json.dumps({"message_list": listed}, indent=2))
    settings = tmp_path / "worker.properties"
    place = {**backend.worker, "data.dir": str(backend.data)}
    settings.write_text("".join(f"{name}={value}\n" for name, value in place.items()))
    with FakeRouter() as bus, observer(bus) as heard:
        old = {"value.shape": "kafkaagent", "value.converter": "json", "max.age.ms": "300000"}
        connectors = [sink(backend, bus, "lab", topic, **old)]
        with WorkerProcess(tmp_path, backend.worker, connectors) as worker:
            worker.wait_for("publishing")
            command = ["produce", topic, file, "--key-field", "topic", "--create", "--worker", settings]
            program = [sys.executable, "-m", "tieline.cli.main", *map(str, command)]
            subprocess.run(program, check=True, timeout=60)
            ledger = worker.wait_for_ledger(
                lambda ledger: counters(ledger, backend, "to-lab").get("published") == entries
            )
            assert worker.stop() == 0
        messages = heard()
    assert counters(ledger, backend, "to-lab") == {"published": entries}
    assert sorted((m.topic, m.body) for m in messages) == [(e["topic"], e["value"]) for e in listed]
    assert {m.headers["From"] for m in messages} == {"ops"}
