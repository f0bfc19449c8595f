"""(a) Kafka → MongoDB: the worker beside the bare libraries' loop, on the same topic and servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping

from bench.figure import figure, in_turns, median, ratio, say
from bench.process import cpu_seconds, peak_mb
from bench.stand import ROOT, Stand, documents, new_name
from bench.topics import avro_topic
from tieline.testing.worker_process import WorkerProcess

COUNT = 300_000
_LIMIT = 240.0


def run(stand: Stand) -> None:
    """Both servers."""
    _compare(stand, "null", COUNT, ">= 0.6")
    _compare(stand, "embedded", COUNT // 5, ">= 0.9")


def _compare(stand: Stand, server: str, count: int, goal: str) -> None:
    say(f"(a) {count} six-point readings, Avro, to the {server} server")
    topic = avro_topic(stand, count)
    place = stand.null_mongo if server == "null" else stand.mongo

    def raw() -> dict[str, float]:
        with place() as uri:
            return raw_run(stand, topic, count, uri, "avro")

    def ours() -> dict[str, float]:
        with place() as uri:
            return worker_run(stand, topic, count, uri, {"create.indexes": "false"})

    def indexed() -> dict[str, float]:
        with place() as uri:
            return worker_run(stand, topic, count, uri, {})

    cases = {"bare loop": raw, "tieline": ours}
    if server == "embedded":  # what the indexes cost that our queries need, and the bare loop has not
        cases["tieline, indexes"] = indexed
    found = in_turns(cases, 3)
    mine, bare = found["tieline"], found["bare loop"]
    facts = {"records": count, "runs": 3, "tieline": mine, "bare loop": bare}
    figure(f"sink.{server}.rate_to_bare_loop", ratio(mine, bare, "rate"), "ratio", goal, **facts)
    figure(f"sink.{server}.rate", median(mine, "rate"), "records/s")
    figure(f"sink.{server}.cpu", median(mine, "cpu_us"), "µs/record", bare=median(bare, "cpu_us"))
    if "tieline, indexes" in found:
        figure("sink.embedded.rate_with_indexes", median(found["tieline, indexes"], "rate"), "records/s")
    figure(f"sink.{server}.peak_memory", median(mine, "peak_mb"), "MB", "<= 150")


def raw_run(stand: Stand, topic: str, count: int, uri: str, form: str) -> dict[str, float]:
    """The loop in a process of its own."""
    command = [sys.executable, "-m", "bench.raw_loop", stand.kafka.bootstrap, topic, str(count), uri]
    done = subprocess.run(
        [*command, new_name("raw"), form], stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def worker_run(
    stand: Stand, topic: str, count: int, uri: str, sink: Mapping[str, str], workers: int = 1
) -> dict[str, float]:
    """Workers of one group with a Mongo sink each; from the first records delivered to the last."""
    collection = new_name("tieline")
    settings = {"bootstrap.servers": stand.kafka.bootstrap, "progress.interval.ms": "100"}
    connector = {
        "name": collection,
        "connector.class": "mongo",
        "topics": topic,
        "connection.uri": uri,
        "database": "bench",
        "collection": collection,
        **sink,
    }
    started = time.monotonic()
    running = [WorkerProcess(stand.folder("worker"), settings, [connector]) for _ in range(workers)]
    try:
        for worker in running:
            worker.start()
        first = _until(running, 1)
        then, cpu = time.monotonic(), sum(cpu_seconds(w.pid) for w in running)
        last = _until(running, count)
        wall = time.monotonic() - then
        figures = {
            "rate": (last - first) / wall,
            "cpu_us": (sum(cpu_seconds(w.pid) for w in running) - cpu) / (last - first) * 1e6,
            "peak_mb": sum(peak_mb(w.pid) for w in running),
            "first_s": then - started,
        }
    finally:
        for worker in running:
            worker.stop()
    stored = documents(uri, "bench", collection)
    if stored != count:
        raise RuntimeError(f"{stored} documents of {count} records")
    return {key: round(value, 1) for key, value in figures.items()}


def _until(running: list[WorkerProcess], count: int) -> int:
    """Wait until so many are delivered in all, and say how many it are then."""
    end = time.monotonic() + _LIMIT
    while (delivered := sum(_delivered(worker) for worker in running)) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{delivered} of {count} delivered within {_LIMIT} s")
        time.sleep(0.01)
    return delivered


def _delivered(worker: WorkerProcess) -> int:
    ledger = worker.last_ledger
    return sum(part.get("delivered", 0) for part in ledger.values())
