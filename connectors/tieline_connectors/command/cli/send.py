"""``tieline command send`` and ``prompt``: send commands, and show what becomes of them as it comes.

Their exit status is in `watching` (what became of commands) and `options` (all else).
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from tieline.api.commands import CommandContext
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.cli.client import Completion, Sender, outgoing
from tieline_connectors.command.cli.display import Screen
from tieline_connectors.command.cli.options import (
    WRONG,
    AsJson,
    CommandTopic,
    Create,
    FormOf,
    Issuer,
    Platform,
    ResultsTopic,
    SignWith,
    Wait,
    WorkerFile,
    report_errors,
)
from tieline_connectors.command.cli.parsing import Wish
from tieline_connectors.command.config import keys_of


def send(
    context: typer.Context,
    worker: WorkerFile,
    point: Annotated[str | None, typer.Argument(help="The point's full path, without devices/.")] = None,
    value: Annotated[
        str | None, typer.Argument(help='true, false, null, a number, "a text", a text.')
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Commands of a file: JSON lines, or the old agents' device_point_list. -: stdin."),
    ] = None,
    issuer: Issuer = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the audit.")] = None,
    ttl: Annotated[str, typer.Option(help="It expires so long after now, or after --not-before.")] = "60s",
    not_before: Annotated[str | None, typer.Option(help="Not before: ISO 8601, or in 5m, 2h.")] = None,
    hold: Annotated[str | None, typer.Option(help="Give the point back so long after the write.")] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=16, help="BACnet's, 1 is the highest.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1e300, help="What reading back may differ by.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    revert: Annotated[bool, typer.Option("--revert", help="Give the point back; takes no VALUE.")] = False,
    text: Annotated[bool, typer.Option("--text", help="VALUE is a text, whatever it looks like.")] = False,
    command_id: Annotated[
        str | None, typer.Option("--id", help="Its id; the same id is never executed twice. Else: a UUID.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Given back with every result.")] = None,
    sign_with: SignWith = None,
    platform: Platform = None,
    topic: CommandTopic = "commands",
    results: ResultsTopic = "command-results",
    form: FormOf = None,
    create: Create = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Send one command, or those of a file, and wait for what becomes of it.

    Exit status: 0 SUCCEEDED, 10 REJECTED, 11 EXPIRED, 12 FAILED or MISMATCH, 13 no result in time, 14
    UNKNOWN; of several the highest. 1 the broker is away or refuses, 2 wrong options or files, 130
    interrupted: a command that was sent may still be executed.
    """
    screen = Screen(as_json)
    with report_errors(screen):
        now = time.time_ns() // 1000
        if (file is None) == (point is None):
            raise ValueError("give POINT VALUE, or --file")
        due = None if not_before is None else _moment(not_before, now)
        expires_at = (due or now) + int(parsing.seconds_of(ttl, "--ttl") * 1_000_000)
        common = {
            "issuer": issuer if _is_typed(context, "issuer") else None,
            "reason": reason,
            "not_before": due,
            "hold_ms": None if hold is None else int(parsing.seconds_of(hold, "--hold") * 1000),
            "priority": priority,
            "tolerance": tolerance,
            "dry_run": dry_run or None,
            "correlation_id": correlation_id,
        }
        if file is not None:
            if value is not None or revert or command_id is not None:
                raise ValueError("VALUE, --revert and --id do not go with --file: each command says its own")
            wishes = parsing.from_file(_read(file))
        else:
            assert point is not None
            wishes = [Wish(_written(point, value, revert, text) | {"command_id": command_id})]
        key = None if sign_with is None else _key(sign_with)
        chosen = None if form is None else form.form
        batch = []
        for number, wish in enumerate(wishes, start=1):
            try:
                complete = Completion(common, issuer or _login(), now, expires_at, key, platform)
                batch.append(outgoing(wish, topic, chosen, complete))
            except ValueError as error:
                raise ValueError(f"command {number}: {error}" if file is not None else str(error)) from None
        program: CommandContext = context.obj
        with program.topics(worker) as topics:
            unnamed = None if _is_typed(context, "topic") else topic
            status = Sender(topics, results, create, screen, unnamed).deliver(batch, wait)
    raise typer.Exit(status)


def prompt(
    context: typer.Context,
    worker: WorkerFile,
    issuer: Issuer = None,
    ttl: Annotated[str, typer.Option(help="A command of the new form expires so long after now.")] = "60s",
    sign_with: SignWith = None,
    platform: Platform = None,
    results: ResultsTopic = "command-results",
    form: FormOf = None,
    create: Create = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Read lines KAFKA_TOPIC DEVICE_POINT NEW_VALUE, send each, and show what becomes of it.

    They are sent in the old agents' form, unless --form says another. Ctrl-C ends the wait for a result
    (the command may still be executed), Ctrl-D the prompt. Exit status: as of send, the highest of all.
    """
    screen = Screen(as_json)
    ends = [0]
    with report_errors(screen):
        lifetime = int(parsing.seconds_of(ttl, "--ttl") * 1_000_000)
        key = None if sign_with is None else _key(sign_with)
        chosen = None if form is None else form.form
        program: CommandContext = context.obj
        with program.topics(worker) as topics:
            sender = Sender(topics, results, create, screen)
            for line in _lines(screen):
                try:
                    wish = parsing.old_line(line)
                    if wish is None:
                        continue
                    now = time.time_ns() // 1000
                    complete = Completion({}, issuer or _login(), now, now + lifetime, key, platform)
                    ends.append(sender.deliver([outgoing(wish, "", chosen, complete)], wait))
                except ValueError as error:
                    screen.say(str(error), "red")
                    ends.append(WRONG)
                except typer.Exit as interrupted:
                    ends.append(interrupted.exit_code)
    raise typer.Exit(max(ends))


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was given for this very command, and not once for all by the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _written(point: str, value: str | None, revert: bool, text: bool) -> dict[str, Any]:
    if revert:
        if value is not None:
            raise ValueError("--revert gives a point back and takes no VALUE")
        return {"action": "REVERT", "writes": [{"point": point}]}
    if value is None:
        raise ValueError("VALUE is missing (or --revert)")
    return {"writes": [{"point": point, "value": value if text else parsing.value_of(value)}]}


def _moment(text: str, now: int) -> int:
    try:
        return now + int(parsing.seconds_of(text.removeprefix("in "), "--not-before") * 1_000_000)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"--not-before: {text!r} is no time; known forms: 2026-01-31T12:00:00+01:00, 5m"
        ) from None
    found = found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    return round(found.timestamp() * 1_000_000)


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(parsing.MAX_BYTES + 1)
    try:
        with file.open("rb") as opened:
            return opened.read(parsing.MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None


def _key(file: Path) -> bytes:
    text = _read(file).decode("ascii", "replace").strip()
    try:
        (key,) = keys_of(text if ":" in text else f"key:{text}").values()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return key


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ValueError("who asks? give --issuer") from None


def _lines(screen: Screen) -> Iterator[str]:
    """What is typed, until its end; a prompt only where somebody is there."""
    if sys.stdin.isatty():
        screen.say("kafka_topic device_point new_value; Ctrl-D ends", "dim")
        while True:
            try:
                yield input("> ")
            except (EOFError, KeyboardInterrupt):
                return
    yield from sys.stdin
