"""``tieline command send`` and ``prompt``: send commands, and show their results as they come.

The exit status is defined in `wait` (results of commands) and `options` (everything else).
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
from tieline_connectors.command.cli.client import CommandClient, DraftDefaults, prepare
from tieline_connectors.command.cli.display import Screen
from tieline_connectors.command.cli.options import (
    INVALID,
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
from tieline_connectors.command.cli.parsing import CommandDraft
from tieline_connectors.command.config import parse_keys


def send(
    context: typer.Context,
    worker: WorkerFile,
    point: Annotated[str | None, typer.Argument(help="The point's full path, without devices/.")] = None,
    value: Annotated[
        str | None, typer.Argument(help='true, false, null, a number, "a text" or a text.')
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Send the commands of a file: JSON lines, or the old agents' device_point_list. -: stdin."
        ),
    ] = None,
    issuer: Issuer = None,
    reason: Annotated[str | None, typer.Option(help="The reason, for the audit log.")] = None,
    ttl: Annotated[
        str, typer.Option(help="How long until it expires, from now or from --not-before.")
    ] = "60s",
    not_before: Annotated[
        str | None, typer.Option(help="Do not execute it before: ISO 8601, or in 5m, 2h.")
    ] = None,
    hold: Annotated[str | None, typer.Option(help="Revert the point this long after the write.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=1, max=16, help="BACnet's priority, 1 is the highest.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1e300, help="How far the value that is read back may differ.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    revert: Annotated[bool, typer.Option("--revert", help="Revert the point; takes no VALUE.")] = False,
    text: Annotated[bool, typer.Option("--text", help="VALUE is a text, whatever it looks like.")] = False,
    command_id: Annotated[
        str | None, typer.Option("--id", help="Its id; an id is never executed twice. Default: a UUID.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Returned with every result.")] = None,
    sign_with: SignWith = None,
    platform: Platform = None,
    topic: CommandTopic = "commands",
    results: ResultsTopic = "command-results",
    form: FormOf = None,
    create: Create = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Send one command, or those of a file, and wait for the results.

    Exit status: 0 SUCCEEDED, 10 REJECTED, 11 EXPIRED, 12 FAILED or MISMATCH, 13 no result in time, 14
    UNKNOWN; of several commands the highest. 1 the broker is unavailable or rejects the request, 2 invalid
    options or files, 130 interrupted: a command that was sent may still be executed.
    """
    screen = Screen(as_json)
    with report_errors(screen):
        now = time.time_ns() // 1000
        if (file is None) == (point is None):
            raise ValueError("give POINT VALUE, or --file")
        due = None if not_before is None else _parse_time(not_before, now)
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
                raise ValueError(
                    "VALUE, --revert and --id cannot be combined with --file: each command has its own"
                )
            drafts = parsing.from_file(_read(file))
        else:
            assert point is not None
            drafts = [CommandDraft(_fields(point, value, revert, text) | {"command_id": command_id})]
        key = None if sign_with is None else _read_key(sign_with)
        chosen = None if form is None else form.form
        batch = []
        for number, draft in enumerate(drafts, start=1):
            try:
                defaults = DraftDefaults(common, issuer or _login(), now, expires_at, key, platform)
                batch.append(prepare(draft, topic, chosen, defaults))
            except ValueError as error:
                raise ValueError(f"command {number}: {error}" if file is not None else str(error)) from None
        command_context: CommandContext = context.obj
        with command_context.topics(worker) as topics:
            unnamed = None if _is_typed(context, "topic") else topic
            status = CommandClient(topics, results, create, screen, unnamed).deliver(batch, wait)
    raise typer.Exit(status)


def prompt(
    context: typer.Context,
    worker: WorkerFile,
    issuer: Issuer = None,
    ttl: Annotated[str, typer.Option(help="How long until a command of the new form expires.")] = "60s",
    sign_with: SignWith = None,
    platform: Platform = None,
    results: ResultsTopic = "command-results",
    form: FormOf = None,
    create: Create = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Read lines KAFKA_TOPIC DEVICE_POINT NEW_VALUE, send each, and show its results.

    They are sent in the old agents' form, unless --form says otherwise. Ctrl-C ends the wait for a result
    (the command may still be executed), Ctrl-D the prompt. Exit status: as for send, the highest of all.
    """
    screen = Screen(as_json)
    ends = [0]
    with report_errors(screen):
        lifetime = int(parsing.seconds_of(ttl, "--ttl") * 1_000_000)
        key = None if sign_with is None else _read_key(sign_with)
        chosen = None if form is None else form.form
        command_context: CommandContext = context.obj
        with command_context.topics(worker) as topics:
            client = CommandClient(topics, results, create, screen)
            for line in _lines(screen):
                try:
                    draft = parsing.old_line(line)
                    if draft is None:
                        continue
                    now = time.time_ns() // 1000
                    defaults = DraftDefaults({}, issuer or _login(), now, now + lifetime, key, platform)
                    ends.append(client.deliver([prepare(draft, "", chosen, defaults)], wait))
                except ValueError as error:
                    screen.say(str(error), "red")
                    ends.append(INVALID)
                except typer.Exit as interrupted:
                    ends.append(interrupted.exit_code)
    raise typer.Exit(max(ends))


def _is_typed(context: typer.Context, name: str) -> bool:
    """Return whether an option was typed, and not set by the environment or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _fields(point: str, value: str | None, revert: bool, text: bool) -> dict[str, Any]:
    if revert:
        if value is not None:
            raise ValueError("--revert takes no VALUE")
        return {"action": "REVERT", "writes": [{"point": point}]}
    if value is None:
        raise ValueError("VALUE is missing (or --revert)")
    return {"writes": [{"point": point, "value": value if text else parsing.value_of(value)}]}


def _parse_time(text: str, now: int) -> int:
    try:
        return now + int(parsing.seconds_of(text.removeprefix("in "), "--not-before") * 1_000_000)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"--not-before: {text!r} is not a time; known forms: 2026-01-31T12:00:00+01:00, 5m"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return round(moment.timestamp() * 1_000_000)


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(parsing.MAX_BYTES + 1)
    try:
        with file.open("rb") as opened:
            return opened.read(parsing.MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None


def _read_key(file: Path) -> bytes:
    text = _read(file).decode("ascii", "replace").strip()
    try:
        (key,) = parse_keys(text if ":" in text else f"key:{text}").values()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return key


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ValueError("the login name is unknown; use --issuer") from None


def _lines(screen: Screen) -> Iterator[str]:
    """Yield the typed lines until their end; with a prompt on a terminal."""
    if sys.stdin.isatty():
        screen.say("kafka_topic device_point new_value; Ctrl-D ends", "dim")
        while True:
            try:
                yield input("> ")
            except (EOFError, KeyboardInterrupt):
                return
    yield from sys.stdin
