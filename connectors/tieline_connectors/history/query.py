"""The readings of a history file for ``tieline query``, in the form of MongoDB's layout ``point``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from tieline_connectors.history.reading.connections import TooSlowError
from tieline_connectors.history.store import HistoryStore
from tieline_connectors.points.display import json_line, row_of_point
from tieline_connectors.points.query_command import FAILED, UNAVAILABLE, USAGE, Document
from tieline_connectors.points.questions import Search, StoreUnavailableError

_OVERLAP = 5 * 60 * 1_000_000
_MOST = 10_000
"""The most readings that one look of ``--follow`` shows."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class HistoryQuery:
    """A ``QuerySource`` on one history file. ``timeout``: how many seconds a search may take."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.place = str(path)
        self._store = HistoryStore(path, timeout)
        self._search = Search()

    @contextmanager
    def report_errors(self, console: Console) -> Iterator[None]:
        """Print errors of the file and exit."""
        try:
            yield
        except ValueError as error:
            status, text = USAGE, str(error)
        except TooSlowError as error:
            status, text = FAILED, f"{error}; or raise --timeout"
        except StoreUnavailableError as error:
            status, text = UNAVAILABLE, str(error)
        else:
            return
        console.print(Text(text, style="red"))
        raise typer.Exit(status)

    def open(self, search: Search) -> None:
        """Remember the search; the file is opened by each question."""
        if search.history is not None or search.command is not None:
            raise ValueError(
                "a history file has readings, not commands; --history and --command need MongoDB"
            )
        self._search = search

    def find(self, newest: bool, limit: int) -> Sequence[Document]:
        """Return the first matching readings."""
        return [_shown(document) for document in self._store.search(self._search, limit, newest=newest)]

    def follow(self, console: Console) -> Iterator[Sequence[Document]]:
        """Yield new readings, at most five minutes older than now or the newest. Looks every second."""
        known: set[Any] | None = None
        reported = False
        while True:
            now = time.time_ns() // 1000
            since = max(now - _OVERLAP, self._search.since or 0)
            try:
                found = self._store.search(self._search._replace(since=since), _MOST)
            except TooSlowError:
                raise
            except StoreUnavailableError as error:
                if known is None:
                    raise
                if not reported:
                    console.print(f"{error}: retrying")
                reported = True
            else:
                documents = [_shown(document) for document in reversed(found)]
                keys = {self.key(document) for document in documents}
                before = known
                known = keys
                reported = False
                yield (
                    []
                    if before is None
                    else [document for document in documents if self.key(document) not in before]
                )
            time.sleep(1)

    def key(self, document: Document) -> Any:
        """Return the reading's point, time and reception."""
        return tuple(document[name] for name in ("platform", "device", "point", "time_us", "received"))

    def json_line(self, document: Document) -> str:
        """Return the reading as a line of JSON."""
        return json_line(document)

    def row(self, document: Document) -> tuple[str, str, str]:
        """Return time, topic and content."""
        return row_of_point(document)

    def close(self) -> None:
        """Close the file."""
        self._store.close()


def _shown(document: dict[str, Any]) -> Document:
    """Return a document with the fields of MongoDB's layout ``point``, in their order."""
    time = document["time"]
    return {
        "topic": document["topic"],
        "time": _as_date(time),
        "time_us": time,
        "time_source": document["time_source"],
        "received": _as_date(document["received"]),
        **{name: document[name] for name in ("platform", "sender", "device", "point", "value", "units")},
    }


def _as_date(microseconds: int) -> datetime | int:
    """Return microseconds since 1970 as a date, or as they are if no date is so far away."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return microseconds
