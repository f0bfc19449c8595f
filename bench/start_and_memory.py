"""(e) How soon a worker delivers, and how little it needs: bus → spool → local log → MongoDB.

The start is the hard one: an empty folder, a collection that is not there yet, while the bus talks at 100
readings/s; from the start of the process to the first document that the server has acknowledged, as it
passes on the wire. Platform and server are up before.

The memory is measured after the worker has carried 1,000 readings (so that all of its code has run) and
then idled for 60 s; TIELINE_BENCH_IDLE_S makes that shorter.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from bench import readings
from bench.figure import figure, say
from bench.mongo_tap import MongoTap
from bench.process import peak_mb, pss_mb
from bench.replay import Generator, write
from bench.stand import Stand
from bench.whole_way import make_journey

_STARTS = 5
_RATE = 100
_READINGS = 1_000
_IDLE = float(os.environ.get("TIELINE_BENCH_IDLE_S", "60"))


def run(stand: Stand) -> None:
    """Five starts, then one that idles."""
    file = write(stand.folder("replay") / "readings", map(readings.frames, range(_READINGS)))
    with stand.mongo() as uri:
        _first_document(stand, file, uri)
        _idle(stand, file, uri)


def _first_document(stand: Stand, file: Path, uri: str) -> None:
    say(f"(e) {_STARTS} starts to the first document")
    starts = []
    for _ in range(_STARTS):
        with MongoTap(uri) as tap, Generator(file, _RATE) as generator:
            generator.allow(_READINGS)
            way = make_journey(stand, generator.address, {}, tap.uri)
            begun = time.monotonic()
            with way.worker:
                if not tap.first.wait(60):
                    raise TimeoutError("no document within 60 s")
                generator.finish()
            starts.append(tap.acknowledged[0][0] - begun)
    singles = [round(seconds, 3) for seconds in starts]
    figure("start.first_document", statistics.median(starts), "s", "<= 2", starts=singles, home="local log")


def _idle(stand: Stand, file: Path, uri: str) -> None:
    say(f"(e) memory after {_IDLE:g} s idle")
    with Generator(file) as generator:
        way = make_journey(stand, generator.address, {}, uri)
        with way.worker as worker:
            generator.allow(_READINGS)
            way.until(_READINGS)
            generator.finish()
            busy = pss_mb(worker.pid)
            time.sleep(_IDLE)
            idle, peak = pss_mb(worker.pid), peak_mb(worker.pid)
    figure(
        "memory.idle_pss",
        idle,
        "MB",
        "<= 100",
        idle_s=_IDLE,
        pss_before=round(busy, 1),
        peak_rss=round(peak, 1),
        readings_before=_READINGS,
    )
