"""(d) The whole way: bus → spool → log → MongoDB, six-point readings; through the local log, through Kafka.

The rate is what the way sustains: the generator is kept a window ahead of the documents that are
acknowledged, so nothing grows without bound, and what is counted is what came out at the end. A worker
that uses a whole core is limited by that: its threads share one Python interpreter. Else the place where
the messages of the window waited says what limits it: before the spool, in it (the pump), or in the log
(the sink and its server). The server that keeps nothing shows the same way without a server's own work.

The latency reaches from just before the generator's call of libzmq to the server's acknowledgement as it
passes on the wire.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import readings
from bench.disk import file_system, why_no_disk
from bench.figure import figure, say
from bench.latency import latencies, p50_ms, p99_ms
from bench.mongo_tap import MongoTap
from bench.process import cpu_seconds
from bench.replay import Generator, write
from bench.stand import Stand, documents, new_name
from tieline.testing.worker_process import WorkerProcess

_SECONDS = 20.0
_WINDOW = 10_000
_MOST = 10_000  # messages a second that the file is long enough for
_LATENCY_RATE, _LATENCY_SECONDS = 200, 20.0
_WARM_UP = 400  # readings: until topics, schemas and indexes are there, and the sink has its partition


def run(stand: Stand) -> None:
    """Both homes, both servers."""
    if reason := why_no_disk(stand.work):
        figure("whole_way.local.rate", None, "documents/s", why=reason)
        return
    count = int(_SECONDS * _MOST)
    file = write(stand.folder("replay") / "readings", map(readings.frames, range(count)))
    homes = {"local": {}, "kafka": {"bootstrap.servers": stand.kafka.bootstrap}}
    for home, settings in homes.items():
        say(f"(d) the whole way through {home} for {_SECONDS:g} s")
        with stand.mongo() as uri:
            _rate(stand, f"whole_way.{home}.rate", file, settings, uri)
        with stand.null_mongo() as uri:
            _rate(stand, f"whole_way.{home}.rate_to_null_server", file, settings, uri)
        with stand.mongo() as uri:
            _latency(stand, f"whole_way.{home}.latency_p99", file, settings, uri)


def _rate(stand: Stand, name: str, file: Path, settings: Mapping[str, str], uri: str) -> None:
    with Generator(file) as generator, journey(stand, generator.address, settings, uri) as way:
        worker = way.worker
        begun, cpu = time.monotonic(), cpu_seconds(worker.pid)
        seen = generator.feed(way.delivered, _WINDOW, _SECONDS)
        cpu = cpu_seconds(worker.pid) - cpu
        cores = cpu / (time.monotonic() - begun)
        ledgers = [event["ledger"] for event in worker.events if event.get("event") == "progress"]
        sent = generator.finish()
        way.until(sent.messages)
    if way.stored() != sent.messages:
        raise RuntimeError(f"{way.stored()} documents of {sent.messages} messages")
    (begun, first), (ended, last) = seen[len(seen) // 10], seen[-1]
    where = _waited([ledger for ledger in ledgers if ledger["mongo"]["delivered"] > 0])
    limit = _LIMITS[max(where, key=lambda place: where[place])]
    if cores > _WHOLE_CORE:
        limit = "one interpreter"
    if sent.is_the_limit:
        limit = "generator"
    figure(
        name,
        (last - first) / (ended - begun),
        "documents/s",
        limited_by=limit,
        worker_cores=round(cores, 2),
        waited_on_average=where,
        window=_WINDOW,
        seconds=round(ended - begun, 1),
        messages=sent.messages,
        lost=0,
        cpu_us=round(cpu / last * 1e6, 1),
        file_system=file_system(stand.work),
    )


_WHOLE_CORE = 0.85  # other processes of the machine take some of it
_LIMITS = {"before the spool": "reception", "spool": "pump", "log": "sink and server"}


def _waited(ledgers: list[dict[str, Any]]) -> dict[str, int]:
    """How many messages of the window were where, on average."""
    spool = sum(ledger["bus"]["spool_records"] for ledger in ledgers)
    log = sum(ledger["bus"]["delivered"] - ledger["mongo"]["delivered"] for ledger in ledgers)
    count = max(1, len(ledgers))
    found = {"spool": spool // count, "log": log // count}
    return {"before the spool": max(0, _WINDOW - sum(found.values())), **found}


def _latency(stand: Stand, name: str, file: Path, settings: Mapping[str, str], uri: str) -> None:
    say(f"(d) latency at {_LATENCY_RATE} readings/s")
    total = int(_LATENCY_RATE * _LATENCY_SECONDS)
    with (
        MongoTap(uri) as tap,
        Generator(file, _LATENCY_RATE) as generator,
        journey(stand, generator.address, settings, tap.uri) as way,
    ):
        generator.allow(_WARM_UP)
        way.until(_WARM_UP)
        generator.allow(total)
        way.until(total)
        sent = generator.finish()
        found = latencies(generator.times(), tap.acknowledged, _WARM_UP)
    if tap.documents != total:
        raise RuntimeError(f"{tap.documents} documents were acknowledged of {total} messages")
    figure(
        name,
        p99_ms(found),
        "ms",
        p50=round(p50_ms(found), 2),
        messages=len(found),
        rate=_LATENCY_RATE,
        generator_behind_s=round(sent.behind_s, 3),
        file_system=file_system(stand.work),
    )


class Journey:
    """A worker with both ends; ``delivered`` is what its sink counts, as of its last line of progress."""

    def __init__(self, worker: WorkerProcess, uri: str, collection: str) -> None:
        self.worker = worker
        self._uri = uri
        self._collection = collection

    def delivered(self) -> int:
        """Documents that were acknowledged."""
        return int(self.worker.last_ledger.get("mongo", {}).get("delivered", 0))

    def until(self, count: int, seconds: float = 120.0) -> None:
        """Wait for so many. Raises ``TimeoutError``."""
        end = time.monotonic() + seconds
        while self.delivered() < count:
            if time.monotonic() > end or not self.worker.running:
                raise TimeoutError(f"{self.delivered()} of {count} documents within {seconds:g} s")
            time.sleep(0.02)

    def stored(self) -> int:
        """Documents that the server has."""
        return documents(self._uri, "bench", self._collection)


@contextlib.contextmanager
def journey(stand: Stand, bus: str, settings: Mapping[str, str], uri: str) -> Iterator[Journey]:
    """A worker with a bus source and a MongoDB sink; it has subscribed, unless it ends before."""
    way = make_journey(stand, bus, settings, uri)
    with way.worker:
        way.worker.wait_for("subscribed")
        yield way


def make_journey(stand: Stand, bus: str, settings: Mapping[str, str], uri: str) -> Journey:
    """The same, not started; nothing of it was there before."""
    name = new_name("whole-way")
    connectors = [
        {
            "name": "bus",
            "connector.class": "volttron_bus",
            "volttron.address": bus,
            "platform.name": "lab",
            "bus.prefixes": "devices",
            "topic": name,
            "topic.creation.default.partitions": "1",  # in one order, so that a document's number is known
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
    return Journey(WorkerProcess(stand.folder("whole-way"), settings, connectors), uri, name)
