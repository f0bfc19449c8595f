"""(d) The whole way of six-point readings: bus → spool → log → MongoDB, on both backends.

The rate is sustained: the generator stays a window ahead of the acknowledged documents, which are counted, so
that nothing grows without bound. If the worker uses a whole core, that is its limit, since its threads share
one Python interpreter. Otherwise the limit follows from where the messages of the window waited: before the
spool, in it (the pump), or in the log (the sink and its server). The null server shows the same journey
without the work of a real server.

The latency is from just before the generator's call of libzmq to the server's acknowledgement.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import readings
from bench.disk import file_system, why_no_disk
from bench.figure import print_figure, say
from bench.latency import calculate_latencies, p50_ms, p99_ms
from bench.mongo_tap import MongoTap
from bench.process import cpu_seconds
from bench.replay import Generator, write_messages
from bench.stand import Stand, count_documents, create_name
from tieline.testing.worker_process import WorkerProcess

_SECONDS = 20.0
_WINDOW = 10_000
_MAX_RATE = 10_000  # messages per second for which the file is long enough
_LATENCY_RATE, _LATENCY_SECONDS = 200, 20.0
_WARM_UP = 400  # readings until topics, schemas and indexes exist, and the sink has its partition


def run(stand: Stand) -> None:
    """Measure both backends with both servers."""
    if reason := why_no_disk(stand.work):
        print_figure("whole_way.local.rate", None, "documents/s", why=reason)
        return
    count = int(_SECONDS * _MAX_RATE)
    file = write_messages(stand.create_folder("replay") / "readings", map(readings.frames, range(count)))
    for backend, settings in {"local": {}, "kafka": stand.kafka_settings}.items():
        say(f"(d) the whole way through {backend} for {_SECONDS:g} s")
        with stand.run_mongo("embedded") as uri:
            _measure_rate(stand, f"whole_way.{backend}.rate", file, settings, uri)
        with stand.run_mongo("null") as uri:
            _measure_rate(stand, f"whole_way.{backend}.rate_to_null_server", file, settings, uri)
        with stand.run_mongo("embedded") as uri:
            _measure_latency(stand, f"whole_way.{backend}.latency_p99", file, settings, uri)


def _measure_rate(stand: Stand, name: str, file: Path, settings: Mapping[str, str], uri: str) -> None:
    with Generator(file) as generator, start_journey(stand, generator.address, settings, uri) as journey:
        worker = journey.worker
        feed_start, cpu = time.monotonic(), cpu_seconds(worker.pid)
        arrived = generator.feed(journey.count_delivered, _WINDOW, _SECONDS)
        cpu = cpu_seconds(worker.pid) - cpu
        cores = cpu / (time.monotonic() - feed_start)
        ledgers = [event["ledger"] for event in worker.events if event.get("event") == "progress"]
        sent = generator.finish()
        journey.wait_until_delivered(sent.messages)
    stored = journey.count_stored()
    if stored != sent.messages:
        raise RuntimeError(f"{stored} documents were stored of {sent.messages} messages")
    (start, first), (end, last) = arrived[len(arrived) // 10], arrived[-1]
    waiting = _average_waiting([ledger for ledger in ledgers if ledger["mongo"]["delivered"] > 0])
    limit = _LIMITS[max(waiting, key=lambda step: waiting[step])]
    if cores > _WHOLE_CORE:
        limit = "one interpreter"
    if sent.is_the_limit:
        limit = "generator"
    print_figure(
        name,
        (last - first) / (end - start),
        "documents/s",
        limited_by=limit,
        worker_cores=round(cores, 2),
        waited_on_average=waiting,
        window=_WINDOW,
        seconds=round(end - start, 1),
        messages=sent.messages,
        lost=0,
        cpu_us=round(cpu / last * 1e6, 1),
        file_system=file_system(stand.work),
    )


_WHOLE_CORE = 0.85  # other processes of the machine use the rest
_LIMITS = {"before the spool": "reception", "spool": "pump", "log": "sink and server"}


def _average_waiting(ledgers: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many messages of the window waited before each step, on average."""
    count = max(1, len(ledgers))
    spool = sum(ledger["bus"]["spool_records"] for ledger in ledgers) // count
    log = sum(ledger["bus"]["delivered"] - ledger["mongo"]["delivered"] for ledger in ledgers) // count
    return {"before the spool": max(0, _WINDOW - spool - log), "spool": spool, "log": log}


def _measure_latency(stand: Stand, name: str, file: Path, settings: Mapping[str, str], uri: str) -> None:
    say(f"(d) latency at {_LATENCY_RATE} readings/s")
    total = int(_LATENCY_RATE * _LATENCY_SECONDS)
    with (
        MongoTap(uri) as tap,
        Generator(file, _LATENCY_RATE) as generator,
        start_journey(stand, generator.address, settings, tap.uri) as journey,
    ):
        generator.allow(_WARM_UP)
        journey.wait_until_delivered(_WARM_UP)
        generator.allow(total)
        journey.wait_until_delivered(total)
        sent = generator.finish()
        latencies = calculate_latencies(generator.times(), tap.acknowledged, _WARM_UP)
    if tap.documents != total:
        raise RuntimeError(f"{tap.documents} documents were acknowledged of {total} messages")
    print_figure(
        name,
        p99_ms(latencies),
        "ms",
        p50=round(p50_ms(latencies), 2),
        messages=len(latencies),
        rate=_LATENCY_RATE,
        generator_behind_s=round(sent.behind_s, 3),
        file_system=file_system(stand.work),
    )


class Journey:
    """A worker with a bus source and a MongoDB sink, and the collection of the sink."""

    def __init__(self, worker: WorkerProcess, uri: str, collection: str) -> None:
        self.worker = worker
        self._uri = uri
        self._collection = collection

    def count_delivered(self) -> int:
        """Return the sink's count of acknowledged documents in its last line of progress."""
        return int(self.worker.last_ledger.get("mongo", {}).get("delivered", 0))

    def wait_until_delivered(self, count: int, seconds: float = 120.0) -> None:
        """Return when ``count`` documents are delivered. Raises ``TimeoutError``."""
        end = time.monotonic() + seconds
        while (delivered := self.count_delivered()) < count:
            if time.monotonic() > end or not self.worker.running:
                raise TimeoutError(f"{delivered} of {count} documents were delivered within {seconds:g} s")
            time.sleep(0.02)

    def count_stored(self) -> int:
        """Return the number of documents in the collection."""
        return count_documents(self._uri, self._collection)


@contextlib.contextmanager
def start_journey(stand: Stand, bus: str, settings: Mapping[str, str], uri: str) -> Iterator[Journey]:
    """Start the worker of a new journey; yield it as soon as the source has subscribed."""
    journey = create_journey(stand, bus, settings, uri)
    with journey.worker:
        journey.worker.wait_for("subscribed")
        yield journey


def create_journey(stand: Stand, bus: str, settings: Mapping[str, str], uri: str) -> Journey:
    """Return a journey with its own folder, topic and collection; its worker is not started."""
    name = create_name("whole-way")
    connectors = [
        {
            "name": "bus",
            "connector.class": "volttron_bus",
            "volttron.address": bus,
            "platform.name": "lab",
            "bus.prefixes": "devices",
            "topic": name,
            "topic.creation.default.partitions": "1",  # one order, so that a document's number is known
        },
        {
            "name": "mongo",
            "connector.class": "mongo",
            "topics": name,
            "connection.uri": uri,
            "database": "bench",
            "collection": name,
        },
    ]
    return Journey(WorkerProcess(stand.create_folder("whole-way"), settings, connectors), uri, name)
