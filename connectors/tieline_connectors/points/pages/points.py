"""The list of points, with tree, search, filter and favourites."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from tieline.api.pages import Page, PageContext, PageError, PageRequest, Redirect, Update, Viewer
from tieline_connectors.points.follower import ReadingFollower
from tieline_connectors.points.live.filters import FilterError, parse_filter
from tieline_connectors.points.live.point import LivePoint
from tieline_connectors.points.live.selection import PAGE, Selection, select
from tieline_connectors.points.live.table import LiveTable
from tieline_connectors.points.live.tree import Place
from tieline_connectors.points.names import point_text, set_query
from tieline_connectors.points.pages.display import shortened
from tieline_connectors.points.pages.readings import Readings
from tieline_connectors.points.seeding import StoreReader
from tieline_connectors.points.stores import Stores

_FAVOURITES = "points.favourites"
_MAX_FAVOURITES = 2000
_LONGEST_ADDRESS = 2000
"""A longer name has its id in addresses; a server takes only so much."""
_LOADING = 0.15  # seconds that a page waits for values of a store
_FIELDS = ("q", "filter", "unit", "type", "favourites", "platform", "device")


class PointsPage:
    """Shows points. Safe for many threads."""

    def __init__(
        self,
        context: PageContext,
        table: LiveTable,
        follower: ReadingFollower,
        store_reader: StoreReader,
        stores: Stores,
        readings: Readings,
    ) -> None:
        self._context = context
        self._table = table
        self._follower = follower
        self._store_reader = store_reader
        self._stores = stores
        self._start = secrets.token_hex(4)
        self._readings = readings
        self._notices: tuple[str, ...] = ()
        self._notices_version = 0

    def show(self, request: PageRequest) -> Page:
        """Show one page of the points that the address selects."""
        query = request.query
        favourites = self._favourites(request.viewer)
        problem, predicate = "", None
        try:
            predicate = parse_filter(query["filter"]) if query.get("filter", "").strip() else None
        except FilterError as error:
            problem = str(error)
        place = Place(query.get("platform"), query.get("device", ""))
        selection = Selection(
            place if place.platform is not None else Place(),
            query.get("q", "")[:500],
            query["unit"] if query.get("unit") else None,
            query.get("type", ""),
            predicate,
            favourites if query.get("favourites") else None,
            _page_number(query.get("page", "1")),
        )
        from_version = self._table.version
        points = self._table.snapshot()
        total = len(points)
        selected = select(selection, points, time.time_ns() // 1000)
        self._store_reader.load(selected.rows, _LOADING)
        rows = [self._table.find(point.id) or point for point in selected.rows]
        may_set = request.viewer.may("operator") and self._context.has_page("/set")
        given = {name: query[name] for name in _FIELDS if query.get(name)}
        values = {
            "selected": selected,
            "selection": selection,
            "query": dict.fromkeys(_FIELDS, "") | given,
            "problem": problem,
            "rows": [self._row(point, favourites, may_set) for point in rows],
            "may_set": may_set,
            "ancestors": [(each, self._link(given, each)) for each in selection.place.ancestors()],
            "nodes": [(node, self._link(given, node.place)) for node in selected.nodes],
            "pages": [(number, _address(given | {"page": str(number)})) for number in _near(selected)],
            "here": _address(given | {"page": str(selected.page)}),
            "without_favourites": not favourites,
            "channel": self._channel(rows, from_version, total),
            "notices": self._notices_now(),
            "total": total,
            "page_size": PAGE,
        }
        return Page("points.html", "Points", values)

    def set_favourite(self, request: PageRequest) -> Redirect:
        """Add a point to the favourites of a person, or remove it."""
        change = request.form.get("change", "")
        sign, point = change[:1], change[1:]
        if sign not in ("+", "-") or not point.isalnum() or len(point) > 64:
            raise PageError(400, "The favourite was not changed: the form names no point")
        favourites = self._favourites(request.viewer)
        favourites.discard(point)
        if sign == "+":
            if len(favourites) >= _MAX_FAVOURITES:
                raise PageError(400, f"There are {_MAX_FAVOURITES} favourites already. Remove one first")
            favourites.add(point)
        self._context.set_preference(request.viewer, _FAVOURITES, json.dumps(sorted(favourites)))
        here = request.form.get("here", "")
        return Redirect(here if here.startswith("/points") else "/points")

    def changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        """Return the rows that have changed, of those on a page: the channel ``points``."""
        version = self._table.version
        start, _, shown = arguments.get("from", "").partition("-")
        if not since and start == self._start and shown.isdecimal():
            since = int(shown)
        found = (self._table.find(point) for point in arguments.get("ids", "").split(",")[:PAGE])
        fragments = {
            f"r-{point.id}": self._readings.html(point)
            for point in found
            if point is not None and point.version > since
        }
        if self._notices_version > since:
            fragments["points-notices"] = self._context.render(
                "points_notices.html", {"notices": self._notices}
            )
        total = arguments.get("total", "")
        more = len(self._table) - int(total) if total.isdecimal() and len(total) < 10 else 0
        if self._table.grown_at > since and more > 0:
            values = {"more": more, "is_empty": not arguments.get("ids")}
            fragments["points-new"] = self._context.render("points_new.html", values)
        return Update(version, fragments) if fragments else None

    def refresh_notices(self) -> None:
        """Compare what the page says about the whole list with now. In the follower's thread."""
        notices = self._notices_now()
        if notices != self._notices:
            self._notices = notices
            self._notices_version = self._table.version + 1

    def _notices_now(self) -> tuple[str, ...]:
        notices = []
        if self._follower.problem:
            notices.append(f"Live values are interrupted: {self._follower.problem}")
        if self._follower.is_sampling:
            notices.append(
                "Sampled: the topics bring more than pages may read. Some values are left out here, not in"
                " the stores."
            )
        if self._table.dropped:
            notices.append(f"Only the first {len(self._table)} points are shown.")
        notices += [f"{store}: {why}" for store, why in self._stores.unavailable.copy().items()]
        return tuple(notices)

    def _row(self, point: LivePoint, favourites: set[str], may_set: bool) -> Mapping[str, Any]:
        address = point_text(point.name)
        is_long = len(address) > _LONGEST_ADDRESS
        return {
            "id": point.id,
            "point": shortened(point.name.point, 120),
            "where": shortened(f"{point.name.platform}/{point.name.device}", 200),
            "address": f"id:{point.id}" if is_long else address,
            "set": set_query(point.name) if may_set and not is_long else "",
            "is_favourite": point.id in favourites,
            "reading": self._readings.html(point),
        }

    def _channel(self, rows: Sequence[LivePoint], version: int, total: int) -> str:
        ids = ",".join(point.id for point in rows)
        return f"points?ids={ids}&total={total}&from={self._start}-{version}"

    def _favourites(self, viewer: Viewer) -> set[str]:
        stored = self._context.preference(viewer, _FAVOURITES)
        return set(json.loads(stored)) if stored else set()

    def _link(self, given: Mapping[str, str], place: Place) -> str:
        query = {name: value for name, value in given.items() if name not in ("platform", "device")}
        if place.platform is not None:
            query["platform"] = place.platform
            if place.device:
                query["device"] = place.device
        return _address(query)


def _address(query: Mapping[str, str]) -> str:
    return f"/points?{urlencode(query, errors='replace')}"


def _page_number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 8 else 1


def _near(selected: Any) -> list[int]:
    """Return the pages that links lead to: the first, the last, and those around this one."""
    near = {1, selected.pages, *range(selected.page - 2, selected.page + 3)}
    return sorted(number for number in near if 1 <= number <= selected.pages)
