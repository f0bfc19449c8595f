"""``tieline produce``: messages onto a topic, beside a running worker."""

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
    BrokerSession,
    DataDir,
    RegistryUrl,
    WorkerFile,
    open_session,
    say,
)
from tieline.cli.printable import printable
from tieline.cli.producing.messages import MAX_BYTES, InvalidLine, Message, arriving, message, messages
from tieline.cli.producing.sender import Placed, RecordBuilder, Sending

_STDIN = Path("-")
_TOLD = 50  # problems; more only fill a screen


def produce(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Lines of JSON, or old message files; none, or -: stdin.")
    ] = None,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
    schema: Annotated[
        str | None,
        typer.Option(help="volttron.DeviceReading and the like, or a file.avsc. None: plain JSON."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The key of all of them.")] = None,
    key_field: Annotated[
        str | None, typer.Option(help="The field that is the key; a.b for a field inside.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="name=value, on all; may be repeated.")] = None,
    create: Annotated[bool, typer.Option("--create", help="Make the topic if it is not there.")] = False,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--together",
            help="Send each line of stdin as it comes, or all after all are checked. Default: live at a "
            "keyboard.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds to wait for the broker to confirm.")
    ] = 30.0,
) -> None:
    """Send messages: all are checked before the first is sent, every problem is told with its line.

    Exit status: 0 all sent; 1 some were not; 2 nothing was sent, there is something to change.
    """
    if key is not None and key_field is not None:
        raise StartupError("give either --key or --key-field")
    paths = files or [_STDIN]
    is_live = live if live is not None else paths == [_STDIN] and sys.stdin.isatty()
    if is_live and paths != [_STDIN]:
        raise StartupError("--live sends what comes from stdin; files are always checked as a whole")
    shape = RecordBuilder(topic, schema, key, key_field, header or ())
    place = BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)
    with open_session(place) as opened:
        read = [] if is_live else _checked(paths, shape)
        _ensure_topic(opened, topic, create)
        sending = Sending(opened.broker.producer("tieline-produce", {}), timeout)
        sending.given = len(read)
        try:
            with until_interrupted():
                if is_live:
                    say(f"sending to {topic} of {opened.name}, a line of JSON each; Ctrl-D ends it")
                    _live(sending, shape, opened.schemas)
                sending.send(shape.framed(read, opened.schemas))
                sending.settle()
        finally:
            sending.close()
            say(f"{sending.told} to {topic} of {opened.name}")
    if sending.sent < sending.given:
        raise typer.Exit(1)


def _checked(paths: Sequence[Path], shape: RecordBuilder) -> list[Placed]:
    """All of it, read and checked. Raises ``StartupError`` with every problem."""
    good: list[Placed] = []
    wrong: list[InvalidLine] = []
    left = MAX_BYTES
    for path in paths:
        name = "" if path == _STDIN else str(path)
        try:
            data = _read(path, left + 1)
        except OSError as error:
            wrong.append(InvalidLine(str(path), f"cannot be read: {error.strerror}"))
            continue
        left -= len(data)
        if left < 0:
            way_out = "split them, or send lines by: tieline produce --live"
            raise StartupError(f"nothing was sent: more than {MAX_BYTES} bytes to check together; {way_out}")
        for found in messages(name, data):
            checked = shape.checked(found) if isinstance(found, Message) else found
            if isinstance(checked, InvalidLine):
                wrong.append(checked)
            else:
                good.append(checked)
    if wrong:
        count = "1 problem" if len(wrong) == 1 else f"{len(wrong)} problems"
        lines = [f"  - {printable(str(one))}" for one in wrong[:_TOLD]]
        lines += [f"  … and {len(wrong) - _TOLD} more"] if len(wrong) > _TOLD else []
        raise StartupError("\n".join([f"{count}, nothing was sent:", *lines]))
    return good


def _read(path: Path, limit: int) -> bytes:
    if path == _STDIN:
        return sys.stdin.buffer.read(limit)
    with path.open("rb") as file:
        return file.read(limit)


def _live(sending: Sending, shape: RecordBuilder, schemas: SchemaStore) -> None:
    """Each line as it comes; what is wrong is told and costs itself alone."""
    number = 0
    try:
        for lines in arriving(sys.stdin.fileno()):
            good: list[Placed] = []
            for line in lines:
                number += 1
                found = message(f"line {number}", line)
                if found is None:
                    continue
                sending.given += 1
                checked = shape.checked(found) if isinstance(found, Message) else found
                if isinstance(checked, InvalidLine):
                    sending.refuse(checked)
                else:
                    good.append(checked)
            sending.send(shape.framed(good, schemas))
            sending.settle()
    except ValueError as error:
        sending.given += 1
        sending.refuse(InvalidLine(f"line {number + 1}", f"{error}; what follows is not read"))


def _ensure_topic(opened: BrokerSession, topic: str, create: bool) -> None:
    topics = opened.broker.topics()
    if topic in topics:
        return
    if not create:
        near = difflib.get_close_matches(topic, topics, n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise StartupError(f"{opened.name} has no topic {topic}; {hint}--create makes it")
    opened.broker.create_topic(topic)
