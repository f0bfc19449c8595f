"""What a history file knows of one record, for ``tieline trace``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing

import apsw

from tieline.api import RetriableError
from tieline.api.traces import Sighting, TraceQuestion
from tieline_connectors.history.config import HistorySinkConfig
from tieline_connectors.history.database import describe_error, open_to_read
from tieline_connectors.history.model.identity import packed
from tieline_connectors.history.model.intervals import DAY


def lookup(question: TraceQuestion) -> Iterator[Sighting]:
    """Yield the days on which the file has a record with this id. Raises ``RetriableError``, ``OSError``."""
    path = HistorySinkConfig.parse(question.settings).path(question.data_dir)
    path.stat()
    record_id = packed(question.record_id.encode())
    try:
        with closing(open_to_read(path)) as connection:
            day = connection.execute("SELECT min(day) FROM record").get
            while isinstance(day, int):  # one step for each day: ids are kept by day
                found = "SELECT 1 FROM record WHERE day = ? AND id = ?"
                if connection.execute(found, (day, record_id)).get:
                    date = dt.datetime.fromtimestamp(day * DAY / 1_000_000, dt.timezone.utc).date()
                    yield Sighting(f"the history file {path}", "stored", {"day": str(date)})
                day = connection.execute("SELECT min(day) FROM record WHERE day > ?", (day,)).get
    except apsw.Error as error:
        raise RetriableError(describe_error(error, path)) from error
