"""(e) The start and the memory of a worker: bus → spool → local log → MongoDB.

The start is a cold one: the worker's folder is empty, the collection is missing, and the bus publishes 100
readings/s. It is measured from the start of the process to the first document that the server acknowledges.
Platform and server run before.

The memory is measured after the worker has delivered 1,000 readings, so that all of its code has run, and has
then been idle for 60 s. TIELINE_BENCH_IDLE_S sets a shorter time.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from bench import readings
from bench.figure import print_figure, say
from bench.mongo_tap import MongoTap
from bench.process import peak_mb, pss_mb
from bench.replay import Generator, write_messages
from bench.stand import Stand
from bench.whole_way import create_journey

_STARTS = 5
_RATE = 100
_READINGS = 1_000
_IDLE = float(os.environ.get("TIELINE_BENCH_IDLE_S", "60"))


def run(stand: Stand) -> None:
    """Measure five starts, then the memory of an idle worker."""
    file = write_messages(stand.create_folder("replay") / "readings", map(readings.frames, range(_READINGS)))
    with stand.run_mongo("embedded") as uri:
        _first_document(stand, file, uri)
        _idle(stand, file, uri)


def _first_document(stand: Stand, file: Path, uri: str) -> None:
    say(f"(e) {_STARTS} starts to the first document")
    seconds = []
    for _ in range(_STARTS):
        with MongoTap(uri) as tap, Generator(file, _RATE) as generator:
            generator.allow(_READINGS)
            journey = create_journey(stand, generator.address, {}, tap.uri)
            start = time.monotonic()
            with journey.worker:
                if not tap.any_acknowledged.wait(60):
                    raise TimeoutError("no document was acknowledged within 60 s")
                generator.finish()
            seconds.append(tap.acknowledged[0][0] - start)
    print_figure(
        "start.first_document",
        statistics.median(seconds),
        "s",
        "<= 2",
        starts=[round(start, 3) for start in seconds],
        home="local log",
    )


def _idle(stand: Stand, file: Path, uri: str) -> None:
    say(f"(e) memory after {_IDLE:g} s idle")
    with Generator(file) as generator:
        journey = create_journey(stand, generator.address, {}, uri)
        with journey.worker as worker:
            generator.allow(_READINGS)
            journey.wait_until_delivered(_READINGS)
            generator.finish()
            busy = pss_mb(worker.pid)
            time.sleep(_IDLE)
            idle, peak = pss_mb(worker.pid), peak_mb(worker.pid)
    print_figure(
        "memory.idle_pss",
        idle,
        "MB",
        "<= 100",
        idle_s=_IDLE,
        pss_before=round(busy, 1),
        peak_rss=round(peak, 1),
        readings_before=_READINGS,
    )
