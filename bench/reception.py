"""(c) Bus → spool: another process replays messages of 300 bytes; each is safe after an fsync.

A real worker receives. The number of committed messages is the end that the spool's file stores. Another
process reads it every 2 ms (every 0.5 ms for the latency), without reading a record.

There are two rates: one while Kafka is unavailable, so that the whole process receives; and one while the
pump delivers everything to the local log, which costs the same interpreter as much again.

The latency is from just before the generator's call of libzmq to the moment at which another process sees
the commit. It includes the loopback connection, and up to 0.5 ms of polling.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.disk import FsyncLoop, file_system, why_no_disk
from bench.figure import print_figure, say
from bench.latency import calculate_latencies, p50_ms, p99_ms
from bench.process import cpu_seconds
from bench.replay import Generator, Sent, write_messages
from bench.stand import Stand
from tieline.api import TopicPartition
from tieline.broker.local.reader import Reader
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.vip.frames import PROTOCOL
from tieline_lab.comparison import count_dropped
from tieline_lab.process import free_port

SIZE = 300
_SECONDS = 15.0
_WINDOW = 20_000
_MAX_RATE = 40_000  # messages per second for which the file is long enough
_LATENCY_RATE, _LATENCY_SECONDS = 1_000, 10.0
_SPOOL = TopicPartition("spool", 0)


def run(stand: Stand) -> None:
    """Measure both rates, then the latency."""
    if reason := why_no_disk(stand.work):
        print_figure("reception.rate", None, "messages/s", ">= 10000", why=reason)
        return
    messages = create_messages(int(_SECONDS * _MAX_RATE) + _WINDOW)
    file = write_messages(stand.create_folder("replay") / "messages", messages)
    for name, pumping in (("reception.rate", False), ("reception.rate_while_pumping", True)):
        say(f"(c) {SIZE}-byte messages for {_SECONDS:g} s{'' if pumping else ', Kafka unavailable'}")
        figures = measure_rate(stand, file, pumping=pumping)
        print_figure(name, figures.pop("rate"), "messages/s", ">= 10000", **figures)
    _measure_latency(stand, file)


def create_messages(count: int) -> Iterator[list[bytes]]:
    """Yield the frames of publications whose bodies have 300 bytes; each is a different event."""
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


def measure_rate(stand: Stand, file: Path, *, pumping: bool) -> dict[str, Any]:
    """Send as fast as the spool commits, at most a window ahead, and check that nothing is lost."""
    with (
        Generator(file) as generator,
        _start_receiving(stand, generator.address, pumping=pumping) as (worker, reader),
    ):
        cpu_before = cpu_seconds(worker.pid)
        arrived = generator.feed(lambda: count_committed(reader), _WINDOW, _SECONDS)
        cpu = cpu_seconds(worker.pid) - cpu_before
        sent = generator.finish()
        _check_counts(worker, reader, sent)
        waiting = worker.last_ledger["bus"]["spool_records"]
    (start, first), (end, last) = arrived[0], arrived[-1]
    return {
        "rate": (last - first) / (end - start),
        "limited_by": "generator" if sent.is_the_limit else "tieline",
        "seconds": round(end - start, 1),
        "messages": sent.messages,
        "lost": 0,
        "most_on_their_way": _WINDOW,
        "waiting_in_spool_at_the_end": waiting,
        "cpu_us": round(cpu / last * 1e6, 1),
        "file_system": file_system(stand.work),
    }


def _measure_latency(stand: Stand, file: Path) -> None:
    say(f"(c) latency at {_LATENCY_RATE} messages/s, compared with the disk's fsync")
    folder = stand.create_folder("fsync")
    arrived: list[tuple[float, int]] = []
    with Generator(file, _LATENCY_RATE) as generator:
        receiving = _start_receiving(stand, generator.address, pumping=True)
        with receiving as (worker, reader), FsyncLoop(folder) as disk:
            generator.allow(1 << 62)
            count = 0
            while count < _LATENCY_RATE * _LATENCY_SECONDS:
                committed, now = count_committed(reader), time.monotonic()
                if committed > count:
                    count = committed
                    arrived.append((now, count))
                time.sleep(0.0005)
            sent = generator.finish()
            _check_counts(worker, reader, sent)
        latencies = calculate_latencies(generator.times(), arrived, _LATENCY_RATE)
    p99, fsync_p99 = p99_ms(latencies), p99_ms(disk.seconds)
    print_figure(
        "reception.latency_p99_over_fsync",
        p99 - fsync_p99,
        "ms",
        "<= 30",
        p99=round(p99, 2),
        p50=round(p50_ms(latencies), 2),
        fsync_p99=round(fsync_p99, 2),
        fsync_p50=round(p50_ms(disk.seconds), 2),
        fsyncs=len(disk.seconds),
        messages=len(latencies),
        rate=_LATENCY_RATE,
        generator_behind_s=round(sent.behind_s, 3),
        file_system=file_system(folder),
    )


def count_committed(reader: Reader) -> int:
    """Return how many records were committed to the spool since its creation."""
    bounds = reader.bounds("spool").get(_SPOOL)
    return 0 if bounds is None else bounds.end


@contextlib.contextmanager
def _start_receiving(stand: Stand, address: str, *, pumping: bool) -> Iterator[tuple[WorkerProcess, Reader]]:
    """Start a worker; yield it and a reader of its spool as soon as it has subscribed.

    If not ``pumping``, its Kafka is unavailable, so that its records stay in the spool.
    """
    folder = stand.create_folder("reception")
    settings = {} if pumping else {"bootstrap.servers": f"127.0.0.1:{free_port()}"}
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


def _check_counts(worker: WorkerProcess, reader: Reader, sent: Sent) -> None:
    """Raise ``RuntimeError`` unless every sent message is in the spool and in the worker's counters."""
    end = time.monotonic() + 60
    while count_committed(reader) < sent.messages:
        if time.monotonic() > end:
            raise RuntimeError(f"{count_committed(reader)} of {sent.messages} messages were spooled")
        time.sleep(0.01)
    time.sleep(0.3)  # until the worker's next line of progress
    ledger = worker.last_ledger["bus"]
    if count_dropped([ledger]) or ledger["counters"]["spooled"] != sent.messages:
        raise RuntimeError(f"{sent.messages} messages were sent, but the worker counted {ledger['counters']}")
