"""(f) Growth: the speed with more topics, more tasks, and more records in the spool.

- Topics and tasks: one worker with a MongoDB sink reads the same number of records from the local log and
  writes to the null server. The rate is the whole worker's. Its tasks are threads that share one Python
  interpreter; more cores need more workers.
- Spool: batches are appended as a receiver does it (a commit with fsync each), then read and deleted from
  the front as a pump does it. ``Spool.append`` fills all spools first; then they are measured in turns.

Each figure is the ratio of the largest case to the smallest; 1 is flat. The facts contain every case.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.readings import records
from bench.stand import Stand, create_name
from tieline.api import Datum, SourceRecord
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.testing.worker_process import WorkerProcess

RECORDS = 100_000
_DISTINCT = 10_000
_PARTITIONS = 16
_ROUNDS = 3
_TOPICS, _TASKS = (1, 10, 100), (1, 4, 16)
_WAITING = (1_000, 100_000, int(os.environ.get("TIELINE_BENCH_WAITING", "3_000_000")))
_FLAT = ">= 0.8"


def run(stand: Stand) -> None:
    """Measure topics and tasks, then spools."""
    say(f"(f) {RECORDS} readings in {_TOPICS} topics, and by {_TASKS} tasks")
    sinks: dict[str, Callable[[], dict[str, float]]] = {}
    with stand.run_mongo("null") as uri:
        for topics in _TOPICS:
            folder = stand.create_folder("growth")
            names = fill_log(folder, topics, _PARTITIONS if topics == 1 else 1)
            sinks[f"topics.{topics}"] = partial(_run_sink, folder, names, 1, uri)
            if topics == 1:
                sinks |= {f"tasks.{n}": partial(_run_sink, folder, names, n, uri) for n in _TASKS[1:]}
        results = run_in_turns(sinks, _ROUNDS)
    results["tasks.1"] = results["topics.1"]
    for kind, sizes in (("topics", _TOPICS), ("tasks", _TASKS)):
        _print_growth(f"growth.{kind}", {f"{kind}.{n}": results[f"{kind}.{n}"] for n in sizes}, "rate", sizes)
    say(f"(f) spools with {_WAITING} records")
    with contextlib.ExitStack() as stack:
        spools = {str(n): stack.enter_context(_fill_spool(stand, n)) for n in _WAITING}
        results = run_in_turns({n: partial(_use, spool) for n, spool in spools.items()}, _ROUNDS)
    for key in ("append", "read"):
        _print_growth(f"growth.spool.{key}", results, key, _WAITING)


def _print_growth(name: str, results: dict[str, list[Any]], key: str, sizes: tuple[int, ...]) -> None:
    """Print the ratio of the last case to the first; the cases are in the order of their ``sizes``."""
    cases = list(results.values())
    growth = ratio(cases[-1], cases[0], key)
    rates = {case: round(median(runs, key)) for case, runs in results.items()}
    name = f"{name}.{sizes[-1]}_to_{sizes[0]}"
    print_figure(name, growth, "ratio", _FLAT, rounds=_ROUNDS, records_per_s=rates)


def fill_log(folder: Path, topics: int, partitions: int) -> list[str]:
    """Fill a local log with all readings, spread over ``topics`` topics; return their names."""
    names = [f"readings-{number}" for number in range(topics)]
    with contextlib.closing(LocalLog.open(folder / "data")) as log:
        for name in names:
            log.create_topic(name, partitions=partitions)
        converter = AvroConverter(AvroConverterConfig(), is_key=False, schemas=TopicSchemaStore(log))
        readings = list(records(names[0], _DISTINCT))
        values = converter.serialize([Datum(names[0], r.value, r.value_schema) for r in readings])
        for start in range(0, RECORDS, 2_000):
            batch = []
            for number in range(start, start + 2_000):
                record = readings[number % _DISTINCT]
                headers = (("tieline.id", b"%032x" % number), *record.headers[1:])
                batch.append(
                    ProducerRecord(
                        names[number % topics], values[number % _DISTINCT], record.key.encode(), headers
                    )
                )
            log.store.append(batch)
    return names


def _run_sink(folder: Path, topics: list[str], tasks: int, uri: str) -> dict[str, float]:
    """Run a worker with a new group; return its rate from the first delivered records to the last."""
    connector = {
        "name": create_name("growth"),
        "connector.class": "mongo",
        "tasks.max": str(tasks),
        "topics": ",".join(topics),
        "connection.uri": uri,
        "database": "bench",
        "collection": "growth",
    }
    with WorkerProcess(folder, {}, [connector]) as worker:
        progress: list[tuple[float, int]] = []
        deadline = time.monotonic() + 120
        while not progress or progress[-1][1] < RECORDS:
            delivered = int(worker.last_ledger.get(connector["name"], {}).get("delivered", 0))
            if delivered > (progress[-1][1] if progress else 0):
                progress.append((time.monotonic(), delivered))
            if time.monotonic() > deadline or not worker.running:
                raise TimeoutError(f"{delivered} of {RECORDS} records were delivered within 120 s")
            time.sleep(0.002)
    (start, first), (end, last) = progress[0], progress[-1]
    if last != RECORDS:
        raise RuntimeError(f"{last} records were delivered of {RECORDS}")
    return {"rate": round((last - first) / (end - start))}


@contextlib.contextmanager
def _fill_spool(stand: Stand, waiting: int) -> Iterator[Spool]:
    """Open a spool and fill it with ``waiting`` short records."""
    say(f"filling a spool with {waiting} records")
    limits = Limits(max_bytes=1 << 40, drop_oldest=False, quarantine_bytes=1 << 20)
    counters = Counters()
    with contextlib.closing(Spool(stand.create_folder("spool") / "spool.db", limits, counters)) as spool:
        for start in range(0, waiting, 20_000):
            spool.append([_create_short(n) for n in range(start, min(start + 20_000, waiting))])
        if spool.waiting[0] != waiting or counters["spooled"] != waiting:
            raise RuntimeError(f"the spool has {spool.waiting[0]} records, not {waiting}: {counters.all()}")
        yield spool


def _create_short(number: int) -> SourceRecord:
    return SourceRecord("t", b"%d" % number, headers=(("tieline.id", b"%032x" % number),))


def _use(spool: Spool) -> dict[str, float]:
    """Append 25,000 records and read 25,000 from the front, so that the spool keeps its size."""
    batches, size = 50, 500
    records_of_batches = [[_create_short(n) for n in range(size)] for _ in range(batches)]
    start = time.monotonic()
    for batch in records_of_batches:
        spool.append(batch)
    append_end = time.monotonic()
    position, count = spool.start, 0
    while count < batches * size:
        batch, position, *_ = spool.read(position, size, 0)
        count += len(batch)
        spool.save({spool.id: str(position)})
    read_end = time.monotonic()
    if count != batches * size:
        raise RuntimeError(f"{count} records were read of {batches * size}")
    return {
        "append": round(batches * size / (append_end - start)),
        "read": round(batches * size / (read_end - append_end)),
    }
