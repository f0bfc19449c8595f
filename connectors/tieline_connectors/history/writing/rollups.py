"""Rollups of intervals: the first, minimum, maximum and last number in each.

A rollup is recomputed from its rows whenever one of them changes: an hour has at most twelve intervals of
five minutes, and five minutes seldom have more than a few hundred rows. So late readings, corrections and
redeliveries need no rule of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apsw

from tieline_connectors.history.database import NUMBER
from tieline_connectors.history.model.intervals import FIVE_MINUTES, MIDDLE

_READINGS = (
    f"SELECT {NUMBER}, value IS NULL FROM reading WHERE hour = ? AND series = ? AND at >= ? AND at < ?"
    " ORDER BY at"
)
_INTERVALS = (
    "SELECT minimum, coalesce(maximum, minimum), coalesce(first, minimum), coalesce(last, maximum, minimum),"
    " skipped FROM five_minutes WHERE hour = ? AND series = ? ORDER BY slot"
)
_INSERT = "INSERT OR REPLACE INTO {} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class _Rollup(NamedTuple):
    """A rollup as it is stored: without a number that equals another one."""

    minimum: float | None
    maximum: float | None
    first: float | None
    last: float | None
    skipped: int


def recompute(connection: apsw.Connection, changed: Iterable[tuple[int, int, int]]) -> None:
    """Recompute the rollups of changed rows, given as ``(hour, series, at)``."""
    slots = sorted({(hour, series, (at + MIDDLE) // FIVE_MINUTES) for hour, series, at in changed})
    connection.executemany(
        _INSERT.format("five_minutes"), [(*slot, *_of_readings(connection, *slot)) for slot in slots]
    )
    hours = sorted({(hour, series) for hour, series, _ in slots})
    connection.executemany(
        _INSERT.format("one_hour"),
        [(hour // 24, series, hour % 24, *_of_intervals(connection, hour, series)) for hour, series in hours],
    )


def _of_readings(connection: apsw.Connection, hour: int, series: int, slot: int) -> _Rollup:
    start = slot * FIVE_MINUTES - MIDDLE
    rows: list[Any] = connection.execute(_READINGS, (hour, series, start, start + FIVE_MINUTES)).fetchall()
    numbers = [number for number, _ in rows if number is not None]
    skipped = any(number is None and not is_null for number, is_null in rows)
    if not numbers:
        return _stored(None, skipped)
    return _stored((min(numbers), max(numbers), numbers[0], numbers[-1]), skipped)


def _of_intervals(connection: apsw.Connection, hour: int, series: int) -> _Rollup:
    rows: list[Any] = connection.execute(_INTERVALS, (hour, series)).fetchall()
    skipped = any(row[-1] for row in rows)
    rows = [row for row in rows if row[0] is not None]
    if not rows:
        return _stored(None, skipped)
    return _stored(
        (min(row[0] for row in rows), max(row[1] for row in rows), rows[0][2], rows[-1][3]), skipped
    )


def _stored(numbers: Sequence[float] | None, skipped: bool) -> _Rollup:
    if numbers is None:
        return _Rollup(None, None, None, None, int(skipped))
    minimum, maximum, first, last = map(float, numbers)
    return _Rollup(
        minimum,
        None if maximum == minimum else maximum,
        None if first == minimum else first,
        None if last == maximum else last,
        int(skipped),
    )
