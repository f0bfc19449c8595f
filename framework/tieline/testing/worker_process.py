"""A real worker in a process of its own: ``tieline run``, its log followed line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from typing_extensions import Self

from tieline.testing.signals import with_default_signals

Event = dict[str, Any]


class _Run(NamedTuple):
    """A process that was started, and the thread that reads its log."""

    process: subprocess.Popen[str]
    reader: threading.Thread


class WorkerProcess:
    """Start, watch, stop or kill a worker; the same object may be started again on the same folder.

        with WorkerProcess(tmp_path, {}, [{"name": "lines", …}]) as worker:
            worker.wait_for("partitions assigned")
            worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 100)

    ``worker`` and ``connectors`` are flat maps; ``data.dir``, JSON logs and short intervals are added
    where they are not given. Its log is kept in ``folder/worker.log``.
    """

    def __init__(
        self,
        folder: Path,
        worker: Mapping[str, str],
        connectors: Sequence[Mapping[str, str]],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._environment = environment or {}
        self.events: list[Event] = []
        self.returncode: int | None = None
        self._changed = threading.Condition()
        self._run: _Run | None = None
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "data.dir": str(folder / "data"),
            "log.format": "json",
            "progress.interval.ms": "100",
            "offset.flush.interval.ms": "200",
            **worker,
        }
        self._files = [self._write("worker", settings)]
        self._files += [self._write(c["name"], c) for c in connectors]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop() if error is None else self.kill()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended yet."""
        return self._run is not None and self.returncode is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._started.process.pid

    def start(self) -> None:
        """Start it, also again after its end. Earlier events are dropped."""
        self.events, self.returncode = [], None
        process = subprocess.Popen(
            with_default_signals([sys.executable, "-m", "tieline.cli.main", "run", *map(str, self._files)]),
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
        )
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._run = _Run(process, reader)
        reader.start()

    def stop(self, timeout: float = 20.0) -> int:
        """Send SIGTERM; return the exit status."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> int:
        """Send SIGKILL; return the exit status."""
        return self._end(signal.SIGKILL, 20.0)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait until it ends by itself; return the exit status."""
        process, reader = self._started
        self.returncode = process.wait(timeout)
        reader.join()
        return self.returncode

    def wait_for(self, event: str, timeout: float = 20.0, count: int = 1) -> Event:
        """Return the ``count``-th event of this name. Raises ``TimeoutError`` with the log's end."""
        left = count

        def found(line: Event) -> Event | None:
            nonlocal left
            left -= line.get("event") == event
            return line if left == 0 else None

        return self._wait(found, 0, timeout, f"no event {event!r} (number {count})")

    def wait_for_ledger(self, condition: Callable[[Event], bool], timeout: float = 90.0) -> Event:
        """Return the first ledger from now on for which the condition holds. Raises ``TimeoutError``.

        The condition is checked once for each ledger, and may be slow: the worker's log is read meanwhile.
        """

        def found(line: Event) -> Event | None:
            ledger: Event | None = line["ledger"] if line.get("event") == "progress" else None
            return ledger if ledger is not None and condition(ledger) else None

        return self._wait(found, len(self.events), timeout, "the ledger never came to what was asked")

    @property
    def last_ledger(self) -> Event:
        """The ledger of the last progress line, or of the end."""
        ledgers = [e["ledger"] for e in self.events if "ledger" in e]
        return ledgers[-1] if ledgers else {}

    @property
    def _started(self) -> _Run:
        if self._run is None:
            raise RuntimeError("the worker is not started: call start() first")
        return self._run

    def _wait(self, match: Callable[[Event], Event | None], seen: int, timeout: float, what: str) -> Event:
        """Look at each event once, without the lock: a worker blocks while its log is not read."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                ended = self.returncode is not None  # all of its events are there then
                left = deadline - time.monotonic()
                if len(self.events) == seen and left > 0 and not ended:
                    self._changed.wait(left)
                new = self.events[seen:]
            for event in new:
                seen += 1
                if (wanted := match(event)) is not None:
                    return wanted
                if time.monotonic() > deadline:
                    break
            if (ended and not new) or time.monotonic() > deadline:
                end = f"; it ended with {self.returncode}" if ended else ""
                tail = "\n".join(json.dumps(e)[:1500] for e in self.events[-8:])
                raise TimeoutError(f"{what} within {timeout} s{end}; the log's end:\n{tail}")

    def _end(self, number: signal.Signals, timeout: float) -> int:
        self._started.process.send_signal(number)
        return self.wait(timeout)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None  # it is a pipe
        with process.stderr as stream, open(self.folder / "worker.log", "a", encoding="utf-8") as kept:
            for line in stream:
                kept.write(line)
                kept.flush()
                try:
                    event = json.loads(line)
                except ValueError:
                    event = {"event": line.rstrip(), "level": "text"}
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        code = process.wait()
        with self._changed:
            self.returncode = code
            self._changed.notify_all()

    def _write(self, name: str, settings: Mapping[str, str]) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(dict(settings)))
        return path
