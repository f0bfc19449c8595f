"""Rollups of intervals: the first, minimum, maximum and last number in each.

A rollup is recomputed from its rows whenever one of them changes: an hour has at most twelve intervals of
five minutes, and five minutes seldom have more than a few hundred rows. So late readings, corrections and
redeliveries need no rule of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from tieline_connectors.history.database import NUMBER
from tieline_connectors.history.model.intervals import FIVE_MINUTES, MIDDLE

_RANGE = (
    "hour = ?1 AND series = ?2"
    f" AND at >= ?3 * {FIVE_MINUTES} - {MIDDLE} AND at < (?3 + 1) * {FIVE_MINUTES} - {MIDDLE}"
)

_COLUMNS = "minimum, nullif(maximum, minimum), nullif(first, minimum), nullif(last, maximum), skipped"

_FROM_READINGS = f"""
WITH number(at, number, skipped) AS MATERIALIZED (
    SELECT at, number, number IS NULL AND value IS NOT NULL
    FROM (SELECT at, value, {NUMBER} AS number FROM reading WHERE {_RANGE})
)
INSERT OR REPLACE INTO five_minutes
SELECT ?1, ?2, ?3, {_COLUMNS} FROM (
    SELECT CAST(min(number) AS REAL) AS minimum,
        CAST(max(number) AS REAL) AS maximum,
        (SELECT CAST(number AS REAL) FROM number WHERE number IS NOT NULL ORDER BY at LIMIT 1) AS first,
        (SELECT CAST(number AS REAL) FROM number WHERE number IS NOT NULL ORDER BY at DESC LIMIT 1) AS last,
        max(skipped) AS skipped
    FROM number
)
"""

_FROM_FIVE_MINUTES = f"""
WITH interval(slot, minimum, maximum, first, last, skipped) AS MATERIALIZED (
    SELECT slot, minimum, coalesce(maximum, minimum), coalesce(first, minimum),
        coalesce(last, maximum, minimum), skipped
    FROM five_minutes WHERE hour = ?1 AND series = ?2
)
INSERT OR REPLACE INTO one_hour
SELECT ?3, ?2, ?4, {_COLUMNS} FROM (
    SELECT min(minimum) AS minimum,
        max(maximum) AS maximum,
        (SELECT first FROM interval WHERE minimum IS NOT NULL ORDER BY slot LIMIT 1) AS first,
        (SELECT last FROM interval WHERE minimum IS NOT NULL ORDER BY slot DESC LIMIT 1) AS last,
        max(skipped) AS skipped
    FROM interval
)
"""


def recompute(connection: apsw.Connection, changed: Iterable[tuple[int, int, int]]) -> None:
    """Recompute the rollups of changed rows, given as ``(hour, series, at)``."""
    slots = {(hour, series, (at + MIDDLE) // FIVE_MINUTES) for hour, series, at in changed}
    connection.executemany(_FROM_READINGS, sorted(slots))
    hours = {(hour, series, *divmod(hour, 24)) for hour, series, _ in slots}
    connection.executemany(_FROM_FIVE_MINUTES, sorted(hours))
