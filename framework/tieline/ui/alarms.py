"""What is abnormal now: the alarms of connectors and of page plugins, and those that are shelved."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tieline.api.background import BackgroundThread
from tieline.api.pages import (
    Alarm,
    Channel,
    Page,
    PageContext,
    PageError,
    PageRequest,
    Pages,
    Redirect,
    Route,
    Update,
)
from tieline.ui.health import Problem
from tieline.ui.store import PageStore, Shelved

log = logging.getLogger(__name__)

_LONGEST_SHELF = 7 * 24.0  # hours
_INTERVAL = 3.0  # seconds
_SEVERITIES = ("critical", "warning")


class Board(NamedTuple):
    """The alarms at one time: the active ones, critical and oldest first, and the shelved ones."""

    active: Sequence[Alarm] = ()
    shelved: Sequence[tuple[Alarm, Shelved]] = ()


class AlarmBoard(BackgroundThread):
    """Collects alarms every few seconds, and when a page asks for them. Any thread may call it.

    ``sources``: by plugin, what returns its alarms now. They are called one at a time.
    """

    def __init__(
        self, sources: Mapping[str, Callable[[], Sequence[Alarm]]], store: PageStore, now: Callable[[], float]
    ) -> None:
        super().__init__("page alarms")
        self._sources = dict(sources)
        self._store = store
        self._now = now
        self._failed: set[str] = set()
        self._lock = threading.Lock()
        self.board = Board()
        self.version = 0

    def add_source(self, name: str, alarms: Callable[[], Sequence[Alarm]]) -> None:
        """Also collect what ``alarms`` returns."""
        self._sources[name] = alarms

    def run(self) -> None:
        """Refresh the board; see ``BackgroundThread.run``."""
        while not self.stopping.is_set():
            try:
                self.refresh()
            except Exception:  # the next round tries again; the log has the cause
                log.exception("the alarms cannot be read")
            self.stopping.wait(_INTERVAL)

    def refresh(self) -> None:
        """Read all alarms again."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        alarms = [alarm for name in list(self._sources) for alarm in self._read(name)]
        shelved = self._store.shelved(self._now())
        board = Board(
            sorted(
                (alarm for alarm in alarms if alarm.key not in shelved),
                key=lambda each: (_SEVERITIES.index(each.severity), each.since_ms, each.key),
            ),
            [(alarm, shelved[alarm.key]) for alarm in alarms if alarm.key in shelved],
        )
        if board != self.board:
            self.board = board
            self.version += 1

    def _read(self, name: str) -> Sequence[Alarm]:
        """Return one plugin's alarms; its fault must not hide those of others, and is an alarm itself."""
        try:
            alarms = self._sources[name]()
        except Exception as error:
            if name not in self._failed:  # once, not every few seconds
                self._failed.add(name)
                log.exception("the alarms of the pages %s cannot be read", name)
            text = f"Its alarms cannot be read: {type(error).__name__}. The worker's log has the details."
            return [Alarm(f"pages.{name}", "critical", f"pages {name}", text, int(self._now() * 1000))]
        self._failed.discard(name)
        return alarms


def connector_alarms(
    ledgers: Mapping[str, Mapping[str, Any]],
    problems: Callable[[str, Mapping[str, Any]], Sequence[Problem]],
    since: Callable[[str], int],
) -> list[Alarm]:
    """Return the alarms of connectors. ``since``: when an alarm was first seen, in ms."""
    alarms = []
    for name, ledger in ledgers.items():
        for problem in problems(name, ledger):
            kind, _, rest = problem.key.partition(".")
            key = f"{kind}.{name}.{rest}" if rest else f"{kind}.{name}"
            since_ms = since(key) if problem.since_ms is None else problem.since_ms
            alarms.append(Alarm(key, problem.severity, name, problem.text, since_ms, f"/#card-{name}"))
    return alarms


class FirstSeen:
    """Remembers since when each alarm lasts. For one thread."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._since: dict[str, int] = {}
        self._current: set[str] = set()

    def __call__(self, key: str) -> int:
        """Return when this alarm was seen first, in ms."""
        self._current.add(key)
        return self._since.setdefault(key, int(self._now() * 1000))

    def forget_others(self) -> None:
        """Forget the alarms that were not asked for since the last call."""
        self._since = {key: since for key, since in self._since.items() if key in self._current}
        self._current.clear()


class AlarmPages(Pages):
    """The list of alarms, and how one is shelved for a time with a reason."""

    title = "Alarms"

    def __init__(self, context: PageContext, board: AlarmBoard, store: PageStore) -> None:
        super().__init__(context)
        self._board = board
        self._store = store

    def routes(self) -> Sequence[Route]:
        """Return the list and its actions."""
        return [
            Route("/alarms", self._show, navigation="Alarms"),
            Route("/alarms/shelve", self._shelve, "POST"),
            Route("/alarms/unshelve", self._unshelve, "POST"),
        ]

    def channels(self) -> Mapping[str, Channel]:
        """Return the list, and the number beside the menu's entry."""
        return {"alarms": self._list, "alarm-count": self._count}

    def _show(self, request: PageRequest) -> Page:
        self._board.refresh()
        return Page("alarms.html", "Alarms", self._values(request.viewer.may("operator")))

    def _values(self, can_shelve: bool) -> dict[str, Any]:
        return {"board": self._board.board, "now_ms": time.time() * 1000, "can_shelve": can_shelve}

    def _shelve(self, request: PageRequest) -> Redirect:
        key, reason = request.form.get("key", ""), request.form.get("reason", "").strip()
        if not reason:
            raise PageError(400, "The alarm was not shelved: give a reason, so that others know why")
        try:
            hours = float(request.form.get("hours", ""))
        except ValueError:
            hours = 0.0
        if not 0 < hours <= _LONGEST_SHELF:
            raise PageError(
                400, f"The alarm was not shelved: hours must be above 0 and at most {_LONGEST_SHELF:g}"
            )
        if not any(alarm.key == key for alarm in self._board.board.active):
            raise PageError(404, "This alarm has ended, or is shelved already")
        now = time.time()
        self._store.shelve(Shelved(key, now + hours * 3600, reason[:500], request.viewer.name, now))
        self._board.refresh()
        return Redirect("/alarms")

    def _unshelve(self, request: PageRequest) -> Redirect:
        self._store.unshelve(request.form.get("key", ""))
        self._board.refresh()
        return Redirect("/alarms")

    def _list(self, arguments: Mapping[str, str], since: int) -> Update | None:
        version = self._board.version
        if since and version <= since:
            return None
        values = self._values(arguments.get("shelve") == "yes")
        values["time_zone"] = arguments.get("time_zone", "UTC")
        return Update(max(version, 1), {"alarm-list": self.context.render("alarm_list.html", values)})

    def _count(self, arguments: Mapping[str, str], since: int) -> Update | None:
        version = self._board.version
        if since and version <= since:
            return None
        return Update(max(version, 1), {"alarm-count": str(len(self._board.board.active) or "")})
