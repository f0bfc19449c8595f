"""``tieline policy check``, ``tieline command audit verify`` and ``clock trust``; they need no worker."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tieline.api import ConfigError, ConfigProblem
from tieline_connectors.command.audit.chain import ChainHead, head_of, preceding_head
from tieline_connectors.command.audit.verification import read_head, verify_files
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.execution.clock_sources import ClockConfirmation
from tieline_connectors.command.execution.wall_clock import read_clocks
from tieline_connectors.command.model.command import Command
from tieline_connectors.command.model.facts import PolicyContext, Reading
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.policy.policy import Policy

BROKEN, INVALID, NOT_ALLOWED = 1, 2, 10
_MAX_BYTES = 16 * 1024 * 1024


def check(
    file: Annotated[Path, typer.Argument(help="The policy file: YAML, or JSON.")],
    issuer: Annotated[str | None, typer.Argument(help="Would this issuer be allowed …")] = None,
    point: Annotated[str | None, typer.Argument(help="… to write this point …")] = None,
    value: Annotated[
        str | None, typer.Argument(help="… to this value? In the form of tieline command send.")
    ] = None,
    command: Annotated[
        Path | None, typer.Option(help="A file with one command as JSON, instead of ISSUER POINT VALUE.")
    ] = None,
    revert: Annotated[bool, typer.Option("--revert", help="Revert it; takes no VALUE.")] = False,
    text: Annotated[bool, typer.Option("--text", help="VALUE is a text, whatever it looks like.")] = False,
    reason: Annotated[str | None, typer.Option(help="With this reason.")] = None,
    hold: Annotated[str | None, typer.Option(help="With this hold, such as 30m.")] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=16, help="With this priority.")] = None,
    signed_with: Annotated[list[str] | None, typer.Option(help="Signed with the key of this name.")] = None,
    reads: Annotated[str | None, typer.Option(help="While the point reads this value.")] = None,
) -> None:
    """Report all problems of a policy file, and whether it allows a command, and by which rule.

    Earlier commands (rate limits, dwell times) are not known here, and a limit of change is checked only with
    --reads.

    Exit status: 0 no problems, and allowed; 10 not allowed; 2 problems.
    """
    parsed = parse(_read(file), str(file))
    if issuer is None and command is None:
        typer.echo(f"{file}: {len(parsed.rules)} rules, no problems")
        return
    try:
        if command is not None:
            if issuer is not None:
                raise ValueError("give --command, or ISSUER POINT VALUE")
            (draft,) = parsing.from_file(_read(command).encode())
            fields: dict[str, Any] = dict(draft.value)
        else:
            fields = _fields(issuer, point, value, revert, text)
        hold_ms = None if hold is None else int(parsing.seconds_of(hold, "--hold") * 1000)
        fields |= {
            name: option
            for name, option in {"reason": reason, "hold_ms": hold_ms, "priority": priority}.items()
            if option is not None
        }
        now = time.time_ns() // 1000
        checked = parsing.check_command(parsing.complete(fields, command_id="check", issuer="", now=now))
        readings = None
        if reads is not None:
            readings = {write.point: Reading(parsing.value_of(reads)) for write in checked.writes}
    except ValueError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        raise typer.Exit(INVALID) from None
    _print_decision(
        parsed, checked, PolicyContext(now, readings=readings, signed_with=frozenset(signed_with or ()))
    )


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The audit log (audit.file). If it was moved while it was written: all its files, the"
            " oldest first."
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(
            help="Its head at some time, kept elsewhere, as NUMBER:HASH. Default: FILE.head beside the last."
        ),
    ] = None,
) -> None:
    """Check that no line of an audit log was changed, removed, added or moved, also while it is written.

    Keep the printed head where an attacker cannot change it together with the log: later --head proves that
    the lines up to it are unchanged. Only a head proves that the end is not missing. The head beside the log
    follows it within a second while the worker runs.

    Exit status: 0 it is whole, 1 it is broken (the first line is printed), 2 it cannot be read.
    """
    file = files[-1]
    try:
        known = None if head is None else _parse_head(head)
        proven_by = _readable_head(file) if known is None else known
        broken = verify_files(files, known)
        last = None if broken else _last_head(file)
        before = ChainHead() if broken else _preceding_head(files[0])
    except (OSError, ValueError) as error:
        message = f"{error.filename or file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        typer.secho(message, err=True, fg=typer.colors.RED)
        raise typer.Exit(INVALID) from None
    if broken is not None:
        where = f"{broken[0]}: line {broken[1].line}"
        typer.secho(f"{where}: {broken[1].reason}", err=True, fg=typer.colors.RED)
        raise typer.Exit(BROKEN)
    assert last is not None
    if before.seq:
        message = f"it continues another file, whose head was {before.seq}:{before.hash}"
        typer.echo(f"{files[0]}: {message}; give that file before it to check both")
    if proven_by is None:
        typer.echo(f"{file}: there is no head beside it, so a missing end cannot be detected")
    elif proven_by.seq < last.seq:
        typer.echo(f"{file}: the head proves that no line up to {proven_by.seq} is missing")
    typer.echo(f"{file}: whole, {last.seq} lines; its head is {last.seq}:{last.hash}")


def trust(
    file: Annotated[Path, typer.Argument(help="The audit log (audit.file) of the command sink.")],
) -> None:
    """Confirm that this computer's clock is right now, if a command sink waits because of CLOCK_UNTRUSTED.

    Set the clock first. Then entries that a wrong clock has written no longer block the sink: it keeps its
    ledger, and times in it that are ahead count as now. The confirmation holds until the clock is set again,
    or the computer is started again. Run it on the computer of the sink, as the worker's user.

    Exit status: 0 confirmed, 2 the file cannot be written, or the audit log does not exist.
    """
    now = read_clocks()
    try:
        if not file.is_file():
            raise ValueError(f"{file} does not exist; name the audit.file of the command sink")
        ClockConfirmation(now.boot, now.offset).write(ClockConfirmation.path_beside(file))
    except (OSError, ValueError) as error:
        message = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        typer.secho(message, err=True, fg=typer.colors.RED)
        raise typer.Exit(INVALID) from None
    time_text = datetime.fromtimestamp(now.wall / 1_000_000, timezone.utc).isoformat(timespec="seconds")
    typer.echo(f"the command sink believes this computer's clock, {time_text}, within a second")


def _fields(
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


def _print_decision(policy: Policy, command: Command, facts: PolicyContext) -> None:
    rejection = policy.rejection(command, facts)
    out = Console(highlight=False, soft_wrap=True)
    if rejection is not None:
        out.print(f"[yellow]not allowed[/yellow]  {rejection.code}: ", end="")
        out.print(rejection.reason, markup=False)
        raise typer.Exit(NOT_ALLOWED)
    for write, number in policy.deciding_rules(command):
        out.print(f"[green]allowed[/green]  by rule {number}: ", end="")
        out.print(write.point, markup=False)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ConfigError([ConfigProblem(str(file), "", f"is larger than {_MAX_BYTES} bytes")])
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError([ConfigProblem(str(file), "", f"cannot be read: {message}")]) from None


def _parse_head(text: str) -> ChainHead:
    number, _, hashed = text.partition(":")
    if not number.isdecimal() or len(hashed) != len(ChainHead().hash):
        raise ValueError("--head is NUMBER:HASH, as this command prints it")
    return ChainHead(int(number), hashed)


def _readable_head(file: Path) -> ChainHead | None:
    try:
        return read_head(file)
    except (ValueError, RecursionError):
        return None  # `verify_files` reports it


def _preceding_head(file: Path) -> ChainHead:
    """Return the head of the file that this one continues; ``ChainHead()`` if it continues none."""
    with file.open("rb") as log:
        line = log.readline()
    return preceding_head(line) if line.endswith(b"\n") else ChainHead()


def _last_head(file: Path) -> ChainHead:
    """Return the head after the last complete line."""
    last = b""
    with file.open("rb") as log:
        for line in log:
            last = line if line.endswith(b"\n") else last
    return head_of(last) if last else ChainHead()
