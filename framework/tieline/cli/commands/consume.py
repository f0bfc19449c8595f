"""``tieline consume``: print the records of a topic, beside a running worker."""

from __future__ import annotations

import datetime as dt
import difflib
import enum
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from tieline.api import RetriableError, StartupError
from tieline.api.commands import until_interrupted
from tieline.broker.port import TopicReader
from tieline.cli.connection import (
    BootstrapServers,
    BrokerOptions,
    DataDir,
    RegistryUrl,
    WorkerFile,
    open_session,
    say,
)
from tieline.cli.consuming.filters import Filter, filters, since_ms
from tieline.cli.consuming.screen import JsonLines, RecordPrinter, TableRows, silence_stdout, stdout_closed
from tieline.topics.decoder import Decoder, DisplayRecord, ValueFormat
from tieline.topics.session import BrokerSession

_BATCH = 500
_POLL_TIMEOUT = 0.25  # seconds; also how soon a closed standard output is noticed
_RETRY_AFTER = 0.5  # seconds between two attempts while the broker is unavailable


class View(str, enum.Enum):
    """How records are printed."""

    AUTO = "auto"
    ROWS = "rows"
    JSON = "json"


def consume(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start at the first record.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Only records of this time or later: ISO 8601, or 15m, 2h, 7d ago.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for new records, or stop at the end.")
    ] = True,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, max=2**31 - 1, help="Only this partition; may be repeated.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="A regular expression that the key must contain.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="field=value or field~expression; a.b names a nested field. Repeated: all must match."
        ),
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="name=value. Repeated: all must match.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=10**12, help="Stop after this many records.")
    ] = None,
    value_format: Annotated[
        ValueFormat, typer.Option(help="The format of values; auto detects it for each record.")
    ] = ValueFormat.AUTO,
    output: Annotated[
        View,
        typer.Option(
            "--format", help="Rows, or one line of JSON per record; auto prints rows on a terminal."
        ),
    ] = View.AUTO,
) -> None:
    """Print the records of a topic, decoded: by default new ones, until Ctrl-C.

    Only reads: joins no group, commits nothing and takes no record from another reader. Exit status: 0, also
    after Ctrl-C, SIGTERM or a closed pipe; 1 if the broker is unavailable or refuses; 2 if nothing was
    started.
    """
    if from_beginning and since is not None:
        raise StartupError("give either --from-beginning or --since")
    start = 0 if from_beginning else None
    if since is not None:
        start = since_ms(since, dt.datetime.now(dt.timezone.utc))
    if start is None and not follow:
        raise StartupError("--no-follow prints what the topic holds: add --from-beginning or --since")
    record_filters = filters(key, where or (), header or (), start)
    is_rows = output is View.ROWS or (output is View.AUTO and sys.stdout.isatty())
    screen: RecordPrinter = TableRows() if is_rows else JsonLines()
    options = BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)
    with open_session(options) as session, _exit_quietly():
        _check_topic(session, topic, partition, follow)
        decoder = Decoder(value_format, session.broker, session.registry)
        reader = session.broker.reader(topic, since=start, partitions=partition)
        try:
            if follow:
                say(f"following {topic} of {session.name}; Ctrl-C ends it")
            for batch in _matching(_decoded_batches(reader, decoder, follow), record_filters, limit):
                screen.show(batch)
        finally:
            with suppress(RetriableError):  # an unavailable broker must not delay the exit
                reader.close(5.0)


def _check_topic(session: BrokerSession, name: str, partitions: Collection[int] | None, follow: bool) -> None:
    """Raise ``StartupError`` for a topic or partition that does not exist. ``follow``: wait for the topic."""
    topics = session.broker.topics()
    topic = topics.get(name)
    if topic is None:
        near = difflib.get_close_matches(name, topics, n=3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        if not follow:
            raise StartupError(f"{session.name} has no topic {name}{hint}")
        say(f"there is no topic {name} yet{hint}; waiting for it")
    elif missing := sorted(set(partitions or ()) - set(range(topic.partitions))):
        numbers = ", ".join(map(str, missing))
        raise StartupError(f"{name} has no partition {numbers}; it has {topic.partitions}, from 0 on")


def _decoded_batches(reader: TopicReader, decoder: Decoder, follow: bool) -> Iterator[list[DisplayRecord]]:
    """Yield each batch as it arrives. ``follow``: wait for an unavailable broker, else raise its error."""
    waiting = False
    while follow or not reader.at_end:
        if stdout_closed():
            raise BrokenPipeError
        try:
            records = reader.poll(_BATCH, _POLL_TIMEOUT)
        except RetriableError as error:
            _wait(error, follow, waiting)
            waiting = True
            continue
        while records:
            try:
                decoded = decoder.decode(records)
            except RetriableError as error:
                _wait(error, follow, waiting)
                waiting = True
                continue
            waiting = False
            yield decoded
            break


def _wait(error: RetriableError, follow: bool, reported: bool) -> None:
    """Wait before the next attempt, and report the error once. Raise it unless ``follow``."""
    if not follow:
        raise error
    if not reported:
        say(f"waiting: {error}", error=True)
    time.sleep(_RETRY_AFTER)


def _matching(
    batches: Iterator[list[DisplayRecord]], record_filters: Sequence[Filter], limit: int | None
) -> Iterator[list[DisplayRecord]]:
    """Yield the records that pass every filter, at most ``limit`` of them."""
    left = limit
    for batch in batches:
        matching = [record for record in batch if all(passes(record) for passes in record_filters)][:left]
        if matching:
            yield matching
        if left is not None:
            left -= len(matching)
            if left <= 0:
                return


@contextmanager
def _exit_quietly() -> Iterator[None]:
    """End on Ctrl-C, SIGTERM and a closed pipe, with exit status 0."""
    try:
        with until_interrupted():
            yield
    except BrokenPipeError:
        silence_stdout()
