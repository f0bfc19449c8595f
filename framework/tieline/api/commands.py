"""What the program offers a command that comes with a connector (entry points ``tieline.commands``).

@app.command()
def send(context: typer.Context, worker: Path) -> None:
    program: CommandContext = context.obj
    with program.topics(worker) as topics:
        answers = topics.reader("answers")
        topics.send([SourceRecord("questions", {"text": "why?"})])
        print(answers.poll(timeout=1.0))
"""

from __future__ import annotations

import datetime as dt
import re
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from tieline.api.record import RecordMetadata, SinkRecord, SourceRecord

_AGO = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class TopicFollower(Protocol):
    """Reads one topic in no group: nothing is committed, nobody else's reading changes. For one thread."""

    @property
    def at_end(self) -> bool:
        """All that the topic held when this reader was made was returned."""

    def poll(self, timeout: float) -> list[SinkRecord]:
        """The next records, waiting at most ``timeout`` seconds for the first.

        Each value as what it is found to be: Avro with a known schema, JSON, text, else bytes. Raises
        ``Retriable`` while the broker is away: call again.
        """


class TopicClient(Protocol):
    """A worker's topics, on Kafka or in its local log; the worker may be running beside. For one thread."""

    def names(self) -> Collection[str]:
        """The topics that are there. Raises ``Retriable``."""

    def send(self, records: Sequence[SourceRecord], timeout: float = 10.0) -> list[RecordMetadata]:
        """Write all of these; returns when they are safe. A topic that is not there yet is made.

        With a ``value_schema`` a value is Avro, without one JSON; a key is text or null. Raises
        ``DataError`` (by index; the others may have been written), ``Retriable``, ``Fatal``.
        """

    def reader(self, topic: str, since: int | None = None) -> TopicFollower:
        """Read a topic, perhaps one that is not there yet.

        ``since``, in ms: from the first record of that time or later (0: all). None: what is written
        after this returns. It is closed with the topics.
        """

    def record_id(self, at: RecordMetadata) -> str:
        """The id by which every sink knows the record there, if it carries none of its own."""


class CommandContext(Protocol):
    """``typer.Context.obj`` of every command."""

    def topics(self, worker: Path) -> AbstractContextManager[TopicClient]:
        """The topics of the worker with this file of settings. Raises ``RefuseToStart``.

        An error of tieline that leaves the context is told, without a secret, and ends the program with
        exit status 1.
        """


def parse_time(text: str, now: dt.datetime) -> dt.datetime:
    """A time as people write it: ISO 8601 (UTC where it has no zone), or so long ago: 90s, 15m, 2h, 7d.

    Raises ``ValueError`` with the forms that are known.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return now - dt.timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        found = dt.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
        return (found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)).astimezone(dt.timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time; known forms: 2026-01-31, 2026-01-31T12:00:00+01:00, 15m (ago), 2h, 7d"
        ) from None


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside, quietly. In the main thread."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
