"""``tieline produce``: send messages to a topic, beside a running worker."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tieline.api import SchemaStore, StartupError
from tieline.api.commands import until_interrupted
from tieline.cli.connection import (
    BootstrapServers,
    BrokerOptions,
    DataDir,
    RegistryUrl,
    WorkerFile,
    open_session,
    say,
)
from tieline.cli.producing.messages import (
    MAX_BYTES,
    InputMessage,
    InvalidLine,
    arriving_lines,
    messages,
    parse_line,
)
from tieline.cli.producing.sender import LocatedRecord, RecordBuilder, RecordSender
from tieline.topics.printable import printable
from tieline.topics.session import BrokerSession

_STDIN = Path("-")
_MAX_PROBLEMS = 50  # that are printed; more only fill the screen


def produce(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Lines of JSON, or old message files. Default, and -: standard input."),
    ] = None,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
    schema: Annotated[
        str | None,
        typer.Option(
            help="A schema's name, such as volttron.DeviceReading, or a file.avsc. Default: plain JSON."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The key of every message.")] = None,
    key_field: Annotated[
        str | None, typer.Option(help="The field to use as the key; a.b names a nested field.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="name=value, for every message; may be repeated.")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Create the topic if it does not exist.")] = False,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--together",
            help="Send each line of standard input as it arrives, or all lines after all were checked. "
            "Default: live at a keyboard.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds to wait for the broker to confirm.")
    ] = 30.0,
) -> None:
    """Send messages. All are checked before the first is sent, and every problem is reported with its line.

    Exit status: 0 all sent; 1 some were not; 2 nothing was sent, because something must be changed.
    """
    if key is not None and key_field is not None:
        raise StartupError("give either --key or --key-field")
    paths = files or [_STDIN]
    is_live = live if live is not None else paths == [_STDIN] and sys.stdin.isatty()
    if is_live and paths != [_STDIN]:
        raise StartupError("--live sends lines of standard input; files are always checked as a whole")
    builder = RecordBuilder(topic, schema, key, key_field, header or ())
    options = BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)
    with open_session(options) as session:
        records = [] if is_live else _check_files(paths, builder)
        _ensure_topic(session, topic, create)
        sender = RecordSender(session.broker.producer("tieline-produce", {}), timeout)
        sender.given = len(records)
        try:
            with until_interrupted():
                if is_live:
                    say(f"sending to {topic} of {session.name}, a line of JSON each; Ctrl-D ends it")
                    _send_live(sender, builder, session.schemas)
                sender.send(builder.framed(records, session.schemas))
                sender.settle()
        finally:
            sender.close()
            say(f"{sender.summary} to {topic} of {session.name}")
    if sender.sent < sender.given:
        raise typer.Exit(1)


def _check_files(paths: Sequence[Path], builder: RecordBuilder) -> list[LocatedRecord]:
    """Return the records of all files. Raises ``StartupError`` with every problem."""
    records: list[LocatedRecord] = []
    problems: list[InvalidLine] = []
    left = MAX_BYTES
    for path in paths:
        name = "" if path == _STDIN else str(path)
        try:
            data = _read(path, left + 1)
        except OSError as error:
            problems.append(InvalidLine(str(path), f"cannot be read: {error.strerror}"))
            continue
        left -= len(data)
        if left < 0:
            fix = "split them, or send lines by: tieline produce --live"
            raise StartupError(f"nothing was sent: more than {MAX_BYTES} bytes to check together; {fix}")
        for line in messages(name, data):
            checked = builder.check(line) if isinstance(line, InputMessage) else line
            if isinstance(checked, InvalidLine):
                problems.append(checked)
            else:
                records.append(checked)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  - {printable(str(problem))}" for problem in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"  … and {len(problems) - _MAX_PROBLEMS} more")
        raise StartupError("\n".join([f"{count}, nothing was sent:", *lines]))
    return records


def _read(path: Path, limit: int) -> bytes:
    if path == _STDIN:
        return sys.stdin.buffer.read(limit)
    with path.open("rb") as file:
        return file.read(limit)


def _send_live(sender: RecordSender, builder: RecordBuilder, schemas: SchemaStore) -> None:
    """Send each line as it arrives. An invalid line is reported, and does not affect the others."""
    number = 0
    try:
        for lines in arriving_lines(sys.stdin.fileno()):
            records: list[LocatedRecord] = []
            for line in lines:
                number += 1
                parsed = parse_line(f"line {number}", line)
                if parsed is None:
                    continue
                sender.given += 1
                checked = builder.check(parsed) if isinstance(parsed, InputMessage) else parsed
                if isinstance(checked, InvalidLine):
                    sender.refuse(checked)
                else:
                    records.append(checked)
            sender.send(builder.framed(records, schemas))
            sender.settle()
    except ValueError as error:
        sender.given += 1
        sender.refuse(InvalidLine(f"line {number + 1}", f"{error}; what follows is not read"))


def _ensure_topic(session: BrokerSession, topic: str, create: bool) -> None:
    topics = session.broker.topics()
    if topic in topics:
        return
    if not create:
        near = difflib.get_close_matches(topic, topics, n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise StartupError(f"{session.name} has no topic {topic}; {hint}--create makes it")
    session.broker.create_topic(topic)
