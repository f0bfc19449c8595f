"""``tieline consume``: what a topic holds, and what arrives on it, beside a running worker."""

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
    BrokerSession,
    DataDir,
    RegistryUrl,
    WorkerFile,
    open_session,
    say,
)
from tieline.cli.consuming.decoder import Decoder, DisplayRecord, ValueFormat
from tieline.cli.consuming.filters import Filter, filters, since_ms
from tieline.cli.consuming.screen import Lines, Rows, Screen, silence_stdout, stdout_closed

_BATCH = 500
_LOOK = 0.25  # how soon a reader of our output that is gone is noticed
_AGAIN = 0.5  # between two attempts while the broker is away


class View(str, enum.Enum):
    """How records look."""

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
        bool, typer.Option("--from-beginning", help="All that the topic holds, then what comes.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Records of that time or later: ISO 8601, or 15m, 2h, 7d ago.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on with what comes, or end at the end.")
    ] = True,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, max=2**31 - 1, help="Only this; may be repeated.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="A regular expression, somewhere in the key.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="field=value, or field~expression; a.b for a field inside. Repeated: all hold."),
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="name=value. Repeated: all hold.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=10**12, help="End after so many records.")] = None,
    value_format: Annotated[
        ValueFormat, typer.Option(help="What values are; auto: found out for each record.")
    ] = ValueFormat.AUTO,
    output: Annotated[
        View, typer.Option("--format", help="Rows, a line of JSON a record; auto: rows on a terminal.")
    ] = View.AUTO,
) -> None:
    """Show the records of a topic, decoded: those that come from now on, until Ctrl-C.

    Looks only: no group, nothing committed, nothing kept from anybody. Exit status: 0, also at Ctrl-C,
    SIGTERM and a closed pipe; 1 the broker is away or refuses; 2 nothing was started.
    """
    if from_beginning and since is not None:
        raise StartupError("give either --from-beginning or --since")
    start = 0 if from_beginning else None
    if since is not None:
        start = since_ms(since, dt.datetime.now(dt.timezone.utc))
    if start is None and not follow:
        raise StartupError("--no-follow shows what is there: add --from-beginning or --since")
    wanted = filters(key, where or (), header or (), start)
    is_rows = output is View.ROWS or (output is View.AUTO and sys.stdout.isatty())
    screen: Screen = Rows() if is_rows else Lines()
    place = BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)
    with open_session(place) as opened, _ended_quietly():
        _look_for(opened, topic, partition, follow)
        decoder = Decoder(value_format, opened.broker, opened.registry)
        reader = opened.broker.reader(topic, since=start, partitions=partition)
        try:
            if follow:
                say(f"following {topic} of {opened.name}; Ctrl-C ends it")
            for batch in _passing(_arriving(reader, decoder, follow), wanted, limit):
                screen.show(batch)
        finally:
            with suppress(RetriableError):  # a broker that is away keeps nobody here
                reader.close(5.0)


def _look_for(opened: BrokerSession, topic: str, partitions: Collection[int] | None, follow: bool) -> None:
    """A topic that is not there is waited for, but only by who follows. Raises ``StartupError``."""
    topics = opened.broker.topics()
    found = topics.get(topic)
    if found is None:
        near = difflib.get_close_matches(topic, topics, n=3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        if not follow:
            raise StartupError(f"{opened.name} has no topic {topic}{hint}")
        say(f"there is no topic {topic} yet{hint}; waiting for it")
    elif missing := sorted(set(partitions or ()) - set(range(found.partitions))):
        raise StartupError(
            f"{topic} has no partition {', '.join(map(str, missing))}; it has {found.partitions}, from 0 on"
        )


def _arriving(reader: TopicReader, decoder: Decoder, follow: bool) -> Iterator[list[DisplayRecord]]:
    """Batch by batch, as they come; who follows waits for a broker that is away."""
    is_away = False
    while follow or not reader.at_end:
        if stdout_closed():
            raise BrokenPipeError
        try:
            records = reader.poll(_BATCH, _LOOK)
        except RetriableError as error:
            is_away = _waited(error, follow, is_away)
            continue
        while records:
            try:
                seen = decoder.decode(records)
            except RetriableError as error:
                is_away = _waited(error, follow, is_away)
                continue
            is_away = False
            yield seen
            break


def _waited(error: RetriableError, follow: bool, is_away: bool) -> bool:
    """Raises it to who does not follow; told once."""
    if not follow:
        raise error
    if not is_away:
        say(f"waiting: {error}", error=True)
    time.sleep(_AGAIN)
    return True


def _passing(
    batches: Iterator[list[DisplayRecord]], wanted: Sequence[Filter], limit: int | None
) -> Iterator[list[DisplayRecord]]:
    """What passes every filter, so many at most."""
    left = limit
    for batch in batches:
        passed = [seen for seen in batch if all(one(seen) for one in wanted)][:left]
        if passed:
            yield passed
        if left is not None:
            left -= len(passed)
            if left <= 0:
                return


@contextmanager
def _ended_quietly() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed pipe end it, with exit status 0."""
    try:
        with until_interrupted():
            yield
    except BrokenPipeError:
        silence_stdout()
