"""``tieline lab`` runs the whole journey on this machine, live or as a test that stops by itself."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from tieline.api import FatalError, RetriableError, StartupError
from tieline_connectors.points.questions import StoreUnavailableError
from tieline_lab import kafka, mongo, volttron
from tieline_lab.cache import cache_folder
from tieline_lab.driver import DriverSettings
from tieline_lab.interruptions import Interrupted, Interruptions
from tieline_lab.process import ProcessError
from tieline_lab.readings_store import StoreKind
from tieline_lab.screen import render_connectors, render_hints, render_line, render_table
from tieline_lab.stage import Outcome, PlantedFaults, Stage, StageOptions, empty_folder, start_stage
from tieline_lab.vip import VipError

_LINE_SECONDS = 5.0


def lab(
    with_kafka: Annotated[
        bool,
        typer.Option("--kafka", help="Use a real Apache Kafka as the broker (needs java and mvn)."),
    ] = False,
    duration: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=31 * 86_400,
            help="Stop this many seconds after the first reading; no table is shown.",
        ),
    ] = None,
    store: Annotated[
        StoreKind,
        typer.Option(help="Where readings are stored: in MongoDB, or in a SQLite file of the sink history."),
    ] = StoreKind.MONGO,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="The port of the worker's pages. Default: 8083, or any if that is in use."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=200, help="The number of devices.")] = 3,
    interval: Annotated[int, typer.Option(min=1, max=3600, help="Seconds between two readings.")] = 1,
    connector: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Settings file of a further connector: a source, or a sink that reads the lab's topics. "
            "May be given several times.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder for all files of this run; emptied at the start. Default: .lab/run."),
    ] = None,
    plant_loss: Annotated[
        bool,
        typer.Option("--plant-loss", help="Delete a stored reading at the end, to see that it is noticed."),
    ] = False,
    plant_write: Annotated[
        bool,
        typer.Option(
            "--plant-write", help="Write a point without the command sink, to see that it is noticed."
        ),
    ] = False,
) -> None:
    """Run a real VOLTTRON platform, a worker and a store of readings here.

    A driver publishes readings of simulated devices. The worker carries them
    through a broker into MongoDB, or with --store history into a SQLite file,
    and commands to the devices. Its pages and a table show this until Ctrl-C,
    which stops everything and leaves nothing running.

    With --connector, connectors of your own run in the same worker; the
    readings of the bus are in the topic volttron. The first start fetches
    what it needs (VOLTTRON; with --kafka, Kafka) into .lab.

    At the end, the messages that an independent observer saw on the bus are
    compared with the stored readings, and the result of each command with
    the writes that reached the devices. With --duration the lab sends
    commands of its own, and the last line of standard output is the result as
    one JSON object.

    Exit status: 0 if nothing is missing, doubled or dropped and the number of
    readings is plausible; 1 if not, or if a server failed; 2 if this machine
    lacks a requirement.
    """
    _check_requirements(with_kafka, store)
    work = (folder or cache_folder() / "run").absolute()
    progress = _Progress()
    with Interruptions() as interruptions:
        try:
            with _lock(work):
                driver = DriverSettings(devices, interval)
                options = StageOptions(empty_folder(work), driver, with_kafka, connector or [], store, port)
                with start_stage(options, progress.say) as stage:
                    run = _Run(stage, interruptions, duration, progress)
                    good = run.to_end(PlantedFaults(plant_loss, plant_write))
        except Interrupted:
            progress.say("stopped during the start")
            good = duration is None  # with --duration a result was asked for
        except (ProcessError, VipError, StoreUnavailableError, RetriableError, FatalError) as error:
            progress.say(f"failed: {error}")
            good = False
    raise typer.Exit(0 if good else 1)


class _Progress:
    """Prints what happens to standard error, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        print(f"{self.seconds:6.1f} s  {text}", file=sys.stderr, flush=True)


class _Run:
    """A run from the first reading to the result."""

    def __init__(
        self, stage: Stage, interruptions: Interruptions, duration: float | None, progress: _Progress
    ) -> None:
        self._stage = stage
        self._interruptions = interruptions
        self._duration = duration
        self._progress = progress
        self._start_seconds = progress.seconds

    def to_end(self, planted: PlantedFaults) -> bool:
        """Show the run until its end, then print the result. Return whether the run is good."""
        self._interruptions.only_count()
        self._progress.say(f"open {self._stage.pages}")
        self._progress.say("readings arrive; Ctrl-C stops everything")
        if self._duration is None and sys.stdout.isatty():
            self._show_table()
        else:
            self._print_lines()
        outcome = self._stage.finish(lambda: self._interruptions.count > 1, planted)
        if outcome is None:
            self._progress.say("stopped without the comparison")
            return self._duration is None
        verdict = outcome.verdict
        for fault in verdict.faults:
            self._progress.say(f"fault: {fault}")
        numbers = ", ".join(f"{number} {name}" for name, number in verdict.numbers.items())
        self._progress.say(f"{numbers}: {'FAULTS were found' if verdict.faults else 'no faults'}")
        if self._duration is not None:
            print(json.dumps(self._to_json(outcome)), flush=True)
        return not verdict.faults

    def _show_table(self) -> None:
        """Show the table until the operator interrupts."""
        began = time.monotonic()
        console = Console(highlight=False)
        console.print(render_hints(self._stage))
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while self._continues:
                seconds = time.monotonic() - began
                live.update(render_table(self._stage, seconds, console.height), refresh=True)
                self._stage.collect(0.5)
        console.print(render_connectors(self._stage.worker))

    def _print_lines(self) -> None:
        """Print a line every few seconds until the duration is over or the operator interrupts."""
        began = printed = time.monotonic()
        while self._continues:
            now = time.monotonic()
            remaining = _LINE_SECONDS if self._duration is None else began + self._duration - now
            if remaining <= 0:
                break
            if now - printed >= _LINE_SECONDS:
                self._progress.say(render_line(self._stage, now - began))
                printed = now
            if self._duration is not None:
                self._stage.send_due_commands()
            self._stage.collect(min(0.25, remaining))

    @property
    def _continues(self) -> bool:
        return not self._interruptions.count and self._stage.worker.running

    def _to_json(self, outcome: Outcome) -> dict[str, object]:
        stage, driver = self._stage, self._stage.options.driver
        least, most = outcome.expected.least, outcome.expected.most
        return {
            **outcome.verdict.numbers,
            "command_to_cloud": stage.worker.ledgers.get("command-to-cloud", {}).get("delivered", 0),
            "devices": driver.devices,
            "interval": driver.interval,
            "expected": [least * driver.devices, most * driver.devices],
            "seconds": round(stage.observer.seconds, 1),
            "start_seconds": round(self._start_seconds, 1),
            "broker": stage.broker,
            "store": stage.options.store.value,
            "added": {
                name: {key: ledger[key] for key in ("state", "received", "delivered")}
                for name, ledger in stage.worker.added.items()
            },
            "faults": outcome.verdict.faults,
        }


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the folder, so that one lab at a time uses it. Raises ``StartupError``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartupError(
                f"the lab cannot start: another one uses {folder} (pid {lock.read().strip()}). "
                "Stop it, or give another --folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _check_requirements(with_kafka: bool, store: StoreKind) -> None:
    why_no_mongo = mongo.why_not() if store is StoreKind.MONGO else None
    reasons = [why_no_mongo, volttron.why_not(), kafka.why_not() if with_kafka else None]
    missing = [reason for reason in reasons if reason]
    if with_kafka and reasons[2]:
        missing.append("without --kafka, the lab uses a local log instead of Kafka")
    if missing:
        raise StartupError("the lab cannot start:\n" + "\n".join(f"- {reason}" for reason in missing))
