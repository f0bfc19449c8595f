"""The interface for commands of a connector (entry points ``tieline.commands``).

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
    """Reads one topic without a group, and so without effect on other readers. Not thread-safe."""

    @property
    def at_end(self) -> bool:
        """Whether all records that the topic had when this reader was created were returned."""

    def poll(self, timeout: float) -> list[SinkRecord]:
        """Return the next records; wait at most ``timeout`` seconds for the first.

        The format of each value is detected: Avro with a known schema, JSON, text, else bytes. Raises
        ``RetriableError`` while the broker is unavailable; call again.
        """

    def close(self) -> None:
        """Close the reader before its client closes it; may be called again."""


class TopicClient(Protocol):
    """Reads and writes a worker's topics, on Kafka or in its local log. Not thread-safe.

    The worker may be running.
    """

    def names(self) -> Collection[str]:
        """Return the names of existing topics. Raises ``RetriableError``."""

    def send(self, records: Sequence[SourceRecord], timeout: float = 10.0) -> list[RecordMetadata]:
        """Write all records and return when they are safe; creates missing topics.

        With a ``value_schema`` a value is written as Avro, without one as JSON; a key is text or null.
        Raises ``DataError`` (by index; the others may have been written), ``RetriableError``, ``FatalError``.
        """

    def reader(self, topic: str, since: int | None = None) -> TopicFollower:
        """Return a reader of a topic, which need not exist yet.

        ``since`` is in milliseconds: read from the first record of that time or later (0: all). ``None``
        means records that are written after this call. The reader is closed with this client.
        """

    def record_id(self, metadata: RecordMetadata) -> str:
        """Return the id that sinks use for the record at ``metadata``, if it has no id of its own."""


class CommandContext(Protocol):
    """The object ``typer.Context.obj`` of every command."""

    def data_dir(self, worker: Path) -> Path:
        """Return the ``data.dir`` of the worker with this settings file. Raises ``StartupError``."""

    def topics(self, worker: Path) -> AbstractContextManager[TopicClient]:
        """Open the topics of the worker with this settings file. Raises ``StartupError``.

        An error of tieline that leaves the context is printed without secrets, and ends the program with
        exit status 1.
        """


def parse_time(text: str, now: dt.datetime) -> dt.datetime:
    """Return a time in ISO 8601 (UTC if it has no zone), or a time span ago: 90s, 15m, 2h, 7d.

    Raises ``ValueError`` with the accepted forms.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return now - dt.timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        time = dt.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
        return (time if time.tzinfo else time.replace(tzinfo=dt.timezone.utc)).astimezone(dt.timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; known forms: 2026-01-31, 2026-01-31T12:00:00+01:00, 15m (ago), 2h, 7d"
        ) from None


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Leave the block quietly on Ctrl-C or SIGTERM. Call it in the main thread."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
