"""Printing dead letters and jobs: text for people, lines of JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import typer

from tieline.cli.connection import say
from tieline.dead_letters.jobs import Job
from tieline.runtime.task.clock import Clock
from tieline.topics.dead_letters.ledger import ReplayLedger
from tieline.topics.printable import json_text, printable, time_text

_CAUSE = 8
"""Characters of a fingerprint that are shown; any begin selects it."""
_EVERY = 1.0  # seconds between two lines of progress
_READ_EVERY = 5.0
_MAX_REASONS = 20


class LetterScreen(Protocol):
    """Prints what the commands find."""

    def groups(self, topic: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Print the causes of a topic."""

    def letter(self, letter: Mapping[str, Any]) -> None:
        """Print one letter."""

    def dry_run(self, shown: Mapping[str, Any]) -> None:
        """Print one record before and after."""

    def dry_run_summary(self, tried: Mapping[str, int], ledger: ReplayLedger) -> None:
        """Print what a replay would do."""

    def ledger(self, job: Job, ledger: ReplayLedger) -> None:
        """Print the ledger at the end of a replay."""

    def jobs(self, jobs: Sequence[Job]) -> None:
        """Print all jobs."""


class JsonScreen:
    """Lines of JSON on standard output."""

    def groups(self, topic: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Print a line for each cause."""
        for group in groups:
            _line(group)

    def letter(self, letter: Mapping[str, Any]) -> None:
        """Print a letter as one line."""
        _line(letter)

    def dry_run(self, shown: Mapping[str, Any]) -> None:
        """Print a record before and after as one line."""
        _line(shown)

    def dry_run_summary(self, tried: Mapping[str, int], ledger: ReplayLedger) -> None:
        """Print the summary as one line."""
        _line({"selected": ledger.selected, "tried": dict(tried), "refused": dict(ledger.refused)})

    def ledger(self, job: Job, ledger: ReplayLedger) -> None:
        """Print the ledger as one line."""
        _line({"job": job.id, "state": job.state, **ledger.counts(), "refusals": dict(ledger.refused)})

    def jobs(self, jobs: Sequence[Job]) -> None:
        """Print a line for each job."""
        for job in jobs:
            _line(_job(job))


class TextScreen:
    """Text for people on standard output, without control characters."""

    def groups(self, topic: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Print the causes, each with its example."""
        if not groups:
            _text(f"{topic}: no open dead letters")
            return
        _text(f"{topic}: {sum(group['count'] for group in groups)} dead letter(s)")
        for group in groups:
            times = f"{group['first'] or '?'} to {group['last'] or '?'}"
            names = ", ".join(group["connectors"]) or "unknown connector"
            states = group["states"]
            shown = (
                "" if set(states) == {"open"} else f" ({', '.join(f'{n} {s}' for s, n in states.items())})"
            )
            _text(f"\n{group['cause'][:_CAUSE]}  {group['count']} letter(s){shown}  {names}  {times}")
            _text(f"  for example {group['example']['letter']}: {group['text']}")

    def letter(self, letter: Mapping[str, Any]) -> None:
        """Print a letter, a line for each field."""
        for name, value in letter.items():
            if name == "headers":
                for header, content in value:
                    _text(f"{'header':>12}  {header}: {content}")
            elif name == "traceback":
                for line in str(value).splitlines():
                    _text(f"{'':>12}  {line}")
            else:
                _text(f"{name:>12}  {value if isinstance(value, str) else json_text(value)}")
        typer.echo()

    def dry_run(self, shown: Mapping[str, Any]) -> None:
        """Print a record before and after."""
        _text(f"{shown['letter']}  {shown['outcome']}")
        for name in ("before", "after"):
            if name in shown:
                _text(f"{name:>10}  {json_text(shown[name])}")
        if "failure" in shown:
            _text(f"{'because':>10}  {shown['failure']}")

    def dry_run_summary(self, tried: Mapping[str, int], ledger: ReplayLedger) -> None:
        """Print what a replay would do. The external system is not asked."""
        total = sum(tried.values())
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(tried.items()))
        _text(
            f"{ledger.selected} letter(s) would be replayed; of {total} that were tried: "
            f"{outcomes or 'none'}. Converters and transforms were run, the external system was not asked"
        )
        _refusals(ledger)

    def ledger(self, job: Job, ledger: ReplayLedger) -> None:
        """Print the ledger in one sentence, and how the job can be continued."""
        filtered = f" + {ledger.filtered} filtered" if ledger.filtered else ""
        _text(
            f"{ledger.selected} replayed = {ledger.delivered} delivered{filtered} + {ledger.again} "
            f"dead-lettered again + {ledger.remaining} remaining"
        )
        if ledger.waiting:
            _text(
                f"{ledger.waiting} of these are written and wait for their connector: is its worker running "
                "(tieline status)? The same command shows the ledger again"
            )
        if ledger.remaining > ledger.waiting:
            _text(f"the job {job.id} is {job.state}; the same command continues it")
        _refusals(ledger)

    def jobs(self, jobs: Sequence[Job]) -> None:
        """Print a line for each job."""
        if not jobs:
            _text("no jobs yet")
        for job in jobs:
            shown = _job(job)
            counts = ", ".join(f"{name} {number}" for name, number in shown["counts"].items() if number)
            reason = f"  reason: {job.reason}" if job.reason else ""
            conditions = " ".join(f"--{name} {text}" for name, text in job.asked.items())
            target = f" to {job.to_topic or job.to_connector}" if job.to_topic or job.to_connector else ""
            _text(
                f"{job.id}  {job.action} {job.letters} {conditions}{target}  {job.state}  {shown['at']}  "
                f"{job.by}  {counts}{reason}"
            )


class ReadProgress:
    """Prints to standard error how many letters were read, every few seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.now() + _READ_EVERY

    def show(self, number: int) -> None:
        """Print a line if it is time."""
        now = self._clock.now()
        if now >= self._due:
            say(f"{number} letters read")
            self._due = now + _READ_EVERY


class ReplayProgress:
    """Prints the progress of a replay to standard error, at most once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = 0.0
        self._last = ""

    def show(self, ledger: ReplayLedger, state: str) -> None:
        """Print a line if there is something new."""
        now = self._clock.now()
        line = f"{state}: {ledger.done} of {ledger.selected} written"
        if ledger.waiting:
            line += f", {ledger.waiting} wait for their connector"
        if now >= self._due and line != self._last:
            say(line)
            self._due, self._last = now + _EVERY, line


def _job(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "action": job.action,
        "topic": job.letters,
        "conditions": dict(job.asked),
        "to": job.to_topic or job.to_connector,
        "state": job.state,
        "by": job.by,
        "at": time_text(job.at),
        "updated": time_text(job.updated),
        "reason": job.reason,
        "counts": dict(job.counts),
    }


def _refusals(ledger: ReplayLedger) -> None:
    for reason, number in ledger.refused.most_common(_MAX_REASONS):
        _text(f"refused {number} letter(s): {reason}")
    if len(ledger.refused) > _MAX_REASONS:
        _text(f"… and {len(ledger.refused) - _MAX_REASONS} more reasons")


def _text(line: str) -> None:
    start = "\n" if line.startswith("\n") else ""
    typer.echo(start + printable(line.removeprefix("\n")))


def _line(fields: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write((json_text(fields) + "\n").encode())
    sys.stdout.buffer.flush()
