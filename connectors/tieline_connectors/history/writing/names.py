"""The numbers that a file has for points and publications, cached."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from tieline_connectors.history.model.candidates import Publication
from tieline_connectors.points.questions import PointName

_MAX_CACHED = 100_000


class Newest(NamedTuple):
    """The time and publication of a point's newest value."""

    time: int
    publication: int


class Names:
    """Finds points and publications by name, and adds new ones, in the transaction of the caller.

    After a rollback call ``forget``: what was added is not stored.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._series: dict[PointName, int] = {}
        self._publications: dict[tuple[int, Publication], int] = {}
        self._newest: dict[int, Newest] = {}
        self._changed: set[int] = set()

    def forget(self) -> None:
        """Drop the cache."""
        self._series.clear()
        self._publications.clear()
        self._newest.clear()
        self._changed.clear()

    def begin(self) -> None:
        """Bound the memory of the cache, between two transactions."""
        if len(self._publications) > _MAX_CACHED:
            self.forget()

    def series(self, name: PointName) -> int | None:
        """Return the number of a point, or ``None`` if it has no row yet."""
        number = self._series.get(name)
        if number is None:
            found = self._connection.execute(
                "SELECT id, last_time, last_publication FROM series"
                " WHERE platform = ? AND device = ? AND point = ?",
                name,
            ).fetchone()
            if found is None:
                return None
            number, time, publication = found
            self._series[name] = number
            self._newest[number] = Newest(time, publication)
        return number

    def add_series(self, name: PointName, time: int) -> int:
        """Add a point whose only value has this time, in its first publication."""
        self._connection.execute(
            "INSERT INTO series (platform, device, point, last_time, last_publication)"
            " VALUES (?, ?, ?, ?, 0)",
            (*name, time),
        )
        number = self._series[name] = self._connection.last_insert_rowid()
        self._newest[number] = Newest(time, 0)
        return number

    def publication(self, series: int, publication: Publication) -> int:
        """Return the number of a point's publication; adds a new one."""
        number = self._publications.get((series, publication))
        if number is None:
            for known, *fields in self._connection.execute(
                "SELECT number, topic, units, time_source, sender FROM publication WHERE series = ?",
                (series,),
            ):
                self._publications[series, Publication(*fields)] = known
            number = self._publications.get((series, publication))
        if number is None:
            number = self._connection.execute(
                "SELECT coalesce(max(number) + 1, 0) FROM publication WHERE series = ?", (series,)
            ).get
            self._connection.execute(
                "INSERT INTO publication VALUES (?, ?, ?, ?, ?, ?)", (series, number, *publication)
            )
            self._publications[series, publication] = number
        return number

    def publication_of(self, series: int, number: int) -> Publication:
        """Return a point's publication by its number."""
        fields = self._connection.execute(
            "SELECT topic, units, time_source, sender FROM publication WHERE series = ? AND number = ?",
            (series, number),
        ).fetchone()
        assert fields is not None
        return Publication(*fields)

    def stored(self, series: int, time: int, publication: int) -> None:
        """Note that the row of a time was written."""
        newest = self._newest[series]
        if time >= newest.time and newest != (time, publication):
            self._newest[series] = Newest(time, publication)
            self._changed.add(series)

    def finish(self) -> None:
        """Write what changed, before the commit."""
        self._connection.executemany(
            "UPDATE series SET last_time = ?, last_publication = ? WHERE id = ?",
            [(*self._newest[series], series) for series in self._changed],
        )
        self._changed.clear()
