"""(n) Viewers: what 50 open pages cost a busy worker.

One worker with the sink ``history`` reads 100,000 readings from the local log, alone and with 50 viewers on
its overview, points, chart and alarms. A viewer is what a browser is to the worker: it requests a page, and
reads the live stream of the channels that the page names. All viewers are threads of this process. The CPU
time belongs to the worker alone, so that other work on the machine distorts it less than the rate. Distorted
least is the CPU time of its threads other than the sink's, of which the pages' are a part.
"""

from __future__ import annotations

import html
import re
import socket
import statistics
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.growth import RECORDS, fill_log
from bench.process import cpu_seconds_of_threads
from bench.stand import Stand, create_name, wait_until_delivered
from tieline.testing.worker_process import WorkerProcess
from tieline_lab.process import free_port

_VIEWERS = 50
_ROUNDS = 5
_LARGEST_COST = "<= 0.03"


def run(stand: Stand) -> None:
    """Measure a worker without and with viewers, in turns."""
    say(f"(n) {RECORDS} readings, alone and with {_VIEWERS} viewers")
    folder = stand.create_folder("viewers")
    topics = fill_log(folder, 1, 4)
    cases = {f"viewers.{n}": partial(_run_worker, folder, topics, n) for n in (0, _VIEWERS)}
    results = run_in_turns(cases, _ROUNDS)
    alone, watched = results["viewers.0"], results[f"viewers.{_VIEWERS}"]
    rates = {name: round(median(runs, "rate")) for name, runs in results.items()}
    cpu = {name: round(median(runs, "cpu_us"), 1) for name, runs in results.items()}
    facts = {"rounds": _ROUNDS, "records_per_s": rates, "cpu_us_a_record": cpu}
    print_figure("viewers.rate_lost", 1 - ratio(watched, alone, "rate"), "share", _LARGEST_COST, **facts)
    print_figure("viewers.cpu_added", ratio(watched, alone, "cpu_us") - 1, "share", _LARGEST_COST)
    threads = [a["other_threads"] - b["other_threads"] for a, b in zip(watched, alone, strict=True)]
    print_figure("viewers.page_threads", statistics.median(threads), "of a core", _LARGEST_COST)
    events = [each["events_a_viewer"] for each in watched]
    print_figure("viewers.events_a_second_each", sum(events) / len(events), "1/s", "<= 4.5")


def _run_worker(folder: Path, topics: list[str], viewers: int) -> dict[str, float]:
    """Run a worker with a new sink; return its rate and CPU time from its first records to its last."""
    port, name = free_port(), create_name("viewers")
    sink = {"name": name, "connector.class": "history", "topics": ",".join(topics)}
    sink["file"] = str(folder / f"{name}.db")  # an empty one: a record that is there already costs less
    with WorkerProcess(folder, {"listeners": f"http://127.0.0.1:{port}"}, [sink]) as worker:
        worker.wait_for("the pages are served")
        with _open_viewers(port, viewers) as streams:
            start = wait_until_delivered(worker, name, RECORDS // 10)
            before = [each.events for each in streams]
            threads_before = cpu_seconds_of_threads(worker.pid)
            end = wait_until_delivered(worker, name, RECORDS)
            seen = sum(each.events for each in streams) - sum(before)
            threads = [
                used - threads_before.get(thread, 0.0)
                for thread, used in cpu_seconds_of_threads(worker.pid).items()
            ]
    (first_time, first, first_cpu), (last_time, last, last_cpu) = start, end
    seconds = last_time - first_time
    return {
        "rate": (last - first) / seconds,
        "cpu_us": (last_cpu - first_cpu) / (last - first) * 1e6,
        "other_threads": (sum(threads) - max(threads)) / seconds,
        "events_a_viewer": seen / seconds / max(1, viewers),
    }


class _Viewer:
    """An open page: reads its stream until its connection is closed, and counts the events."""

    def __init__(self, base: str, page: str) -> None:
        with urllib.request.urlopen(base + page, timeout=60) as response:
            text = response.read().decode()
        channels = [html.unescape(each) for each in re.findall(r'data-channel="([^"]+)"', text)]
        self.links = [html.unescape(each) for each in re.findall(r'href="/ui(/chart\?point=[^"]+)"', text)]
        self.events = 0
        address = urlsplit(base)
        query = "&".join(f"channel={quote(each, safe='')}" for each in channels)
        self._socket = socket.create_connection((address.hostname, address.port), 60)
        self._socket.sendall(f"GET /ui/events?{query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the page."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while part := self._socket.recv(65536):
            self.events += part.count(b"\ndata: ") + part.startswith(b"data: ")


@contextmanager
def _open_viewers(port: int, count: int) -> Iterator[list[_Viewer]]:
    """Open pages in turns, and close them at the end."""
    viewers: list[_Viewer] = []
    pages = ["/", "/points", "/alarms"]
    try:
        while len(viewers) < count:
            page = pages[len(viewers) % len(pages)]
            viewers.append(_Viewer(f"http://127.0.0.1:{port}/ui", page))
            if viewers[-1].links and len(pages) == 3:
                pages.append(viewers[-1].links[0])
        yield viewers
    finally:
        for viewer in viewers:
            viewer.close()
