"""Answers the questions of pages and ``tieline query`` from a collection of the sink."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pymongo
from bson.codec_options import DatetimeConversion
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError

from tieline_connectors.mongo.client import CODEC, create_client, redact
from tieline_connectors.mongo.documents.rollups import (
    DAY_US,
    STATE,
    Interval,
    intervals,
    point_key,
)
from tieline_connectors.mongo.documents.samples import restored
from tieline_connectors.mongo.query import chart
from tieline_connectors.mongo.query.catalogue import (
    LAYOUTS_WITH_POINTS,
    known_point,
    layout_of,
    points_stages,
)
from tieline_connectors.mongo.query.newest import newest_first, time_of
from tieline_connectors.mongo.query.search import Document, match_stages, time_field_of
from tieline_connectors.mongo.writing.rollups import points_of, rollups_of
from tieline_connectors.points.questions import (
    Bucket,
    KnownPoint,
    PointName,
    Search,
    Series,
    StoreUnavailableError,
    Value,
)

_TIMES = CODEC.with_options(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
_BATCH = 1000
_POINTS = 5000
_NO_VALUES = Series(0, [], skipped=False)


class MongoStore:
    """A ``ReadingStore`` on one collection. ``timeout`` limits each call, in seconds.

    The layout is recognized by the newest document. Charts of long ranges need the rollups of the sink.
    Without them every document of the range is read, which takes too long in a large collection.
    """

    def __init__(self, uri: str, database: str, collection: str, timeout: float = 5.0) -> None:
        self._uri = uri
        self._timeout = timeout
        limit = max(1, int(timeout * 1000))
        connecting = {name: min(3000, limit) for name in ("serverSelectionTimeoutMS", "connectTimeoutMS")}
        self._client = create_client(uri, connecting, {"socketTimeoutMS": limit})
        self._documents = self._client[database].get_collection(collection, codec_options=_TIMES)
        self._rollups = rollups_of(self._documents)
        self._points = points_of(self._documents)
        self._newest: Document | None = None

    @property
    def name(self) -> str:
        """The store in words, without secrets."""
        servers = self._client.topology_description.server_descriptions()
        hosts = ",".join(f"{host}:{port}" for host, port in sorted(servers))
        return f"MongoDB at {hosts}, {self._documents.full_name}"

    def points(self) -> Sequence[KnownPoint]:
        """Return every point: with rollups from their list, else from all documents.

        With rollups, the newest value of a point may be up to five minutes newer than ``last_time``, and up
        to a day if an earlier version of the sink wrote it.
        """
        with self._limited():
            if self._has_rollups():
                listed = self._points.find({}, {"oldest": 0}, batch_size=_POINTS)
                return [known_point(d, d["newest"], d["newest"]["t"]) for d in listed if d["_id"] != STATE]
            layout = self._layout()
            if layout not in LAYOUTS_WITH_POINTS:
                return []
            with self._without_rollups():
                found = self._documents.aggregate(points_stages(layout), allowDiskUse=True)
                return [known_point(d["_id"], d["newest"], d["newest"]["t"]) for d in found]

    def series(self, point: PointName, start: int, end: int, intervals: int) -> Series:
        """Return a chart's buckets, which are exact also at the edges of the range.

        Rollups have everything up to the last commit of the sink. If there are rollups and a range is long,
        the newest values appear after the next commit.
        """
        with self._limited():
            layout = self._layout()
            with_rollups = self._has_rollups()
            plan = chart.plan(start, end, intervals, with_rollups)
            reduction = chart.Reduction(start, plan.width)
            if with_rollups:
                start, end = self._clip(point, start, end)
                plan = plan._replace(parts=chart.parts(start, end, plan.level))
            if layout not in LAYOUTS_WITH_POINTS or start >= end:
                return _NO_VALUES
            with contextlib.nullcontext() if with_rollups else self._without_rollups():
                if plan.level is None:
                    few = self._few_values(point, start, end, 2 * intervals + 2)
                    if few is not None:
                        return few
                self._add_rollups(reduction, plan, point)
                for part in plan.parts:
                    if part.level is None:
                        self._add_documents(reduction, plan.width, point, part)
                return Series(plan.width, reduction.buckets(), reduction.skipped)

    def _clip(self, point: PointName, start: int, end: int) -> tuple[int, int]:
        """Return the part of a range in which a point has values, to the day."""
        known = self._points.find_one({"_id": point_key(point)})
        if known is None:
            return start, start
        return max(start, known["oldest"]), min(end, (known["newest"]["t"] // DAY_US + 1) * DAY_US)

    def _few_values(self, point: PointName, start: int, end: int, limit: int) -> Series | None:
        """Return each value as a bucket, or ``None`` if there are more than ``limit``."""
        found = list(self._documents.aggregate(self._stages(point, start, end, ASCENDING, limit + 1)))
        if len(found) > limit:
            return None
        numbers: list[tuple[int, float]] = []
        skipped = False
        for document in found:
            interval = Interval()
            interval.add(document["t"], document["v"])
            skipped = skipped or interval.other
            if interval.first is not None:
                numbers.append(interval.first)
        return Series(0, [Bucket(time, *[number] * 4) for time, number in sorted(numbers)], skipped)

    def _add_rollups(self, reduction: chart.Reduction, plan: chart.ChartPlan, point: PointName) -> None:
        ids = plan.documents(point_key(point))
        for document in self._rollups.find({"_id": {"$in": ids}}, {"s": 1}) if ids else ():
            for level, start, interval in intervals(document):
                if plan.reads(level, start):
                    reduction.add(start, interval)

    def _add_documents(
        self, reduction: chart.Reduction, width: int, point: PointName, part: chart.Part
    ) -> None:
        stages = self._stages(point, part.start, part.end) + chart.reduction_stages(width)
        for start, interval in chart.reduced(self._documents.aggregate(stages), width):
            reduction.add(start, interval)

    def values(self, point: PointName, start: int, end: int, limit: int) -> Sequence[Value]:
        """Return up to ``limit`` values of a point, newest first."""

        def read(since: int | None, until: int | None, limit: int) -> Sequence[Document]:
            first, last = start if since is None else since, end if until is None else until
            stages = self._stages(point, first, last, DESCENDING, limit)
            return [{**document, "time_us": document["t"]} for document in self._documents.aggregate(stages)]

        with self._limited():
            if self._layout() not in LAYOUTS_WITH_POINTS or limit < 1 or start >= end:
                return []
            return list(map(_value, newest_first(read, start, end, limit, _now())))

    def export(self, point: PointName, start: int, end: int) -> Iterator[Value]:
        """Yield all values of a point, oldest first. The time limit holds for each batch of the server."""
        with self._limited():
            layout = self._layout()
        if layout not in LAYOUTS_WITH_POINTS or start >= end:
            return
        with self._translated():
            stages = self._stages(point, start, end, ASCENDING)
            with self._documents.aggregate(stages, batchSize=_BATCH) as cursor:
                for _, group in itertools.groupby(cursor, lambda document: document["t"] // 1000):
                    yield from map(_value, sorted(group, key=lambda document: document["t"]))

    def search(self, search: Search, limit: int, before: int | None = None) -> Sequence[dict[str, Any]]:
        """Return up to ``limit`` documents, newest first. A regular expression is evaluated by the server."""
        if problem := search.problem():
            raise ValueError(problem)

        with self._limited():
            layout, newest = self._layout(), self._newest
            if limit < 1 or newest is None:
                return []
            if not layout:
                raise StoreUnavailableError(f"{self.name}: its documents have neither time nor date")
            field = time_field_of(newest) or ""

            def read(since: int | None, until: int | None, limit: int) -> Sequence[Document]:
                stages = match_stages(search._replace(since=since, until=until), newest)
                stages.append({"$sort": {field: DESCENDING}})
                return list(self._documents.aggregate([*stages, {"$limit": limit}] if limit else stages))

            limits = [time for time in (search.until, before) if time is not None]
            found = newest_first(read, search.since, min(limits, default=None), limit, _now())
            return list(map(_answer, found))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _stages(
        self, point: PointName, start: int, end: int, order: int | None = None, limit: int = 0
    ) -> list[dict[str, Any]]:
        """Return a pipeline for the values of a point: ``t``, ``v`` and ``u``."""
        layout = self._layout()
        stages: list[dict[str, Any]] = [
            *chart.match_stages(layout, point, start, end),
            *([] if order is None else [{"$sort": {"time": order}}]),
            {"$project": chart.value_of(layout, point)},
            {"$match": {"v": {"$exists": True}}},
        ]
        return [*stages, {"$limit": limit}] if limit else stages

    def _layout(self) -> str:
        if self._newest is None:
            self._newest = self._documents.find_one({}, hint=[("$natural", DESCENDING)])
        return layout_of(self._newest)

    def _has_rollups(self) -> bool:
        state = self._points.find_one({"_id": STATE})
        return state is not None and bool(state["complete"])

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        with self._translated(), pymongo.timeout(self._timeout):
            yield

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise ``StoreUnavailableError`` for the driver's errors, without secrets of the URI."""
        try:
            yield
        except PyMongoError as error:
            reason = f"no answer within {self._timeout:g} s" if error.timeout else _short(str(error))
            raise StoreUnavailableError(redact(f"{self.name}: {reason}", self._uri)) from None

    @contextlib.contextmanager
    def _without_rollups(self) -> Iterator[None]:
        """Name the fix if reading all documents takes too long."""
        try:
            yield
        except PyMongoError as error:
            if not error.timeout:
                raise
            raise StoreUnavailableError(
                f"{self.name}: reading every document took longer than {self._timeout:g} s, and its rollups"
                " are not complete. Set rollups=true in the sink, and run `tieline mongo rollup`"
            ) from None


def _value(document: Document) -> Value:
    units = document.get("u")
    return Value(document["t"], restored(document["v"]), units if isinstance(units, str) else None)


def _answer(document: Document) -> dict[str, Any]:
    topic = document.get("topic", document.get("device_point"))
    return {**document, "topic": str(topic or ""), "time": time_of(document)}


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"


def _now() -> int:
    return time.time_ns() // 1000
