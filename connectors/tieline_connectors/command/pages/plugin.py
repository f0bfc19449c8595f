"""The pages about commands. A person's command is a command like any other: the policy decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tieline.api.pages import Alarm, Channel, Mark, PageContext, Pages, Route
from tieline_connectors.command.pages.alarms import CommandAlarms
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.history import HistoryPages
from tieline_connectors.command.pages.holds import HoldPages
from tieline_connectors.command.pages.marks import CommandMarks
from tieline_connectors.command.pages.plants import Plants
from tieline_connectors.command.pages.set_point import SetPointPage
from tieline_connectors.command.pages.sinks import SinkPages


class CommandPages(Pages):
    """Set a point, follow commands, release holds, and stop everything with the kill switch."""

    title = "Commands"
    menu_position = 20

    def __init__(self, context: PageContext) -> None:
        super().__init__(context)
        self.plants = Plants(context)
        self.follower = CommandFollower(context, self.plants.topics)
        self._history = HistoryPages(context, self.follower)
        self._holds = HoldPages(context, self.plants, self.follower)
        self._set_point = SetPointPage(context, self.plants, self.follower)
        self._sinks = SinkPages(self.plants, context.data_dir)
        self._alarms = CommandAlarms(context, self.plants, self.follower)
        self._marks = CommandMarks(context, self.plants, self.follower)

    def routes(self) -> Sequence[Route]:
        """Return the pages; none without a command sink."""
        if not self.plants:
            return ()
        return [
            Route("/commands", self._history.list, navigation="Commands"),
            Route("/commands/{command_id:path}", self._history.life),
            Route("/holds", self._holds.show, navigation="Holds"),
            Route("/holds/release", self._holds.release, "POST"),
            Route("/set", self._set_point.show),
            Route("/set/check", self._set_point.check, "POST", personal=True),
            Route("/set", self._set_point.send, "POST"),
            Route("/command-sinks", self._sinks.show),
            Route("/command-sinks/kill", self._sinks.kill, "POST"),
            Route("/command-sinks/release", self._sinks.release_switch, "POST", role="admin"),
        ]

    def channels(self) -> Mapping[str, Channel]:
        """Return the channels of the list, of one command, and of the holds."""
        return {
            "commands": self._history.list_changes,
            "command": self._history.life_changes,
            "holds": self._holds.changes,
        }

    def alarms(self) -> Sequence[Alarm]:
        """Return what is abnormal now."""
        return self._alarms.current()

    def marks(self, subjects: Collection[str], start: int, end: int) -> Sequence[Mark]:
        """Return the commands that wrote these points."""
        return self._marks(subjects, start, end) if self.plants else ()

    def start(self) -> None:
        """Start to read the topics."""
        if self.plants:
            self.follower.start()

    def stop(self) -> None:
        """End reading."""
        if self.plants:
            self.follower.stop()
