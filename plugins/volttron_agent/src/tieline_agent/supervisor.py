"""Keeps one worker running with what the config store says."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tieline_agent.report import Report
from tieline_agent.run import Run, Ways
from tieline_agent.settings import Launch, NothingToRun, Settings, SettingsError, environment, read

log = logging.getLogger("tieline.worker")

_CHECK_SECONDS = 60.0


class Pace(NamedTuple):
    """Seconds."""

    settle: float = 0.5
    """How long the config store must be quiet until its entries are taken: it tells of each by itself."""
    backoff: float = 1.0
    """The pause before a worker that has ended by itself is started again; it doubles."""
    longest: float = 60.0
    """The longest such pause; a worker that ran as long has the first one again."""


PACE = Pace()


class Supervisor:
    """One worker, from ``run`` to ``stop``.

    1. ``configure`` is told each change of the entries. When they have been quiet for a moment they are
       written to a folder of their own and checked there by tieline itself.
    2. Good ones take the place of those before: the worker is stopped in its time, and one with the new ones
       is started. Bad ones change nothing but ``health``; after a start, the last good ones are used.
       Where there is nothing to run, the worker is stopped.
    3. A worker that ends by itself is started again, after a pause that doubles.
    4. ``stop`` stops the worker and returns when it is gone.

    ``data``: a folder of our own. ``own``: our environment, of which the worker gets little. ``changed`` is
    called after each change of ``health``.
    """

    def __init__(
        self,
        data: Path,
        own: Mapping[str, str],
        ways: Ways,
        changed: Callable[[], None] = lambda: None,
        pace: Pace = PACE,
    ) -> None:
        self._data = data
        self._own = own
        self._ways = ways
        self._changed = changed
        self._pace = pace
        self._inbox = ways.queue()
        self._gone = ways.queue()
        self._current = Launch(data / "current")
        self._settings: Settings | None = None
        self._worker: Run | None = None
        self._report = Report()
        self._refused: str | None = None
        self._entries: dict[str, Any] | None = None
        self._moments: dict[str, float] = {}
        self._pause = pace.backoff
        self._restarts = 0
        self._started_at = 0.0
        self._ended = ""
        self._stopping = False

    # Called from anywhere; return at once

    def configure(self, entries: Mapping[str, Any]) -> None:
        """All entries of the config store, as they are now."""
        self._inbox.put(("entries", dict(entries)))

    def health(self) -> tuple[str, dict[str, Any]]:
        """GOOD, STARTING or BAD, and why."""
        causes: dict[str, Any] = {}
        if self._refused:
            causes["configuration"] = self._refused
        if self._ended:
            causes["worker"] = self._ended
        if self._report.failed:
            causes["connectors"] = self._report.failed
        if causes:
            return "BAD", causes
        return ("GOOD", {}) if self._report.started else ("STARTING", {})

    def status(self) -> dict[str, Any]:
        """Everything that is known, as JSON has it."""
        running = self._worker is not None
        status, causes = self.health()
        return {
            "health": status,
            "causes": causes,
            "worker": {
                "state": "RUNNING" if running else "STOPPED",
                "pid": self._worker.pid if self._worker else None,
                "uptime_seconds": round(time.monotonic() - self._started_at, 1) if running else None,
                "restarts": self._restarts,
            },
            "connectors": self._report.connectors,
        }

    # The thread of its own

    def run(self) -> None:
        """Work until ``stop``."""
        self._data.mkdir(parents=True, exist_ok=True)
        while not self._stopping:
            self._take(self._next())
            if self._due("settle") and self._entries is not None:
                self._apply(self._entries)
            if self._due("restart"):
                self._restarts += 1
                self._start()
            self._changed()
        self._end_worker()
        self._gone.put(None)

    def stop(self, seconds: float = 15.0) -> None:
        """Stop the worker and ``run``; returns when both have ended, or after ``seconds``.

        The worker's keeper goes on without us. VOLTTRON 10 goes down with who has waited 20 s for an answer.
        """
        self._inbox.put(("stop", None))
        try:
            self._gone.get(timeout=seconds)
        except queue.Empty:
            log.warning("the worker takes longer than %g s to stop; it is left to end by itself", seconds)

    def _next(self) -> tuple[str, Any]:
        wait = min(self._moments.values(), default=None)
        try:
            event: tuple[str, Any] = self._inbox.get(
                timeout=None if wait is None else max(0.0, wait - time.monotonic())
            )
        except queue.Empty:
            return "", None
        return event

    def _due(self, what: str) -> bool:
        if self._moments.get(what, float("inf")) > time.monotonic():
            return False
        del self._moments[what]
        return True

    def _take(self, event: tuple[str, Any]) -> None:
        kind, value = event
        if kind == "stop":
            self._stopping = True
        elif kind == "entries":
            self._entries = value
            self._moments["settle"] = time.monotonic() + self._pace.settle
        elif kind == "started" and value is self._worker:
            self._ended = ""
        elif kind == "ended" and value[0] is self._worker:
            self._has_ended(f"the worker ended with status {value[1]}\n{self._report.last_words}".strip())

    def _apply(self, entries: Mapping[str, Any]) -> None:
        candidate = Launch(self._data / "candidate")
        try:
            settings = read(entries, self._data)
            if settings != self._settings or self._worker is None:
                candidate.write(settings)
                self._check(candidate, settings)
                self._replace(candidate, settings)
            self._refused = None
        except NothingToRun as error:
            self._refused = str(error)
            self._run_nothing()
        except (
            SettingsError,
            OSError,
            ValueError,
        ) as error:  # ValueError: what cannot be written or passed on
            self._refused = str(error)
            log.error("the configuration is refused, nothing is changed: %s", error)
            candidate.remove()
            if self._settings is None and (last := self._current.read()):
                log.warning("starting with the last configuration that was good")
                self._settings = last
                self._start()

    def _replace(self, candidate: Launch, settings: Settings) -> None:
        # Before the worker is stopped: where this fails, it goes on.
        candidate.replace(self._current)
        self._end_worker()
        self._settings, self._pause = settings, self._pace.backoff
        self._moments.pop("restart", None)
        self._start()

    def _run_nothing(self) -> None:
        log.warning("nothing is run: %s", self._refused)
        if self._settings is not None:  # at a start it may be the store that does not answer
            self._end_worker()
            self._current.remove()
        self._settings, self._ended, self._report = None, "", Report()
        self._moments.pop("restart", None)

    def _check(self, candidate: Launch, settings: Settings) -> None:
        check = self._launch(candidate, settings, "--check")
        lines: list[str] = []
        ended = self._ways.queue()

        def collect() -> None:
            lines.extend(check.lines())
            ended.put(check.wait())

        self._ways.spawn(collect)
        try:
            status = ended.get(timeout=_CHECK_SECONDS)
        except queue.Empty:
            check.stop()
            raise SettingsError(f"tieline run --check has not ended in {_CHECK_SECONDS:g} s") from None
        if status:
            told = candidate.told("\n".join(line for line in lines if line.strip()))
            raise SettingsError(told or f"tieline run --check ended with status {status}")

    def _launch(self, launch: Launch, settings: Settings, *options: str) -> Run:
        command = launch.command(settings, *options)
        grace = 0.0 if options else settings.grace
        return Run(self._ways, command, environment(settings, self._own), self._data, grace)

    def _start(self) -> None:
        if self._settings is None or self._stopping:
            return
        report = self._report = Report()
        self._started_at = time.monotonic()
        try:
            worker = self._launch(self._current, self._settings)
        except (OSError, ValueError) as error:
            self._has_ended(f"the worker cannot be started: {getattr(error, 'strerror', None) or error}")
            return
        self._worker = worker
        log.info("the worker runs with pid %d", worker.pid)
        self._ways.spawn(self._follow, worker, report)

    def _follow(self, worker: Run, report: Report) -> None:
        for text in worker.lines():
            before = (report.started, report.failed)
            line = report.take(text)
            log.log(line.level, "%s", line.text)
            if (report.started, report.failed) != before:
                self._inbox.put(("started" if report.started else "told", worker))
        self._inbox.put(("ended", (worker, worker.wait())))

    def _has_ended(self, why: str) -> None:
        self._worker = None
        if time.monotonic() - self._started_at >= self._pace.longest:
            self._pause = self._pace.backoff
        self._ended = why
        log.error("%s; it is started again in %g s", self._ended, self._pause)
        self._moments["restart"] = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, self._pace.longest)

    def _end_worker(self) -> None:
        """Stop the worker if it runs; returns when it is gone. What comes meanwhile is taken as usual."""
        worker = self._worker
        if worker is None:
            return
        log.info("stopping the worker")
        worker.stop()
        while True:
            kind, value = self._inbox.get()
            if kind == "ended" and value[0] is worker:
                break
            self._take((kind, value))
        self._worker = None
