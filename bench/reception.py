"""(c) Bus → spool: messages of 300 bytes, replayed from a file by another process, safe after an fsync.

The worker is a real one; what is committed is read from the spool's file beside it, every 2 ms at most
(every 0.5 ms for the latency), by its stored end: no record is touched.

Two rates: with Kafka away, so that all of the process receives; and with the pump carrying everything on
into the local log at the same time, which costs the same interpreter as much again.

The latency reaches from just before the generator's call of libzmq to the moment at which another process
can see the commit. It includes the loopback connection, and up to 0.5 ms of the one who looks.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.disk import FsyncLoop, file_system, why_no_disk
from bench.figure import figure, say
from bench.latency import latencies, p50_ms, p99_ms
from bench.process import cpu_seconds
from bench.replay import Generator, Sent, write
from bench.stand import Stand
from tieline.api import TopicPartition
from tieline.broker.local.reader import Reader
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.vip.frames import PROTOCOL
from tieline_lab.process import free_port

SIZE = 300
_SECONDS = 15.0
_WINDOW = 20_000
_MOST = 40_000  # messages a second that the file is long enough for
_LATENCY_RATE, _LATENCY_SECONDS = 1_000, 10.0
_SPOOL = TopicPartition("spool", 0)


def run(stand: Stand) -> None:
    """Rate, then latency."""
    if reason := why_no_disk(stand.work):
        figure("reception.rate", None, "messages/s", ">= 10000", why=reason)
        return
    file = write(stand.folder("replay") / "messages", messages(int(_SECONDS * _MOST) + _WINDOW))
    for name, away in (("reception.rate", True), ("reception.rate_while_pumping", False)):
        say(f"(c) {SIZE}-byte messages for {_SECONDS:g} s{', Kafka away' if away else ''}")
        figures = sustained(stand, file, away=away)
        figure(name, figures.pop("rate"), "messages/s", ">= 10000", **figures)
    _latency(stand, file)


def messages(count: int) -> Iterator[list[bytes]]:
    """Frames of publications whose bodies have 300 bytes; each is an event of its own."""
    metadata = {"ZoneTemperature": {"units": "degreesCelsius", "type": "float", "tz": "UTC"}}
    for number in range(count):
        minutes, seconds = divmod(number // 500 % 86_400, 60)
        hours, minutes = divmod(minutes, 60)
        stamp = f"2026-01-{1 + number // 43_200_000:02}T{hours:02}:{minutes:02}:{seconds:02}"
        stamp += f".{number % 500:03}000+00:00"
        points = {"ZoneTemperature": round(20 + number % 1000 / 300, 6)}
        body: dict[str, Any] = {
            "bus": "",
            "sender": "platform.driver",
            "headers": {"Date": stamp, "TimeStamp": stamp, "pad": ""},
            "message": [points, metadata],
        }
        data = json.dumps(body).encode()
        data = data.replace(b'"pad": ""', b'"pad": "%b"' % (b"x" * (SIZE - len(data))))
        topic = f"devices/campus/building{number % 7}/unit{number % 500}/all"
        yield [b"", PROTOCOL, b"", b"", b"pubsub", b"publish", topic.encode(), data]


def sustained(stand: Stand, file: Path, *, away: bool) -> dict[str, Any]:
    """As fast as the spool takes them, never more than a window ahead; everything is counted."""
    with (
        Generator(file) as generator,
        _receiving(stand, generator.address, away=away) as (worker, reader),
    ):
        before = cpu_seconds(worker.pid)
        seen = generator.feed(lambda: committed(reader), _WINDOW, _SECONDS)
        cpu = cpu_seconds(worker.pid) - before
        sent = generator.finish()
        _counted(worker, reader, sent)
        waiting = worker.last_ledger["bus"]["spool_records"]
    (begun, first), (ended, last) = seen[0], seen[-1]
    return {
        "rate": (last - first) / (ended - begun),
        "limited_by": "generator" if sent.is_the_limit else "tieline",
        "seconds": round(ended - begun, 1),
        "messages": sent.messages,
        "lost": 0,
        "most_on_their_way": _WINDOW,
        "waiting_in_spool_at_the_end": waiting,
        "cpu_us": round(cpu / last * 1e6, 1),
        "file_system": file_system(stand.work),
    }


def _latency(stand: Stand, file: Path) -> None:
    say(f"(c) latency at {_LATENCY_RATE} messages/s, beside the disk's own fsync")
    folder = stand.folder("fsync")
    seen: list[tuple[float, int]] = []
    with Generator(file, _LATENCY_RATE) as generator:
        receiving = _receiving(stand, generator.address, away=False)
        with receiving as (worker, reader), FsyncLoop(folder) as disk:
            generator.allow(1 << 62)
            there = 0
            while there < _LATENCY_RATE * _LATENCY_SECONDS:
                now_there, now = committed(reader), time.monotonic()
                if now_there > there:
                    there = now_there
                    seen.append((now, there))
                time.sleep(0.0005)
            sent = generator.finish()
            _counted(worker, reader, sent)
        found = latencies(generator.times(), seen, _LATENCY_RATE)
    ours, theirs = p99_ms(found), p99_ms(disk.seconds)
    facts = {"p99": round(ours, 2), "p50": round(p50_ms(found), 2), "fsync_p99": round(theirs, 2)}
    facts |= {"fsync_p50": round(p50_ms(disk.seconds), 2), "fsyncs": len(disk.seconds)}
    facts |= {"messages": len(found), "rate": _LATENCY_RATE, "generator_behind_s": round(sent.behind_s, 3)}
    figure(
        "reception.latency_p99_over_fsync",
        ours - theirs,
        "ms",
        "<= 30",
        **facts,
        file_system=file_system(folder),
    )


def committed(reader: Reader) -> int:
    """How many records were ever committed to a spool."""
    bounds = reader.bounds("spool").get(_SPOOL)
    return 0 if bounds is None else bounds.end


@contextlib.contextmanager
def _receiving(stand: Stand, address: str, *, away: bool) -> Iterator[tuple[WorkerProcess, Reader]]:
    """A worker that has subscribed, and a reader of its spool."""
    folder = stand.folder("reception")
    settings = {"bootstrap.servers": f"127.0.0.1:{free_port()}"} if away else {}
    connector = {
        "name": "bus",
        "connector.class": "volttron_bus",
        "volttron.address": address,
        "platform.name": "lab",
        "bus.prefixes": "devices",
        "topic": "bus",
    }
    with WorkerProcess(folder, settings, [connector]) as worker:
        worker.wait_for("subscribed")
        with contextlib.closing(Reader(folder / "data" / "spools" / "bus-0.db")) as reader:
            yield worker, reader


def _counted(worker: WorkerProcess, reader: Reader, sent: Sent) -> None:
    """Everything that was sent is in the spool, and the worker says so too. Raises ``RuntimeError``."""
    end = time.monotonic() + 60
    while committed(reader) < sent.messages:
        if time.monotonic() > end:
            raise RuntimeError(f"{committed(reader)} of {sent.messages} messages were spooled")
        time.sleep(0.01)
    time.sleep(0.3)  # for the worker's next line of progress
    counters = worker.last_ledger["bus"]["counters"]
    lost = {name: n for name, n in counters.items() if name.startswith(("dropped", "quarantined"))}
    if lost or counters["spooled"] != sent.messages:
        raise RuntimeError(f"{sent.messages} messages were sent; the worker counts {counters}")
