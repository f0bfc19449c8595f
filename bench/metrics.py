"""(o) Metrics: what a Prometheus that scrapes costs a worker.

- Busy: one worker with the sink ``history`` reads 100,000 readings from the local log, alone, scraped every
  15 s as Prometheus does by default, and every 100 ms, which nobody needs.
- At rest: the CPU time that scrapes alone take, in shares of one core. This resolves what is below the noise
  of the busy runs.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.growth import RECORDS, fill_log
from bench.process import cpu_seconds
from bench.stand import Stand, create_name, wait_until_delivered
from tieline.testing.worker_process import WorkerProcess
from tieline_lab.process import free_port

_ROUNDS = 3
_REST_S = 30.0
_USUAL_S, _ABSURD_S = 15.0, 0.1
_LARGEST_COST = "<= 0.01"


def run(stand: Stand) -> None:
    """Measure a busy worker without and with scrapes, in turns, then one at rest."""
    say(f"(o) {RECORDS} readings, alone and scraped")
    folder = stand.create_folder("metrics")
    topics = fill_log(folder, 1, 4)
    intervals = {"alone": 0.0, "15_s": _USUAL_S, "100_ms": _ABSURD_S}
    busy = {name: partial(_run_busy, folder, topics, interval) for name, interval in intervals.items()}
    results = run_in_turns(busy, _ROUNDS)
    for name in ("15_s", "100_ms"):
        facts = {
            "rounds": _ROUNDS,
            "cpu_us_a_record": [round(median(results[each], "cpu_us"), 1) for each in ("alone", name)],
            "records_per_s": [round(median(results[each], "rate")) for each in ("alone", name)],
            "scrapes": median(results[name], "scrapes"),
        }
        goal = _LARGEST_COST if name == "15_s" else ""
        lost = 1 - ratio(results[name], results["alone"], "rate")
        print_figure(f"metrics.{name}.rate_lost", lost, "share", goal, **facts)
        added = ratio(results[name], results["alone"], "cpu_us") - 1
        print_figure(f"metrics.{name}.cpu_added", added, "share", goal)
    say(f"(o) a worker at rest, {_REST_S:g} s alone and scraped")
    rest = _run_at_rest(folder, topics, intervals)
    for name in ("15_s", "100_ms"):
        goal = _LARGEST_COST if name == "15_s" else ""
        print_figure(f"metrics.{name}.core", max(0.0, rest[name] - rest["alone"]), "share of a core", goal)


def _run_busy(folder: Path, topics: list[str], interval: float) -> dict[str, float]:
    """Run a worker with a new sink; return its rate and CPU time from its first records to its last."""
    port, name = free_port(), create_name("metrics")
    sink = {"name": name, "connector.class": "history", "topics": ",".join(topics)}
    settings = {"listeners": f"http://127.0.0.1:{port}", "progress.interval.ms": "500"}
    with WorkerProcess(folder, settings, [sink]) as worker:
        worker.wait_for("the pages are served")
        with _scraped(port, interval) as scrapes:
            start = wait_until_delivered(worker, name, RECORDS // 10)
            end = wait_until_delivered(worker, name, RECORDS)
    (first_time, first, first_cpu), (last_time, last, last_cpu) = start, end
    return {
        "rate": (last - first) / (last_time - first_time),
        "cpu_us": (last_cpu - first_cpu) / (last - first) * 1e6,
        "scrapes": len(scrapes),
    }


def _run_at_rest(folder: Path, topics: list[str], intervals: dict[str, float]) -> dict[str, float]:
    """Return the share of a core that a worker at rest uses, by the interval of its scrapes."""
    port = free_port()
    output = str(folder / "rest.txt")
    sink = {"name": "rest", "connector.class": "file", "file": output, "topics": ",".join(topics)}
    settings = {"listeners": f"http://127.0.0.1:{port}", "progress.interval.ms": "5000"}
    used = {}
    with WorkerProcess(folder, settings, [sink]) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["rest"]["lag"] == 0)
        for name, interval in intervals.items():
            with _scraped(port, interval):
                time.sleep(1.0)  # the first scrape loads what later ones need
                before, start = cpu_seconds(worker.pid), time.monotonic()
                time.sleep(_REST_S)
                used[name] = (cpu_seconds(worker.pid) - before) / (time.monotonic() - start)
    return used


@contextmanager
def _scraped(port: int, interval: float) -> Iterator[list[int]]:
    """Scrape at this interval inside the block, 0: not at all; yields the size of each answer."""
    sizes: list[int] = []
    stop = threading.Event()

    def scrape() -> None:
        while interval and not stop.is_set():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                sizes.append(len(answer.read()))
            stop.wait(interval)

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()
