"""The HTML of live values, rendered once for each version and shared by all viewers."""

from __future__ import annotations

import time

from tieline.api.pages import PageContext
from tieline_connectors.points.live.point import LivePoint
from tieline_connectors.points.pages.display import shortened, value_text

_CACHED = 5000


class Readings:
    """Renders a value with its unit, quality and age. Safe for many threads."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._rendered: dict[str, tuple[int, str]] = {}

    def html(self, point: LivePoint) -> str:
        """Return the HTML of a point's value."""
        rendered = self._rendered.get(point.id)
        if rendered is not None and rendered[0] == point.version:
            return rendered[1]
        values = {
            "text": value_text(point.value),
            "units": shortened(point.units or "", 40),
            "problem": point.problem,
            "is_stale": point.is_stale,
            "time_ms": point.time // 1000,
            "now_ms": time.time() * 1000,
        }
        html = self._context.render("points_reading.html", values)
        if len(self._rendered) >= _CACHED:
            self._rendered.clear()
        self._rendered[point.id] = point.version, html
        return html
