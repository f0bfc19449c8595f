"""(f) Growth: does it stay as fast with more topics, more tasks, more that waits?

- Topics and tasks: one worker, a MongoDB sink, the local log, the server that keeps nothing. All cases
  read the same number of records. The rate is that of the whole worker: its tasks are threads of one
  Python interpreter, so more of them share its speed; more cores are for more workers.
- A spool with more records waiting: appending batches as a receiver does (a commit with fsync each), and
  reading and deleting from its front as a pump does. All three are filled first, by ``Spool.append``
  itself, and then measured in turns.

Each figure is the largest case against the smallest (1 is flat); the facts have all of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.figure import figure, in_turns, median, ratio, say
from bench.readings import records
from bench.stand import Stand, new_name
from tieline.api import Datum, SourceRecord
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.testing.worker_process import WorkerProcess

_RECORDS = 100_000
_DISTINCT = 10_000
_PARTITIONS = 16
_ROUNDS = 3
_TOPICS, _TASKS = (1, 10, 100), (1, 4, 16)
_WAITING = (1_000, 100_000, int(os.environ.get("TIELINE_BENCH_WAITING", "3_000_000")))
_FLAT = ">= 0.8"


def run(stand: Stand) -> None:
    """Topics, tasks, spools."""
    say(f"(f) {_RECORDS} readings in {_TOPICS} topics, and by {_TASKS} tasks")
    sinks: dict[str, Callable[[], dict[str, float]]] = {}
    with stand.null_mongo() as uri:
        for topics in _TOPICS:
            folder = stand.folder("growth")
            names = _fill(folder, topics, _PARTITIONS if topics == 1 else 1)
            sinks[f"topics.{topics}"] = partial(_sink, folder, names, 1, uri)
            if topics == 1:
                sinks |= {f"tasks.{tasks}": partial(_sink, folder, names, tasks, uri) for tasks in _TASKS[1:]}
        found = in_turns(sinks, _ROUNDS)
    found["tasks.1"] = found["topics.1"]
    for of, sizes in (("topics", _TOPICS), ("tasks", _TASKS)):
        _figure(f"growth.{of}", [f"{of}.{size}" for size in sizes], found, "rate", sizes)
    say(f"(f) spools in which {_WAITING} records wait")
    with contextlib.ExitStack() as open_spools:
        spools = {str(n): open_spools.enter_context(_spool(stand, n)) for n in _WAITING}
        worked = in_turns({n: partial(_work, spool) for n, spool in spools.items()}, _ROUNDS)
    for key in ("append", "read"):
        _figure(f"growth.spool.{key}", [str(n) for n in _WAITING], worked, key, _WAITING)


def _figure(
    name: str, cases: list[str], found: dict[str, list[Any]], key: str, sizes: tuple[int, ...]
) -> None:
    first, last = found[cases[0]], found[cases[-1]]
    rates = {case: round(median(found[case], key)) for case in cases}
    full = f"{name}.{sizes[-1]}_to_{sizes[0]}"
    figure(full, ratio(last, first, key), "ratio", _FLAT, rounds=_ROUNDS, records_per_s=rates)


def _fill(folder: Path, topics: int, partitions: int) -> list[str]:
    """A local log with all readings, spread over topics of their own."""
    names = [f"readings-{number}" for number in range(topics)]
    with contextlib.closing(LocalLog.open(folder / "data")) as log:
        for name in names:
            log.create_topic(name, partitions=partitions)
        converter = AvroConverter(AvroConverterConfig(), is_key=False, schemas=TopicSchemaStore(log))
        made = list(records(names[0], _DISTINCT))
        values = converter.serialize([Datum(names[0], r.value, r.value_schema) for r in made])
        for start in range(0, _RECORDS, 2_000):
            batch = []
            for number in range(start, start + 2_000):
                record = made[number % _DISTINCT]
                headers = (("tieline.id", b"%032x" % number), *record.headers[1:])
                batch.append(
                    ProducerRecord(
                        names[number % topics], values[number % _DISTINCT], record.key.encode(), headers
                    )
                )
            log.store.append(batch)
    return names


def _sink(folder: Path, topics: list[str], tasks: int, uri: str) -> dict[str, float]:
    """A worker with a new group, from the first records delivered to the last."""
    connector = {
        "name": new_name("growth"),
        "connector.class": "mongo",
        "tasks.max": str(tasks),
        "topics": ",".join(topics),
        "connection.uri": uri,
        "database": "bench",
        "collection": "growth",
    }
    with WorkerProcess(folder, {}, [connector]) as worker:
        seen: list[tuple[float, int]] = []
        end = time.monotonic() + 120
        while not seen or seen[-1][1] < _RECORDS:
            there = int(worker.last_ledger.get(connector["name"], {}).get("delivered", 0))
            if there > (seen[-1][1] if seen else 0):
                seen.append((time.monotonic(), there))
            if time.monotonic() > end or not worker.running:
                raise TimeoutError(f"{there} of {_RECORDS} delivered")
            time.sleep(0.002)
    (begun, first), (ended, last) = seen[0], seen[-1]
    if last != _RECORDS:
        raise RuntimeError(f"{last} delivered of {_RECORDS} records")
    return {"rate": round((last - first) / (ended - begun))}


@contextlib.contextmanager
def _spool(stand: Stand, waiting: int) -> Iterator[Spool]:
    """A spool in which so many short records wait."""
    say(f"filling a spool with {waiting} records")
    limits = Limits(max_bytes=1 << 40, drop_oldest=False, quarantine_bytes=1 << 20)
    counters = Counters()
    with contextlib.closing(Spool(stand.folder("spool") / "spool.db", limits, counters)) as spool:
        for start in range(0, waiting, 20_000):
            spool.append([_short(n) for n in range(start, min(start + 20_000, waiting))])
        if spool.waiting[0] != waiting or counters["spooled"] != waiting:
            raise RuntimeError(f"{spool.waiting[0]} of {waiting} wait in the spool: {counters.all()}")
        yield spool


def _short(number: int) -> SourceRecord:
    return SourceRecord("t", b"%d" % number, headers=(("tieline.id", b"%032x" % number),))


def _work(spool: Spool) -> dict[str, float]:
    """Add 25,000 records, take 25,000 from the front: as many wait afterwards as before."""
    batches, size = 50, 500
    made = [[_short(n) for n in range(size)] for _ in range(batches)]
    begun = time.monotonic()
    for batch in made:
        spool.append(batch)
    appended = time.monotonic()
    position, taken = spool.start, 0
    while taken < batches * size:
        batch, position, _ = spool.read(position, size, 0)
        taken += len(batch)
        spool.save({spool.id: str(position)})
    read = time.monotonic()
    if taken != batches * size:
        raise RuntimeError(f"{taken} records were read")
    return {
        "append": round(batches * size / (appended - begun)),
        "read": round(batches * size / (read - appended)),
    }
