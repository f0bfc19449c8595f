"""``tieline lab``: the whole journey on this machine, live or as a test that stops by itself."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.live import Live
from typing_extensions import Self

from tieline.api import FatalError, RetriableError, StartupError
from tieline_lab import kafka, mongo, volttron
from tieline_lab.cache import cache_folder
from tieline_lab.commands_comparison import judge_commands
from tieline_lab.comparison import Findings, Verdict, judge
from tieline_lab.driver import DriverSettings
from tieline_lab.process import ProcessError
from tieline_lab.screen import connectors, line, picture, whereabouts
from tieline_lab.stage import Plants, Stage, fresh_folder
from tieline_lab.vip import VipError

_LINE_EVERY = 5.0


def lab(
    with_kafka: Annotated[
        bool,
        typer.Option("--kafka", help="Through a real Apache Kafka (needs java and mvn)."),
    ] = False,
    duration: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=31 * 86_400,
            help="Stop by itself so many seconds after the first reading; without a table.",
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=200, help="How many devices the driver has.")] = 3,
    interval: Annotated[int, typer.Option(min=1, max=3600, help="Seconds from reading to reading.")] = 1,
    connector: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Run this connector too (its settings file; again for more): a source of yours, or a sink "
            "that reads the lab's topics.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where this run keeps everything; emptied at the start. Default: .lab/run."),
    ] = None,
    plant_loss: Annotated[
        bool,
        typer.Option("--plant-loss", help="Delete one stored document at the end: is it noticed?"),
    ] = False,
    plant_write: Annotated[
        bool,
        typer.Option("--plant-write", help="Write a point past the command sink: is it noticed?"),
    ] = False,
) -> None:
    """See it run: a real VOLTTRON platform, a worker, a MongoDB-wire server.

    All on this machine. A driver publishes readings of devices that move; the
    worker carries them through a broker into MongoDB, and commands to the
    devices. A table shows it until Ctrl-C, which stops everything and leaves
    nothing running. Connectors of your own run beside them with --connector;
    the readings of the bus are in the topic volttron. The first start fetches
    what it needs (VOLTTRON; with --kafka, Kafka) into .lab.

    At the end all sides are compared: what an observer of its own has seen on
    the bus, and what is stored; what became of each command, and what the
    devices were written. With --duration the lab sends commands of its own,
    and the last line of standard output is the result as one JSON object.

    Exit status: 0 if nothing is missing, doubled or dropped and so many
    readings were seen as these devices should bring; 1 if not, or if a server
    failed; 2 if this machine lacks something.
    """
    _refuse_what_is_missing(with_kafka)
    work = (folder or cache_folder() / "run").absolute()
    progress = _Progress()
    with _Interruptions() as interruptions:
        try:
            with _only_one(work):
                settings = DriverSettings(devices, interval)
                stage = Stage(fresh_folder(work), settings, with_kafka, connector or [], progress.say)
                good = _run(stage, interruptions, duration, Plants(plant_loss, plant_write), progress)
        except _Interrupted:
            progress.say("stopped before it had begun")
            good = duration is None  # who asked for a result did not get one
        except (ProcessError, VipError, PyMongoError, RetriableError, FatalError) as error:
            progress.say(f"failed: {error}")
            good = False
    raise typer.Exit(0 if good else 1)


def _run(
    stage: Stage,
    interruptions: _Interruptions,
    duration: float | None,
    plants: Plants,
    progress: _Progress,
) -> bool:
    with stage:
        interruptions.begin_to_count()
        start_seconds = progress.seconds
        progress.say("readings arrive; Ctrl-C stops everything")
        if duration is None and sys.stdout.isatty():
            _show(stage, interruptions)
        else:
            _tell(stage, interruptions, duration, progress)
        findings = stage.finish(lambda: interruptions.count > 1, plants)
    if findings is None:
        progress.say("stopped at once, without the comparison")
        return duration is None
    verdict = judge(findings[0]).and_also(judge_commands(findings[1]))
    for fault in verdict.faults:
        progress.say(f"wrong: {fault}")
    numbers = ", ".join(f"{number} {name}" for name, number in verdict.numbers.items())
    progress.say(f"{numbers}: {'NOT as it should be' if verdict.faults else 'all is well'}")
    if duration is not None:
        print(json.dumps(_result(stage, findings[0], verdict, start_seconds)), flush=True)
    return not verdict.faults


def _result(stage: Stage, findings: Findings, verdict: Verdict, start_seconds: float) -> dict[str, object]:
    return {
        **verdict.numbers,
        "command_to_cloud": stage.worker.ledgers.get("command-to-cloud", {}).get("delivered", 0),
        "devices": stage.settings.devices,
        "interval": stage.settings.interval,
        "expected": [number * stage.settings.devices for number in findings.expected[1:]],
        "seconds": round(stage.observer.seconds, 1),
        "start_seconds": round(start_seconds, 1),
        "broker": stage.broker,
        "added": {
            name: {key: ledger[key] for key in ("state", "received", "delivered")}
            for name, ledger in stage.worker.added.items()
        },
        "faults": verdict.faults,
    }


def _show(stage: Stage, interruptions: _Interruptions) -> None:
    """The table, until somebody asks to stop."""
    began = time.monotonic()
    console = Console(highlight=False)
    console.print(whereabouts(stage))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not interruptions.count and stage.worker.running:
            live.update(picture(stage, time.monotonic() - began, console.height), refresh=True)
            stage.collect(0.5)
    console.print(connectors(stage.worker))


def _tell(stage: Stage, interruptions: _Interruptions, duration: float | None, progress: _Progress) -> None:
    """A line now and then, until the time is over or somebody asks to stop."""
    began = told = time.monotonic()
    while not interruptions.count and stage.worker.running:
        now = time.monotonic()
        left = _LINE_EVERY if duration is None else began + duration - now
        if left <= 0:
            break
        if now - told >= _LINE_EVERY:
            progress.say(line(stage, now - began))
            told = now
        if duration is not None:
            stage.send()
        stage.collect(min(0.25, left))


class _Progress:
    """Says what happens, on standard error, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        print(f"{self.seconds:6.1f} s  {text}", file=sys.stderr, flush=True)


class _Interrupted(BaseException):
    """A signal asked to stop while something was being fetched or started."""


class _Interruptions:
    """Counts SIGINT, SIGTERM and SIGHUP. Until ``begin_to_count`` one ends the start by an exception.

    Two within a second are one: the kernel and a shell may both tell of a closed terminal. A signal that
    is ignored when the lab begins (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last = -math.inf
        self._counting = False
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def begin_to_count(self) -> None:
        """From now on it is asked for ``count``."""
        self._counting = True

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._forget_terminals()
        now = time.monotonic()
        if now - self._last < 1.0:
            return
        self._last = now
        self.count += 1
        # Once only: a second one must not end the stopping of what was started.
        if not self._counting and self.count == 1:
            raise _Interrupted

    def _forget_terminals(self) -> None:
        """The terminal is gone: what is still said must not be an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for terminal in self._terminals:
            os.dup2(nowhere, terminal)
        os.close(nowhere)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One lab at a time in a folder. Raises ``StartupError``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartupError(
                f"a lab runs in {folder} already (pid {lock.read().strip()}); "
                "stop it, or give another --folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _refuse_what_is_missing(with_kafka: bool) -> None:
    reasons = [mongo.why_not(), volttron.why_not(), kafka.why_not() if with_kafka else None]
    missing = [reason for reason in reasons if reason]
    if with_kafka and reasons[2]:
        missing.append("without --kafka the lab takes a local log in its place")
    if missing:
        raise StartupError("the lab cannot start here:\n" + "\n".join(f"- {reason}" for reason in missing))
