"""``tieline policy check`` and ``tieline command audit verify``: asked beside a worker, or without one."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tieline.api import ConfigError, ConfigProblem
from tieline_connectors.command.audit.chain import Head, begins_after, head_of
from tieline_connectors.command.audit.file import head_beside, verify_files
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.execution.clock_sources import Word
from tieline_connectors.command.execution.wall_clock import clocks
from tieline_connectors.command.model.command import Command
from tieline_connectors.command.model.facts import Facts, Reading
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.policy.policy import Policy

BROKEN, WRONG, NOT_ALLOWED = 1, 2, 10
_MOST = 16 * 1024 * 1024


def check(
    file: Annotated[Path, typer.Argument(help="The policy file: YAML, or JSON.")],
    issuer: Annotated[str | None, typer.Argument(help="Would this issuer be allowed …")] = None,
    point: Annotated[str | None, typer.Argument(help="… to write this point …")] = None,
    value: Annotated[str | None, typer.Argument(help="… to this value? As of tieline command send.")] = None,
    command: Annotated[
        Path | None, typer.Option(help="A file with one command as JSON, instead of ISSUER POINT VALUE.")
    ] = None,
    revert: Annotated[bool, typer.Option("--revert", help="To give it back; takes no VALUE.")] = False,
    text: Annotated[bool, typer.Option("--text", help="VALUE is a text, whatever it looks like.")] = False,
    reason: Annotated[str | None, typer.Option(help="With this reason.")] = None,
    hold: Annotated[str | None, typer.Option(help="With this hold, such as 30m.")] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=16, help="With this priority.")] = None,
    signed_with: Annotated[list[str] | None, typer.Option(help="Signed with the key of this name.")] = None,
    reads: Annotated[str | None, typer.Option(help="While the point reads this value.")] = None,
) -> None:
    """Tell every problem of a policy file; and whether it would allow a command, and by which rule.

    What was done before (rate limits, dwell times) is not known here, and a limit of change is looked at
    only with --reads.

    Exit status: 0 no problems, and allowed; 10 not allowed; 2 problems.
    """
    found = parse(_read(file), str(file))
    if issuer is None and command is None:
        typer.echo(f"{file}: {len(found.rules)} rules, no problems")
        return
    try:
        if command is not None:
            if issuer is not None:
                raise ValueError("give --command, or ISSUER POINT VALUE")
            (wish,) = parsing.from_file(_read(command).encode())
            asked: dict[str, Any] = dict(wish.value)
        else:
            asked = _asked(issuer, point, value, revert, text)
        hold_ms = None if hold is None else int(parsing.seconds_of(hold, "--hold") * 1000)
        asked |= {
            name: given
            for name, given in {"reason": reason, "hold_ms": hold_ms, "priority": priority}.items()
            if given is not None
        }
        now = time.time_ns() // 1000
        complete = parsing.checked(parsing.completed(asked, command_id="check", issuer="", now=now))
        readings = None
        if reads is not None:
            readings = {write.point: Reading(parsing.value_of(reads)) for write in complete.writes}
    except ValueError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        raise typer.Exit(WRONG) from None
    _answer(found, complete, Facts(now, readings=readings, signed_with=frozenset(signed_with or ())))


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The audit log (audit.file). Of one that was moved while it was written: its files, the"
            " oldest first."
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(
            help="Its head at some time, kept elsewhere, as NUMBER:HASH. Else: FILE.head beside the last."
        ),
    ] = None,
) -> None:
    """Check that nothing in an audit log was changed, removed, added or moved; also while it is written.

    Keep what it prints where nobody can change it together with the log: later --head shows that the
    lines up to there are still the same. That the end is not missing is proved up to a head only; the one
    beside the log follows it within a second while the worker runs.

    Exit status: 0 it is whole, 1 it is broken (the first place is told), 2 it cannot be read.
    """
    file = files[-1]
    try:
        known = None if head is None else _head(head)
        proved_by = _beside(file) if known is None else known
        broken = verify_files(files, known)
        last = None if broken else _last(file)
        before = Head() if broken else _before(files[0])
    except (OSError, ValueError) as error:
        told = f"{error.filename or file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        typer.secho(told, err=True, fg=typer.colors.RED)
        raise typer.Exit(WRONG) from None
    if broken is not None:
        place = f"{broken[0]}: line {broken[1].line}"
        typer.secho(f"{place}: {broken[1].sentence}", err=True, fg=typer.colors.RED)
        raise typer.Exit(BROKEN)
    assert last is not None
    if before.seq:
        told = f"it continues another file, whose head was {before.seq}:{before.hash}"
        typer.echo(f"{files[0]}: {told}; give that file before it to check both")
    if proved_by is None:
        typer.echo(f"{file}: there is no head beside it: whether its end is missing nothing shows")
    elif proved_by.seq < last.seq:
        typer.echo(f"{file}: that nothing is missing at its end is proved up to line {proved_by.seq}")
    typer.echo(f"{file}: whole, {last.seq} lines; its head is {last.seq}:{last.hash}")


def trust(
    file: Annotated[Path, typer.Argument(help="The audit log (audit.file) of the command sink.")],
) -> None:
    """Say that this computer's clock is right now, where a command sink waits because of CLOCK_UNTRUSTED.

    Set the clock first. Then nothing that a wrong clock has written stops the sink: it keeps its ledger, and
    times in it that are ahead count as now. It holds until the clock is set again, or the computer is started
    again. Run it on the computer of the sink, as the worker's user.

    Exit status: 0 said, 2 the file cannot be written, or there is no audit log.
    """
    now = clocks()
    try:
        if not file.is_file():
            raise ValueError(f"{file}: there is no audit log; name the audit.file of the command sink")
        Word(now.boot, now.offset).write(Word.beside(file))
    except (OSError, ValueError) as error:
        told = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        typer.secho(told, err=True, fg=typer.colors.RED)
        raise typer.Exit(WRONG) from None
    shown = datetime.fromtimestamp(now.wall / 1_000_000, timezone.utc).isoformat(timespec="seconds")
    typer.echo(f"the command sink believes this computer's clock, {shown}, within a second")


def _asked(
    issuer: str | None, point: str | None, value: str | None, revert: bool, text: bool
) -> dict[str, Any]:
    if point is None or (value is None) != revert:
        raise ValueError("give ISSUER POINT VALUE, or ISSUER POINT --revert")
    if value is None:
        return {"issuer": issuer, "action": "REVERT", "writes": [{"point": point}]}
    return {
        "issuer": issuer,
        "writes": [{"point": point, "value": value if text else parsing.value_of(value)}],
    }


def _answer(policy: Policy, command: Command, facts: Facts) -> None:
    refusal = policy.refusal(command, facts)
    out = Console(highlight=False, soft_wrap=True)
    if refusal is not None:
        out.print(f"[yellow]not allowed[/yellow]  {refusal.code}: ", end="")
        out.print(refusal.sentence, markup=False)
        raise typer.Exit(NOT_ALLOWED)
    for write, number in policy.deciding(command):
        out.print(f"[green]allowed[/green]  by rule {number}: ", end="")
        out.print(write.point, markup=False)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST:
            raise ConfigError([ConfigProblem(str(file), "", f"is larger than {_MOST} bytes")])
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "is no UTF-8"
        raise ConfigError([ConfigProblem(str(file), "", f"cannot be read: {told}")]) from None


def _head(text: str) -> Head:
    number, _, hashed = text.partition(":")
    if not number.isdecimal() or len(hashed) != len(Head().hash):
        raise ValueError("--head is NUMBER:HASH, as this command prints it")
    return Head(int(number), hashed)


def _beside(file: Path) -> Head | None:
    try:
        return head_beside(file)
    except (ValueError, RecursionError):
        return None  # `verify_files` says so


def _before(file: Path) -> Head:
    """The head of the file that this one continues; ``Head()`` where it continues none."""
    with file.open("rb") as log:
        line = log.readline()
    return begins_after(line) if line.endswith(b"\n") else Head()


def _last(file: Path) -> Head:
    """The head of the last whole line."""
    last = b""
    with file.open("rb") as log:
        for line in log:
            last = line if line.endswith(b"\n") else last
    return head_of(last) if last else Head()
