"""(a) Kafka → MongoDB: the worker and the bare libraries' loop, on the same topic and servers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.process import cpu_seconds, peak_mb
from bench.stand import ROOT, MongoKind, Stand, count_documents, create_name
from bench.topics import create_avro_topic
from tieline.testing.worker_process import WorkerProcess

COUNT = int(os.environ.get("TIELINE_BENCH_RECORDS", "300000"))
_TIMEOUT = 240.0


def run(stand: Stand) -> None:
    """Compare them on both servers."""
    _compare(stand, "null", COUNT, ">= 0.6")
    _compare(stand, "embedded", COUNT // 5, ">= 0.9")


def _compare(stand: Stand, server: MongoKind, count: int, goal: str) -> None:
    say(f"(a) {count} six-point readings, Avro, to the {server} server")
    topic = create_avro_topic(stand, count)

    def measure_loop() -> dict[str, float]:
        with stand.run_mongo(server) as uri:
            return run_raw_loop(stand, topic, count, uri)

    def measure_worker(sink: Mapping[str, str]) -> dict[str, float]:
        with stand.run_mongo(server) as uri:
            return run_workers(stand, topic, count, uri, sink)

    cases: dict[str, Callable[[], dict[str, float]]]
    cases = {"bare loop": measure_loop, "tieline": partial(measure_worker, {"create.indexes": "false"})}
    if server == "embedded":  # the cost of the indexes that tieline's queries need
        cases["tieline, indexes"] = partial(measure_worker, {})
    results = run_in_turns(cases, 3)
    tieline, bare = results["tieline"], results["bare loop"]
    facts = {"records": count, "runs": 3, "tieline": tieline, "bare loop": bare}
    print_figure(f"sink.{server}.rate_to_bare_loop", ratio(tieline, bare, "rate"), "ratio", goal, **facts)
    print_figure(f"sink.{server}.rate", median(tieline, "rate"), "records/s")
    print_figure(f"sink.{server}.cpu", median(tieline, "cpu_us"), "µs/record", bare=median(bare, "cpu_us"))
    if server == "embedded":
        rate = median(results["tieline, indexes"], "rate")
        print_figure("sink.embedded.rate_with_indexes", rate, "records/s")
    print_figure(f"sink.{server}.peak_memory", median(tieline, "peak_mb"), "MB", "<= 150")


def run_raw_loop(stand: Stand, topic: str, count: int, uri: str) -> dict[str, float]:
    """Run the bare libraries' loop in a separate process; return its figures."""
    command = [sys.executable, "-m", "bench.raw_loop", stand.kafka.bootstrap, topic, str(count), uri]
    completed = subprocess.run(
        [*command, create_name("raw"), "avro"], stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT
    )
    figures: dict[str, float] = json.loads(completed.stdout)
    return figures


def run_workers(
    stand: Stand, topic: str, count: int, uri: str, sink: Mapping[str, str], workers: int = 1
) -> dict[str, float]:
    """Run workers of one group with a Mongo sink each; measure from the first delivery to the last."""
    collection = create_name("tieline")
    settings = {**stand.kafka_settings, "progress.interval.ms": "100"}
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
    processes = [WorkerProcess(stand.create_folder("worker"), settings, [connector]) for _ in range(workers)]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        first = _wait_until_delivered(processes, 1)
        first_moment, first_cpu = time.monotonic(), sum(cpu_seconds(p.pid) for p in processes)
        last = _wait_until_delivered(processes, count)
        seconds = time.monotonic() - first_moment
        cpu = sum(cpu_seconds(p.pid) for p in processes) - first_cpu
        figures = {
            "rate": (last - first) / seconds,
            "cpu_us": cpu / (last - first) * 1e6,
            "peak_mb": sum(peak_mb(p.pid) for p in processes),
            "first_s": first_moment - started,
        }
    stored = count_documents(uri, collection)
    if stored != count:
        raise RuntimeError(f"{stored} documents were stored of {count} records")
    return {key: round(value, 1) for key, value in figures.items()}


def _wait_until_delivered(processes: list[WorkerProcess], count: int) -> int:
    """Wait until the workers have delivered ``count`` records in all; return how many they have."""
    end = time.monotonic() + _TIMEOUT
    while (delivered := sum(map(_count_delivered, processes))) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{delivered} of {count} records were delivered within {_TIMEOUT:g} s")
        time.sleep(0.01)
    return delivered


def _count_delivered(worker: WorkerProcess) -> int:
    return sum(ledger.get("delivered", 0) for ledger in worker.last_ledger.values())
