"""(h) The way back: a record that arrives in the log, and a subscriber on a real VOLTTRON bus that has it.

From just before the producer's call (of Kafka's client; of the bus that a source reads, with the spool and
the local log on its way) to the moment at which a subscriber has read it from the platform's router. The
old agent looked once a second: half a second on average.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Producer

from bench.figure import figure, say
from bench.stand import Stand, new_name
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab.vip import Vip
from tieline_lab.volttron import VolttronPlatform, why_not

_RATE, _SECONDS = 100, 15.0
_WARM_UP = 100  # messages
_BACKLOG = 20_000

Send = Callable[[int], None]


def run(stand: Stand) -> None:
    """Through Kafka, and from another bus through the local log; then how fast a backlog goes out."""
    if reason := why_not():
        figure("way_back.kafka.latency_p50", None, "ms", "<= 20", why=reason)
        return
    platform = VolttronPlatform(stand.folder("volttron"))
    platform.start()
    try:
        with _through_kafka(stand, platform, {}) as send:
            _latency("way_back.kafka", platform, send)
        with _from_another_bus(stand, platform) as send:
            _latency("way_back.bus_to_bus", platform, send)
        _backlog(stand, platform)
    finally:
        platform.stop()


def _latency(name: str, platform: VolttronPlatform, send: Send) -> None:
    say(f"(h) {name}: {_RATE} messages/s for {_SECONDS:g} s")
    total = int(_RATE * _SECONDS)
    sent = [0.0] * total
    with _Heard(platform, total) as heard:
        begun = time.perf_counter()
        for number in range(total):
            time.sleep(max(0.0, begun + number / _RATE - time.perf_counter()))
            sent[number] = time.perf_counter()
            send(number)
        arrived = heard.all()
    if sorted(arrived) != list(range(total)):
        raise RuntimeError(f"{len(arrived)} of {total} messages arrived")
    took = [(arrived[number] - sent[number]) * 1000 for number in range(_WARM_UP, total)]
    p99 = round(statistics.quantiles(took, n=100)[98], 2)
    facts = {"p99": p99, "most": round(max(took), 1), "messages": len(took), "rate": _RATE}
    figure(f"{name}.latency_p50", statistics.median(took), "ms", "<= 20", **facts)


def _backlog(stand: Stand, platform: VolttronPlatform) -> None:
    say(f"(h) a backlog of {_BACKLOG} messages, without a rate limit")
    with _Heard(platform, _BACKLOG) as heard, _through_kafka(stand, platform, {"rate.limit": "0"}) as send:
        for number in range(_BACKLOG):
            send(number)
        arrived = heard.all()
    if len(arrived) != _BACKLOG:
        raise RuntimeError(f"{len(arrived)} of {_BACKLOG} messages arrived")
    took = max(arrived.values()) - min(arrived.values())
    figure("way_back.kafka.rate", _BACKLOG / took, "messages/s", messages=_BACKLOG, unconfirmed=32)


def _sink(platform: VolttronPlatform, topic: str, more: Mapping[str, str]) -> dict[str, str]:
    keys = platform.keys("tieline")
    return {
        "name": "back",
        "connector.class": "volttron_bus",
        "topics": topic,
        "volttron.address": platform.address,
        "volttron.secretkey": keys["secretkey"],
        "volttron.serverkey": keys["serverkey"],
        "platform.name": "lab",
        "bus.allowed.prefixes": "analysis",
        **more,
    }


@contextlib.contextmanager
def _through_kafka(stand: Stand, platform: VolttronPlatform, more: Mapping[str, str]) -> Iterator[Send]:
    topic = new_name("way-back")
    stand.create_topic(topic, 1)
    where = {"bootstrap.servers": stand.kafka.bootstrap}
    shape = {"value.shape": "json", "value.converter": "json"}
    producer = Producer({**where, "linger.ms": 0, "queue.buffering.max.messages": 2 * _BACKLOG})

    def send(number: int) -> None:
        producer.produce(topic, json.dumps(number).encode(), b"analysis/way-back")
        producer.poll(0)

    with WorkerProcess(
        stand.folder("way-back"), where, [_sink(platform, topic, {**shape, **more})]
    ) as worker:
        worker.wait_for("partitions assigned", 60)
        yield send
        producer.flush(30)


@contextlib.contextmanager
def _from_another_bus(stand: Stand, platform: VolttronPlatform) -> Iterator[Send]:
    topic = new_name("way-back")
    with FakeRouter() as bus:
        source = {
            "name": "there",
            "connector.class": "volttron_bus",
            "volttron.address": bus.address,
            "platform.name": "there",
            "bus.prefixes": "analysis",
            "topic": topic,
        }

        def send(number: int) -> None:
            bus.publish("analysis/way-back", {}, number)

        with WorkerProcess(stand.folder("way-back"), {}, [source, _sink(platform, topic, {})]) as worker:
            worker.wait_for("subscribed")
            worker.wait_for("publishing")
            yield send


class _Heard:
    """A subscriber with a thread of its own: the moment at which it had each number for the first time."""

    def __init__(self, platform: VolttronPlatform, total: int) -> None:
        self._bus: Vip = platform.connect("observer")
        self._bus.subscribe("analysis/way-back")
        self._total = total
        self._moments: dict[int, float] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> _Heard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._bus.close()

    def all(self) -> dict[int, float]:
        """Once all have arrived, or none came for ten seconds."""
        self._thread.join()
        return self._moments

    def _listen(self) -> None:
        while len(self._moments) < self._total and (message := self._bus.receive(10)):
            self._moments.setdefault(int(message.message), time.perf_counter())
