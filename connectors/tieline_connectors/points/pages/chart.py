"""The chart of one or several points, and its numbers as a table and as CSV."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tieline.api.pages import (
    Download,
    JsonAnswer,
    Mark,
    Page,
    PageContext,
    PageError,
    PageRequest,
    Redirect,
    Update,
)
from tieline_connectors.points.live.table import LiveTable
from tieline_connectors.points.names import parse_point_text, point_id, point_text, set_query
from tieline_connectors.points.pages.chart_lines import changes_of, line_of
from tieline_connectors.points.pages.chart_live import with_live
from tieline_connectors.points.pages.chart_view import (
    MAX_POINTS,
    RANGES,
    ChartView,
    ViewError,
    local_text,
    parse_view,
)
from tieline_connectors.points.pages.csv_text import MEDIA_TYPE, csv_parts
from tieline_connectors.points.pages.display import shortened, value_text
from tieline_connectors.points.pages.readings import Readings
from tieline_connectors.points.questions import PointName, ReadingStore, Series, StoreUnavailableError
from tieline_connectors.points.stores import Stores

_FOLLOWED = 60.0  # seconds
_CHANGES = 1000
_SUGGESTED = 200
_ID = 16
"""The letters of a point's id. What a client sends is kept no longer than that."""
_NUMBERS = ("time", "platform", "device", "point", "unit", "first", "minimum", "maximum", "last")
_VALUES = ("time", "platform", "device", "point", "unit", "value")


class _Charted(NamedTuple):
    """A point of a chart with its numbers, or why there are none."""

    text: str
    name: PointName
    id: str
    units: str
    is_boolean: bool
    series: Series
    problem: str


class ChartPage:
    """Shows charts. Safe for many threads."""

    def __init__(self, context: PageContext, table: LiveTable, stores: Stores, readings: Readings) -> None:
        self._context = context
        self._table = table
        self._stores = stores
        self._readings = readings
        self._followed: dict[str, float] = {}
        self._lock = threading.Lock()

    def show(self, request: PageRequest) -> Page | Redirect:
        """Show the chart of an address, or with ``view=table`` its numbers."""
        view = self._view(request)
        zone = ZoneInfo(request.time_zone)
        names = [(text, self._name(text)) for text in view.points]
        if view.is_live:  # what the store does not have yet when the chart asks it
            self._follow([point_id(name) for _, name in names])
        is_table = request.query.get("view") == "table"
        charted = [self._read(text, name, view) for text, name in names] if is_table else []
        values = {
            "view": view,
            "is_table": is_table,
            "rows": [self._row(view, text, name, request) for text, name in names],
            "ranges": [
                (label, view.query(**{"from": span, "to": ""}), span == view.span) for span, label in RANGES
            ],
            "moves": [(label, moved.query()) for label, moved in view.moves().items()],
            "from_local": local_text(view.start, zone),
            "to_local": "" if view.is_live else local_text(view.end, zone),
            "here": view.query(),
            "tables": [self._numbers(each) for each in charted],
            "marks": self._marks([name for _, name in names], view) if is_table else (),
            "changes": [self._changes_of(name, view) for _, name in names] if is_table else (),
            "channel": "points?ids=" + ",".join(point_id(name) for _, name in names),
            "suggested": self._suggested([name for _, name in names]),
            "may_add": len(view.points) < MAX_POINTS,
            "has_stores": bool(self._stores.all),
            "now_ms": time.time() * 1000,
        }
        title = ", ".join(shortened(name.point, 40) for _, name in names) or "Chart"
        return Page("chart.html", title, values)

    def data(self, request: PageRequest) -> JsonAnswer:
        """Return what the script draws."""
        view = self._view(request)
        if view.is_live:
            self._follow([point_id(self._name(text)) for text in view.points])
        series = []
        for text in view.points:
            each = self._read(text, self._name(text), view)
            line = line_of(each.series)
            series.append(
                {
                    "id": each.id,
                    "label": shortened(each.name.point, 60) or "(no name)",
                    "unit": each.units,
                    "stepped": each.is_boolean,
                    "gap": line.gap,
                    "band": each.series.width > 0,
                    "x": line.times,
                    "y": line.values,
                    "low": line.low,
                    "high": line.high,
                    "skipped": each.series.skipped,
                    "problem": each.problem,
                }
            )
        return JsonAnswer(
            {
                "start": view.start / 1_000_000,
                "end": view.end / 1_000_000,
                "live": view.is_live,
                "channel": "chart?ids=" + ",".join(str(each["id"]) for each in series),
                "series": series,
            }
        )

    def marks(self, request: PageRequest) -> JsonAnswer:
        """Return the commands in the range, for the script."""
        view = self._view(request)
        marks = self._marks([self._name(text) for text in view.points], view)
        return JsonAnswer([{"time": mark.time / 1_000_000, "text": mark.text} for mark in marks])

    def csv(self, request: PageRequest) -> Download:
        """Send the numbers of the chart."""
        view = self._view(request)
        charted = [self._read(text, self._name(text), view) for text in view.points]
        if problem := next((each.problem for each in charted if each.problem), ""):
            raise PageError(503, problem)
        zone = ZoneInfo(request.time_zone)
        rows = (
            (_iso(bucket.start, zone), *each.name, each.units, *bucket[1:])
            for each in charted
            for bucket in each.series.buckets
        )
        return Download("chart.csv", MEDIA_TYPE, csv_parts(_NUMBERS, rows))

    def values_csv(self, request: PageRequest) -> Download:
        """Send every stored value of the range."""
        view = self._view(request)
        zone = ZoneInfo(request.time_zone)
        names = [self._name(text) for text in view.points]
        stores = [self._store(name) for name in names]

        def rows() -> Iterator[Sequence[Any]]:
            for name, store in zip(names, stores, strict=True):
                for value in store.export(name, view.start, view.end):
                    yield _iso(value.time, zone), *name, value.units, value.value

        every = rows()
        try:  # before the first byte is sent, an error can still be explained
            first = list(islice(every, 1))
        except StoreUnavailableError as error:
            raise PageError(503, str(error)) from error
        return Download("values.csv", MEDIA_TYPE, csv_parts(_VALUES, chain(first, every)))

    def changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        """Return the values after a version: the channel ``chart``. Called in the event loop."""
        ids = [each[:_ID] for each in arguments.get("ids", "").split(",")[:MAX_POINTS]]
        self._follow(ids)
        version = self._table.version
        if since:
            recent = self._table.recent(ids, since)
            data = {
                point: [(v.time / 1e6, _number(v.value)) for v in values] for point, values in recent.items()
            }
        else:  # what follows is kept from now on
            newest = [point for each in ids if (point := self._table.find(each)) is not None]
            data = {point.id: [(point.time / 1e6, _number(point.value))] for point in newest}
        return Update(version, data=data) if data else None

    def _follow(self, ids: Sequence[str]) -> None:
        """Keep the live values of these points for a minute from now."""
        with self._lock:
            self._follow_from(time.monotonic(), ids)

    def _follow_from(self, now: float, ids: Sequence[str]) -> None:
        is_new = any(point not in self._followed for point in ids)
        self._followed |= dict.fromkeys(ids, now)
        ended = [point for point, asked in self._followed.items() if now - asked > _FOLLOWED]
        for point in ended:
            del self._followed[point]
        if is_new or ended:
            self._table.follow(self._followed)

    def _marks(self, names: Sequence[PointName], view: ChartView) -> Sequence[Mark]:
        return self._context.marks(["/".join(name) for name in names], view.start, view.end)

    def _view(self, request: PageRequest) -> ChartView:
        points = request.repeated.get("point", ())
        try:
            now = dt.datetime.now(dt.timezone.utc)
            return parse_view(points, request.query, ZoneInfo(request.time_zone), now)
        except ViewError as error:
            raise PageError(400, str(error)) from error

    def _name(self, text: str) -> PointName:
        name = parse_point_text(text)
        if text.startswith("id:"):
            live = self._table.find(text[3:])
            name = None if live is None else live.name
        if name is None:
            raise PageError(404, f"There is no point {shortened(text, 100)}. Write platform/device/point")
        return name

    def _store(self, name: PointName) -> ReadingStore:
        store = self._stores.of_point(name)
        if store is None:
            raise PageError(
                404, "No sink of this worker stores readings. Add a sink history or mongo to chart the past"
            )
        return store

    def _read(self, text: str, name: PointName, view: ChartView) -> _Charted:
        series, problem = Series(0, (), skipped=False), ""
        try:
            series = self._store(name).series(name, view.start, view.end, view.intervals)
            if view.is_live:
                series = with_live(series, view.start, self._recent(point_id(name), view))
        except (StoreUnavailableError, PageError) as error:
            problem = str(error)
        live = self._table.get(name)
        units = shortened((live.units if live else "") or "", 40)
        is_boolean = live is not None and isinstance(live.value, bool)
        return _Charted(text, name, point_id(name), units, is_boolean, series, problem)

    def _recent(self, point: str, view: ChartView) -> Iterator[tuple[int, float]]:
        """Yield the live values of a point that are kept: the store may not have them yet."""
        for value in self._table.recent([point], 0).get(point, ()):
            number = _number(value.value)
            if number is not None and view.start <= value.time < view.end:
                yield value.time, number

    def _row(self, view: ChartView, text: str, name: PointName, request: PageRequest) -> Mapping[str, Any]:
        live = self._table.get(name)
        may_set = request.viewer.may("operator") and self._context.has_page("/set")
        return {
            "id": point_id(name),
            "point": shortened(name.point, 120) or "(no name)",
            "where": shortened(f"{name.platform}/{name.device}", 200),
            "reading": self._readings.html(live) if live else "",
            "without": view.without(text).query(),
            "set": set_query(name) if may_set else "",
        }

    def _numbers(self, charted: _Charted) -> Mapping[str, Any]:
        return {
            "point": shortened(charted.name.point, 120) or "(no name)",
            "units": charted.units,
            "buckets": charted.series.buckets,
            "is_single": charted.series.width == 0,
            "problem": charted.problem,
        }

    def _changes_of(self, name: PointName, view: ChartView) -> Mapping[str, Any]:
        """Return the changes of a point whose values no chart can show; empty for others."""
        try:
            newest = self._store(name).values(name, view.start, view.end, _CHANGES)
        except (StoreUnavailableError, PageError):
            newest = ()
        changes = [value for value in changes_of(newest) if _number(value.value) is None]
        rows = [(value.time / 1000, value_text(value.value)) for value in changes]
        is_cut = len(newest) == _CHANGES
        return {"point": shortened(name.point, 120) or "(no name)", "rows": rows, "is_cut": is_cut}

    def _suggested(self, names: Sequence[PointName]) -> Sequence[str]:
        """Return the points of the same devices, to add them to the chart."""
        devices = {name[:2] for name in names}
        others = [point for point in self._table.snapshot() if point.name[:2] in devices] if devices else []
        texts = sorted(point_text(point.name) for point in others if point.name not in names)
        return [text for text in texts if len(text) < _SUGGESTED][:_SUGGESTED]


def _number(value: Any) -> float | None:
    """Return what a chart draws of a value; ``None`` if it cannot."""
    if isinstance(value, (bool, int, float)):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _iso(time_us: int, zone: dt.tzinfo) -> str:
    try:
        return dt.datetime.fromtimestamp(time_us / 1_000_000, zone).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(time_us)
