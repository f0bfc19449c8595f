"""(h) The way back: from a record in the log to a subscriber on a real VOLTTRON bus.

The time is measured from just before the producer's call to the moment at which a subscriber has read the
message from the platform's router. The producer is Kafka's client, or another bus that a source reads,
through spool and local log. The old agent polled once a second, which took half a second on average.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Producer
from typing_extensions import Self

from bench.figure import print_figure, say
from bench.latency import p50_ms, p99_ms
from bench.stand import Stand, create_name
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab.vip import Vip
from tieline_lab.volttron import VolttronPlatform, why_not

_RATE, _SECONDS = 100, 15.0
_WARM_UP = 100  # messages
_BACKLOG = 20_000

Send = Callable[[int], None]


def run(stand: Stand) -> None:
    """Measure the latency through Kafka and from another bus, then the rate of publishing a backlog."""
    if reason := why_not():
        print_figure("way_back.kafka.latency_p50", None, "ms", "<= 20", why=reason)
        return
    platform = VolttronPlatform(stand.create_folder("volttron"))
    platform.start()
    try:
        with _start_kafka_to_bus(stand, platform, {}) as send:
            _measure_latency("way_back.kafka", platform, send)
        with _start_bus_to_bus(stand, platform) as send:
            _measure_latency("way_back.bus_to_bus", platform, send)
        _measure_backlog(stand, platform)
    finally:
        platform.stop()


def _measure_latency(name: str, platform: VolttronPlatform, send: Send) -> None:
    say(f"(h) {name}: {_RATE} messages/s for {_SECONDS:g} s")
    total = int(_RATE * _SECONDS)
    sent = [0.0] * total
    with _Subscriber(platform, total) as subscriber:
        start = time.perf_counter()
        for number in range(total):
            time.sleep(max(0.0, start + number / _RATE - time.perf_counter()))
            sent[number] = time.perf_counter()
            send(number)
        arrived = subscriber.await_all()
    seconds = [arrived[number] - sent[number] for number in range(_WARM_UP, total)]
    p99, most = round(p99_ms(seconds), 2), round(max(seconds) * 1000, 1)
    facts = {"p99": p99, "most": most, "messages": len(seconds), "rate": _RATE}
    print_figure(f"{name}.latency_p50", p50_ms(seconds), "ms", "<= 20", **facts)


def _measure_backlog(stand: Stand, platform: VolttronPlatform) -> None:
    say(f"(h) a backlog of {_BACKLOG} messages, without a rate limit")
    worker = _start_kafka_to_bus(stand, platform, {"rate.limit": "0"})
    with _Subscriber(platform, _BACKLOG) as subscriber, worker as send:
        for number in range(_BACKLOG):
            send(number)
        arrived = subscriber.await_all()
    seconds = max(arrived.values()) - min(arrived.values())
    print_figure("way_back.kafka.rate", _BACKLOG / seconds, "messages/s", messages=_BACKLOG, unconfirmed=32)


def _create_sink(platform: VolttronPlatform, topic: str, settings: Mapping[str, str]) -> dict[str, str]:
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
        **settings,
    }


@contextlib.contextmanager
def _start_kafka_to_bus(
    stand: Stand, platform: VolttronPlatform, settings: Mapping[str, str]
) -> Iterator[Send]:
    """Start a worker whose sink has these ``settings``; yield a function that sends a number to its topic."""
    topic = create_name("way-back")
    stand.create_topic(topic, 1)
    json_settings = {"value.shape": "json", "value.converter": "json"}
    sink = _create_sink(platform, topic, {**json_settings, **settings})
    producer_settings = {"linger.ms": 0, "queue.buffering.max.messages": 2 * _BACKLOG}
    producer = Producer({**stand.kafka_settings, **producer_settings})

    def send(number: int) -> None:
        producer.produce(topic, json.dumps(number).encode(), b"analysis/way-back")
        producer.poll(0)

    with WorkerProcess(stand.create_folder("way-back"), stand.kafka_settings, [sink]) as worker:
        worker.wait_for("partitions assigned", 60)
        yield send
        producer.flush(30)


@contextlib.contextmanager
def _start_bus_to_bus(stand: Stand, platform: VolttronPlatform) -> Iterator[Send]:
    """Start a worker that reads another bus; yield a function that publishes a number on that bus."""
    topic = create_name("way-back")
    sink = _create_sink(platform, topic, {})
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

        with WorkerProcess(stand.create_folder("way-back"), {}, [source, sink]) as worker:
            worker.wait_for("subscribed")
            worker.wait_for("publishing")
            yield send


class _Subscriber:
    """Receives in a thread; notes the moment at which each number arrives for the first time."""

    def __init__(self, platform: VolttronPlatform, total: int) -> None:
        self._bus: Vip = platform.connect("observer")
        self._bus.subscribe("analysis/way-back")
        self._total = total
        self._moments: dict[int, float] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._bus.close()

    def await_all(self) -> dict[int, float]:
        """Return the moments when all numbers have arrived.

        Raises ``RuntimeError`` if numbers are missing and none arrives within ten seconds.
        """
        self._thread.join()
        if sorted(self._moments) != list(range(self._total)):
            raise RuntimeError(f"{len(self._moments)} of {self._total} messages arrived")
        return self._moments

    def _listen(self) -> None:
        while len(self._moments) < self._total and (message := self._bus.receive(10)):
            self._moments.setdefault(int(message.message), time.perf_counter())
