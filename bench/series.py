"""(m) Charts from MongoDB: a point with a year of one-second readings, the list of points, the rollups' cost.

The embedded server cannot store 31.5 million documents in reasonable time. The last hour is written by the
sink, as documents with their rollups. The rollups of the rest of the year are generated directly, in the form
that the sink writes. No documents exist for them, so only ranges that end with the year are read.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.kafka_to_mongo import run_workers
from bench.stand import MongoKind, Stand
from bench.topics import create_avro_topic
from tieline.api import SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.documents.rollups import (
    DAY_US,
    HOUR_US,
    HOURS,
    LEVELS,
    STATE,
    Level,
    document_id,
    point_key,
)
from tieline_connectors.mongo.query.store import MongoStore
from tieline_connectors.mongo.sink import MongoSinkTask
from tieline_connectors.points.questions import PointName

NAME = PointName("lab", "campus/b1/ahu1", "temp")
END = 1_767_225_600_000_000
START = END - 365 * DAY_US
SECOND = 1_000_000
PIXELS = 1000
POINTS = 20_000
_RANGES = {"15 min": 900 * SECOND, "1 day": DAY_US, "1 month": 30 * DAY_US, "1 year": 365 * DAY_US}
_TURNS = 5


def run(stand: Stand) -> None:
    """Measure charts, points and the cost of rollups."""
    with stand.run_mongo("embedded") as uri:
        _year(uri)
        store = MongoStore(uri, "bench", "readings", 60.0)
        with contextlib.closing(store):
            for name, length in _RANGES.items():
                seconds, buckets = [], 0
                for _ in range(_TURNS):
                    started = time.perf_counter()
                    buckets = len(store.series(NAME, END - length, END, PIXELS).buckets)
                    seconds.append(time.perf_counter() - started)
                print_figure(
                    f"series.{name}",
                    statistics.median(seconds),
                    "s",
                    "<= 1",
                    buckets=buckets,
                    worst=max(seconds),
                )
        _points(uri)
    _cost(stand, "null", 150_000)
    _cost(stand, "embedded", 20_000)


def _year(uri: str) -> None:
    say("(m) an hour of one-second readings through the sink, and the rollups of the rest of a year")
    settings = {"connection.uri": uri, "database": "bench", "collection": "readings", "rollups": "true"}
    sink = MongoSinkTask(RecordingSinkContext(), MongoSinkConfig.parse(settings))
    sink.start()  # into an empty collection, so that its rollups are complete
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        rollups: Collection[dict[str, Any]] = client["bench"]["readings.rollup"]
        for level in LEVELS:
            _insert(rollups, _rollups(level))
        records = [_reading(END - HOUR_US + number * SECOND) for number in range(3600)]
        for first in range(0, len(records), 500):
            sink.put(records[first : first + 500])
        sink.flush({})
        sink.stop()
        client["bench"]["readings.points"].update_one({"_id": point_key(NAME)}, {"$min": {"oldest": START}})


def _value(time_us: int) -> float:
    return 20 + 5 * math.sin(time_us / DAY_US * 2 * math.pi) + time_us // SECOND % 60 / 60


def _reading(time_us: int) -> SinkRecord:
    value = {
        "platform": NAME.platform,
        "topic": f"devices/{NAME.device}/all",
        "device": NAME.device,
        "kind": "ALL",
        "sender": "platform.driver",
        "headers": {},
        "time": time_us,
        "time_source": "TIMESTAMP",
        "received": time_us,
        "points": {NAME.point: _value(time_us)},
        "metadata": {},
    }
    headers = identity("devices", time_us, digest_of=b"")
    return SinkRecord("t", 0, time_us // SECOND, value, NAME.device, headers, time_us // 1000)


def _rollups(level: Level) -> Iterator[dict[str, Any]]:
    """Yield the documents of a level for the year but its last hour, which the sink adds."""
    for start in range(START, END - HOUR_US, level.span):
        times = range(start, min(start + level.span, END - HOUR_US), level.width)
        intervals = {str(slot): _interval(time, level.width) for slot, time in enumerate(times)}
        last = {"t": times[-1] + level.width - SECOND} if level == HOURS else {}
        yield {"_id": document_id(point_key(NAME), level, start), "s": intervals, **last}


def _interval(start: int, width: int) -> dict[str, Any]:
    first, last = _value(start), _value(start + width - SECOND)
    timed = {"f": {"t": start, "v": first}, "l": {"t": start + width - SECOND, "v": last}}
    return {"n": min(first, last), "x": max(first, last) + 1, **timed}


def _insert(collection: Collection[dict[str, Any]], documents: Iterator[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = []
    for document in documents:
        batch.append(document)
        if len(batch) == 1000:
            collection.insert_many(batch, ordered=False)
            batch = []
    if batch:
        collection.insert_many(batch, ordered=False)


def _points(uri: str) -> None:
    say(f"the list of {POINTS} points")
    names = [PointName("lab", f"campus/b1/unit{number // 20}", f"p{number % 20}") for number in range(POINTS)]
    newest = {"t": END - 1, "topic": "devices/campus/b1/unit/all", "units": "C"}
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        listed = ({"_id": point_key(n), **n._asdict(), "oldest": START, "newest": newest} for n in names)
        _insert(client["bench"]["many.points"], listed)
        days = ({"_id": document_id(point_key(n), HOURS, END - 1), "t": END - 1, "s": {}} for n in names)
        _insert(client["bench"]["many.rollup"], days)
        state = {"$set": {"complete": True, "breaks": 0}}
        client["bench"]["many.points"].update_one({"_id": STATE}, state, upsert=True)
    with contextlib.closing(MongoStore(uri, "bench", "many", 120.0)) as store:
        started = time.perf_counter()
        found = len(store.points())
        print_figure("points", time.perf_counter() - started, "s", points=found)


def _cost(stand: Stand, server: MongoKind, count: int) -> None:
    say(f"{count} six-point readings of 3,000 points to the {server} server, with rollups and without")
    topic = create_avro_topic(stand, count)

    def with_setting(rollups: str) -> dict[str, float]:
        with stand.run_mongo(server) as uri:
            return run_workers(stand, topic, count, uri, {"rollups": rollups})

    runs = run_in_turns({"without": lambda: with_setting("false"), "with": lambda: with_setting("true")}, 3)
    facts: dict[str, Any] = {"records": count, **runs}
    print_figure(
        f"rollups.{server}.rate_to_without",
        ratio(runs["with"], runs["without"], "rate"),
        "ratio",
        **facts,
    )
    print_figure(f"rollups.{server}.cpu", median(runs["with"], "cpu_us"), "µs/record")
    print_figure(f"rollups.{server}.cpu_without", median(runs["without"], "cpu_us"), "µs/record")
