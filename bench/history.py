"""(l) The history sink: its rate, its bytes per reading, and the chart of a year of one-second readings.

The sink gets what 20 devices publish, six points each, every second and every minute, on a real disk: in
batches as after an outage, and one reading at a time. MongoDB's sink gets the same with the layout
``point``, which has one document per value. The year of one point is written by SQLite itself, with
rollups, and then asked.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.figure import print_figure, say
from bench.readings import POINTS, records
from bench.stand import Stand
from tieline.api import SinkRecord
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.history.config import HistorySinkConfig
from tieline_connectors.history.database import FILE_NAME
from tieline_connectors.history.model.candidates import Publication
from tieline_connectors.history.model.intervals import DAY, FIVE_MINUTES, HOUR, MIDDLE, SECOND
from tieline_connectors.history.sink import HistorySinkTask
from tieline_connectors.history.store import HistoryStore
from tieline_connectors.history.writing.names import Names
from tieline_connectors.history.writing.rollups import recompute
from tieline_connectors.history.writing.writer import HistoryWriter
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.sink import MongoSinkTask
from tieline_connectors.points.questions import PointName

_READINGS = int(os.environ.get("TIELINE_BENCH_RECORDS", "300000")) // 10
_DAYS = int(os.environ.get("TIELINE_BENCH_HISTORY_DAYS", "365"))
_BATCH = 500
_SINGLE = 500
_DEVICES = 20
_INTERVALS = 1000
_POINT = PointName("lab", "campus/ahu1", "temperature")
_START = 1_735_689_600 * SECOND  # 2025-01-01


def run(stand: Stand) -> None:
    """Measure the sink, then charts."""
    say(f"(l) the history sink on {_READINGS} readings of {len(POINTS)} points")
    for name, seconds in (("minute", 60), ("second", 1)):
        _measure_sink(stand, name, list(_records(seconds)))
    batch = list(_records(1))
    with _running(stand.create_folder("history")) as task:
        _print_rate("history.sink_one_by_one", task, batch[:_SINGLE], 1)
    _measure_mongo(stand, batch)
    say(f"    a year of one-second readings: {_DAYS} days")
    _measure_charts(stand)


def _records(interval: int) -> Iterator[SinkRecord]:
    """Yield records of devices that publish every ``interval`` seconds."""
    for offset, record in enumerate(records("t", _READINGS)):
        turn, device = divmod(offset, _DEVICES)
        published = _START + turn * interval * SECOND + device
        topic = f"devices/campus/unit{device}/all"
        changes = {"topic": topic, "device": f"campus/unit{device}"}
        times = {"time": published, "received": published + 4000}
        yield SinkRecord("t", 0, offset, {**record.value, **changes, **times}, record.key, record.headers)


def _measure_sink(stand: Stand, name: str, batch: Sequence[SinkRecord]) -> None:
    folder = stand.create_folder("history")
    with _running(folder) as task:
        _print_rate(f"history.sink_every_{name}", task, batch, _BATCH)
    values = len(batch) * len(POINTS)
    size = (folder / FILE_NAME).stat().st_size
    print_figure(f"history.bytes_per_reading_every_{name}", size / values, "bytes", readings=values)


def _measure_mongo(stand: Stand, batch: Sequence[SinkRecord]) -> None:
    with stand.run_mongo("embedded") as uri:
        settings = {"connection.uri": uri, "database": "bench", "collection": "points", "layout": "point"}
        task = MongoSinkTask(RecordingSinkContext(), MongoSinkConfig.parse(settings))
        task.start()
        try:
            _print_rate("history.mongo_sink", task, batch[: len(batch) // 10], _BATCH)
        finally:
            task.stop()


def _print_rate(
    name: str, task: HistorySinkTask | MongoSinkTask, batch: Sequence[SinkRecord], size: int
) -> None:
    started, cpu = time.monotonic(), time.process_time()
    for first in range(0, len(batch), size):
        task.put(batch[first : first + size])
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    values = len(batch) * len(POINTS)
    print_figure(
        name, values / seconds, "values/s", batch=size, cpu_us_per_value=round(cpu / values * 1e6, 1)
    )


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[HistorySinkTask]:
    config = HistorySinkConfig.parse({"retention.ms": "-1", "retention.bytes": "-1"})
    task = HistorySinkTask(RecordingSinkContext(data_dir=folder), config)
    task.start()
    try:
        yield task
    finally:
        task.stop()


def _measure_charts(stand: Stand) -> None:
    path = stand.create_folder("history") / FILE_NAME
    end = _START + _DAYS * DAY
    with contextlib.closing(HistoryWriter(path)) as writer:
        _fill(writer)
    print_figure(
        "history.bytes_per_reading_in_order", path.stat().st_size / (_DAYS * 86_400), "bytes", days=_DAYS
    )
    store = HistoryStore(path, seconds=60.0)
    for name, length in (("year", _DAYS * DAY), ("month", 30 * DAY), ("week", 7 * DAY), ("day", DAY)):
        start = end - length - 12_345_678  # no interval begins at the edge of the range
        seconds, buckets = [], 0
        for _ in range(5):
            started = time.monotonic()
            buckets = len(store.series(_POINT, start, end - 12_345_678, _INTERVALS).buckets)
            seconds.append(time.monotonic() - started)
        print_figure(
            f"history.chart_of_a_{name}",
            statistics.median(seconds),
            "s",
            "<= 1",
            first=round(seconds[0], 3),
            buckets=buckets,
        )
    store.close()


def _fill(writer: HistoryWriter) -> None:
    """Write a reading per second of one point, as the sink lays them out, and their rollups."""
    connection = writer.connection
    connection.execute("PRAGMA synchronous = OFF")
    names = Names(connection)
    series = names.add_series(_POINT, _START + _DAYS * DAY - SECOND)
    names.publication(series, Publication("devices/campus/ahu1/all", "degreesCelsius", "TIMESTAMP", "driver"))
    for day in range(_DAYS):
        first = (_START + day * DAY) // HOUR
        connection.execute("BEGIN")
        connection.execute(
            "WITH RECURSIVE hours(hour) AS"
            " (SELECT ?1 UNION ALL SELECT hour + 1 FROM hours WHERE hour < ?1 + 23),"
            " seconds(second) AS (SELECT 0 UNION ALL SELECT second + 1 FROM seconds WHERE second < 3599)"
            f" INSERT INTO reading SELECT hour, ?2, second * {SECOND} - {MIDDLE},"
            " 20 + 5 * sin(hour / 24.0) + (random() & 1023) / 1024.0, 4000 + (random() & 4095), 0"
            " FROM hours CROSS JOIN seconds",
            (first, series),
        )
        slots = range(0, HOUR, FIVE_MINUTES)
        recompute(connection, [(first + hour, series, at - MIDDLE) for hour in range(24) for at in slots])
        connection.execute("COMMIT")
