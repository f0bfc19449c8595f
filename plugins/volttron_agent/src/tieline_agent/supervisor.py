"""Keeps one worker running with the settings in the config store."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tieline_agent.report import Report
from tieline_agent.run import Concurrency, Run
from tieline_agent.settings import Launch, NothingToRunError, Settings, SettingsError, environment, read

log = logging.getLogger("tieline.worker")

_CHECK_SECONDS = 60.0


class Timing(NamedTuple):
    """Waits and pauses, in seconds."""

    settle: float = 0.5
    """How long the config store must be quiet before its entries are used; it reports each one separately."""
    backoff: float = 1.0
    """The pause before a worker that has ended by itself is restarted; it doubles."""
    longest: float = 60.0
    """The longest such pause. After a worker has run this long, the first pause applies again."""


TIMING = Timing()


class Supervisor:
    """Runs one worker, from ``run`` to ``stop``.

    1. ``configure`` gets each change of the entries. After a quiet moment they are written to a separate
    folder,
       and tieline itself checks them there.
    2. Valid entries replace the earlier ones: the worker is stopped, and a new one is started. Invalid
    entries
       change only ``health``; after a start, the last valid ones are used. If there is nothing to run, the
       worker is stopped.
    3. A worker that ends by itself is restarted after a pause that doubles.
    4. ``stop`` stops the worker and waits for its end.

    ``data`` is a folder for files. ``agent_environment`` is our environment; the worker gets a few of its
    variables. ``changed`` is called after each change of ``health``.
    """

    def __init__(
        self,
        data: Path,
        agent_environment: Mapping[str, str],
        concurrency: Concurrency,
        changed: Callable[[], None] = lambda: None,
        timing: Timing = TIMING,
    ) -> None:
        self._data = data
        self._agent_environment = agent_environment
        self._concurrency = concurrency
        self._changed = changed
        self._timing = timing
        self._inbox = concurrency.queue()
        self._finished = concurrency.queue()
        self._current = Launch(data / "current")
        self._settings: Settings | None = None
        self._worker: Run | None = None
        self._report = Report()
        self._rejection: str | None = None
        self._entries: dict[str, Any] | None = None
        self._deadlines: dict[str, float] = {}
        self._pause = timing.backoff
        self._restarts = 0
        self._started_at = 0.0
        self._ended = ""
        self._stopping = False

    # Any thread may call these; they return at once

    def configure(self, entries: Mapping[str, Any]) -> None:
        """Use these entries of the config store. Returns at once; any thread may call it."""
        self._inbox.put(("entries", dict(entries)))

    def health(self) -> tuple[str, dict[str, Any]]:
        """Return GOOD, STARTING or BAD, with the causes."""
        causes: dict[str, Any] = {}
        if self._rejection:
            causes["configuration"] = self._rejection
        if self._ended:
            causes["worker"] = self._ended
        if self._report.failed:
            causes["connectors"] = self._report.failed
        if causes:
            return "BAD", causes
        return ("GOOD", {}) if self._report.started else ("STARTING", {})

    def status(self) -> dict[str, Any]:
        """Return the whole state as JSON data."""
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

    # These run in the supervisor's thread

    def run(self) -> None:
        """Run until ``stop``."""
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
        self._finished.put(None)

    def stop(self, seconds: float = 15.0) -> None:
        """Stop the worker and ``run``; return when both have ended, or after ``seconds``.

        The worker's keeper continues without us. VOLTTRON 10 crashes if a caller waits 20 s for an answer.
        """
        self._inbox.put(("stop", None))
        try:
            self._finished.get(timeout=seconds)
        except queue.Empty:
            log.warning("the worker takes longer than %g s to stop; it ends in the background", seconds)

    def _next(self) -> tuple[str, Any]:
        wait = min(self._deadlines.values(), default=None)
        try:
            event: tuple[str, Any] = self._inbox.get(
                timeout=None if wait is None else max(0.0, wait - time.monotonic())
            )
        except queue.Empty:
            return "", None
        return event

    def _due(self, what: str) -> bool:
        if self._deadlines.get(what, float("inf")) > time.monotonic():
            return False
        del self._deadlines[what]
        return True

    def _take(self, event: tuple[str, Any]) -> None:
        kind, value = event
        if kind == "stop":
            self._stopping = True
        elif kind == "entries":
            self._entries = value
            self._deadlines["settle"] = time.monotonic() + self._timing.settle
        elif kind == "started" and value is self._worker:
            self._ended = ""
        elif kind == "ended" and value[0] is self._worker:
            self._has_ended(f"the worker ended with status {value[1]}\n{self._report.last_lines}".strip())

    def _apply(self, entries: Mapping[str, Any]) -> None:
        candidate = Launch(self._data / "candidate")
        try:
            settings = read(entries, self._data)
            if settings != self._settings or self._worker is None:
                candidate.write(settings)
                self._check(candidate, settings)
                self._replace(candidate, settings)
            self._rejection = None
        except NothingToRunError as error:
            self._rejection = str(error)
            self._run_nothing()
        except (
            SettingsError,
            OSError,
            ValueError,
        ) as error:  # ValueError: text that cannot be written or passed to a program
            self._rejection = str(error)
            log.error("the configuration is rejected, nothing is changed: %s", error)
            candidate.remove()
            if self._settings is None and (last := self._current.read()):
                log.warning("starting with the last valid configuration")
                self._settings = last
                self._start()

    def _replace(self, candidate: Launch, settings: Settings) -> None:
        # Before the worker is stopped, so that it continues if this fails.
        candidate.replace(self._current)
        self._end_worker()
        self._settings, self._pause = settings, self._timing.backoff
        self._deadlines.pop("restart", None)
        self._start()

    def _run_nothing(self) -> None:
        log.warning("nothing to run: %s", self._rejection)
        if self._settings is not None:  # at the start the store may not have answered
            self._end_worker()
            self._current.remove()
        self._settings, self._ended, self._report = None, "", Report()
        self._deadlines.pop("restart", None)

    def _check(self, candidate: Launch, settings: Settings) -> None:
        check = self._launch(candidate, settings, "--check")
        lines: list[str] = []
        ended = self._concurrency.queue()

        def collect() -> None:
            lines.extend(check.lines())
            ended.put(check.wait())

        self._concurrency.spawn(collect)
        try:
            status = ended.get(timeout=_CHECK_SECONDS)
        except queue.Empty:
            check.stop()
            raise SettingsError(f"tieline run --check has not ended in {_CHECK_SECONDS:g} s") from None
        if status:
            problems = candidate.with_entry_names("\n".join(line for line in lines if line.strip()))
            raise SettingsError(problems or f"tieline run --check ended with status {status}")

    def _launch(self, launch: Launch, settings: Settings, *options: str) -> Run:
        command = launch.command(settings, *options)
        grace = 0.0 if options else settings.grace
        return Run(
            self._concurrency, command, environment(settings, self._agent_environment), self._data, grace
        )

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
        self._concurrency.spawn(self._follow, worker, report)

    def _follow(self, worker: Run, report: Report) -> None:
        for text in worker.lines():
            before = (report.started, report.failed)
            line = report.take(text)
            log.log(line.level, "%s", line.text)
            if (report.started, report.failed) != before:
                self._inbox.put(("started" if report.started else "changed", worker))
        self._inbox.put(("ended", (worker, worker.wait())))

    def _has_ended(self, reason: str) -> None:
        self._worker = None
        if time.monotonic() - self._started_at >= self._timing.longest:
            self._pause = self._timing.backoff
        self._ended = reason
        log.error("%s; it is restarted in %g s", self._ended, self._pause)
        self._deadlines["restart"] = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, self._timing.longest)

    def _end_worker(self) -> None:
        """Stop the worker if it runs, and wait for its end; handle other events meanwhile."""
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
