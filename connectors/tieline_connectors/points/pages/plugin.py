"""The pages about points, as the worker knows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tieline.api.pages import Alarm, Channel, PageContext, Pages, Route
from tieline_connectors.points.follower import ReadingFollower, reading_topics
from tieline_connectors.points.live.table import LiveTable
from tieline_connectors.points.pages.alarms import point_alarms
from tieline_connectors.points.pages.chart import ChartPage
from tieline_connectors.points.pages.documents import DocumentsPage
from tieline_connectors.points.pages.points import PointsPage
from tieline_connectors.points.pages.readings import Readings
from tieline_connectors.points.seeding import StoreReader
from tieline_connectors.points.stores import Stores


class PointPages(Pages):
    """Points, their chart, and the documents of the stores."""

    title = "Points"
    menu_position = 10

    def __init__(self, context: PageContext) -> None:
        super().__init__(context)
        self._table = LiveTable()
        self._stores = Stores.open(context.connectors, context.data_dir)
        self._follower = ReadingFollower(
            reading_topics(context.connectors), context.topics, self._table, context.is_watched, self._judged
        )
        self._store_reader = StoreReader(self._stores, self._table, context.is_watched)
        readings = Readings(context)
        self._points = PointsPage(
            context, self._table, self._follower, self._store_reader, self._stores, readings
        )
        self._chart = ChartPage(context, self._table, self._stores, readings)
        self._documents = DocumentsPage(self._stores)
        self._alarms: Sequence[Alarm] = ()
        self._since: dict[str, int] = {}
        """When each alarm began; a value that is not a number comes again and again."""

    def routes(self) -> Sequence[Route]:
        """Return the pages."""
        return [
            Route("/points", self._points.show, navigation="Points"),
            Route("/points/favourite", self._points.set_favourite, "POST", personal=True),
            Route("/chart", self._chart.show),
            Route("/chart/data", self._chart.data),
            Route("/chart/marks", self._chart.marks),
            Route("/chart/numbers.csv", self._chart.csv),
            Route("/chart/values.csv", self._chart.values_csv),
            Route("/documents", self._documents.show, navigation="Documents" if self._stores.all else ""),
        ]

    def channels(self) -> Mapping[str, Channel]:
        """Return the live values."""
        return {"points": self._points.changes, "chart": self._chart.changes}

    def alarms(self) -> Sequence[Alarm]:
        """Return the alarms of stale points and of values that are not numbers, at most five seconds old."""
        return self._alarms

    def start(self) -> None:
        """Start to follow the topics, and to read the stores."""
        self._follower.start()
        self._store_reader.start()

    def stop(self) -> None:
        """End the threads and close the stores."""
        self._follower.stop()
        self._store_reader.stop()
        self._stores.close()

    def _judged(self) -> None:
        alarms = point_alarms(self._table.snapshot(), time.time_ns() // 1000)
        self._since = {alarm.key: self._since.get(alarm.key, alarm.since_ms) for alarm in alarms}
        self._alarms = [alarm._replace(since_ms=self._since[alarm.key]) for alarm in alarms]
        self._points.refresh_notices()
