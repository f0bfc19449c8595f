"""Follows the topics with readings, for the live values of pages, without getting into the pipeline's way.

Decoding takes at most a hundredth of one processor, and a four-hundredth while no page is open. If the topics
bring more than that, the follower skips to their end and counts the time that it has skipped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tieline.api import SinkRecord, TielineError, parse_json
from tieline.api.background import BackgroundThread
from tieline.api.commands import TopicClient, TopicFollower
from tieline.api.pages import RunningConnector
from tieline_connectors.points.live.table import LiveTable, NewValue
from tieline_connectors.points.questions import PointName
from tieline_connectors.points.values import each_value
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig

log = logging.getLogger(__name__)

_WATCHED, _UNWATCHED = 100, 400
"""How many times the processor's time for a batch the follower then waits."""
_BEHIND = 10.0  # seconds from which it skips to the end
_JUDGE = 5.0
_SINCE = 120_000  # ms that it reads back at its start
_FULL = 500
_RETRY = 5.0
_END = 253_402_300_800_000_000
"""The end of the year 9999 (µs); pages show no later time."""


def reading_topics(connectors: Iterable[RunningConnector]) -> tuple[str, ...]:
    """Return the topics that have the readings of this worker's connectors, in a fixed order."""
    topics: dict[str, None] = {}
    for connector in connectors:
        if connector.kind == "source" and connector.plugin == "volttron_bus":
            config = VolttronBusConfig.parse(connector.settings)
            topics |= dict.fromkeys(route.topic for route in config.all_routes())
        elif connector.kind == "sink" and connector.plugin in ("mongo", "history"):
            topics |= dict.fromkeys(connector.topics)
    return tuple(topics)


def values_of(record: SinkRecord) -> Iterator[NewValue]:
    """Yield the values of a reading or data log; none of any other record."""
    given = record.value
    if not isinstance(given, dict) or "platform" not in given or "device" not in given:
        return
    try:
        platform, device, topic = map(_text, (given["platform"], given["device"], given["topic"]))
        for each in each_value(given):
            units = None if each.units is None else _text(each.units)
            if type(each.time) is int and 0 <= each.time < _END:
                name = PointName(platform, device, _text(each.point))
                yield NewValue(name, topic, units, _plain(each.value), each.time)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return  # not a reading, but something with the same fields; pages show only readings


def _text(text: Any) -> str:
    """Return a text as UTF-8 can write it. JSON may have half a surrogate pair, or no text at all."""
    if not isinstance(text, str):
        raise TypeError("a name is a text")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    return parse_json(value["json"]) if type(value) is dict else value


class ReadingFollower(BackgroundThread):
    """Keeps the table current, in a thread from ``start`` to ``stop``."""

    def __init__(
        self,
        topics: Sequence[str],
        open_topics: Callable[[], AbstractContextManager[TopicClient]],
        table: LiveTable,
        is_watched: Callable[[], bool],
        judged: Callable[[], None] = lambda: None,
    ) -> None:
        """``judged``: called in the thread after stale points were marked, every few seconds."""
        super().__init__("point follower")
        self._topics = topics
        self._open_topics = open_topics
        self._table = table
        self._is_watched = is_watched
        self._judged = judged
        self._last_skip: dict[str, float] = {}
        self._lags: dict[str, float] = {}
        """How far (s) the last full batch of a topic was behind."""
        self._next_judge = 0.0
        self.problem = ""
        """Why the topics cannot be read now; empty if they can."""

    @property
    def is_sampling(self) -> bool:
        """Whether records were skipped in the last minute."""
        return any(time.monotonic() - each < 60 for each in self._last_skip.values())

    def run(self) -> None:
        """Follow the topics; see ``BackgroundThread.run``."""
        since: int | None = time.time_ns() // 1_000_000 - _SINCE
        while not self.stopping.is_set():
            try:
                with self._open_topics() as client:
                    readers = {topic: client.reader(topic, since) for topic in self._topics}
                    since = None  # after an error: what is written from then on
                    while not self.stopping.is_set():
                        self._read(client, readers)
            except TielineError as error:
                self.problem = str(error)
            except Exception as error:  # pages must not end for a fault here; the log has the cause
                log.exception("the points' values cannot be followed")
                self.problem = f"{type(error).__name__}; the worker's log has the details"
            self._judge()
            self.stopping.wait(_RETRY)

    def _read(self, client: TopicClient, readers: dict[str, TopicFollower]) -> None:
        """Read each topic once, then wait as long as that has cost."""
        before = time.thread_time()
        for topic in readers:
            records = readers[topic].poll(0.25 if len(readers) == 1 else 0.05)
            self.problem = ""
            if records:
                self._table.update(value for record in records for value in values_of(record))
            if self._is_behind(topic, records):
                self._skip(client, readers, topic, records[-1])
        self._judge()
        cost = time.thread_time() - before
        until = time.monotonic() + cost * _UNWATCHED
        started = time.monotonic()
        while not self.stopping.is_set():  # a page that is opened now ends the longer wait
            end = started + cost * _WATCHED if self._is_watched() else until
            left = end - time.monotonic()
            if left <= 0:
                break
            self.stopping.wait(min(left, 0.5))

    def _is_behind(self, topic: str, records: Sequence[SinkRecord]) -> bool:
        """Return whether the topic's end is far ahead, and does not come closer."""
        if len(records) < _FULL:
            self._lags.pop(topic, None)
            return False
        lag = time.time() - _time_of(records[-1])
        before, self._lags[topic] = self._lags.get(topic), lag
        return before is not None and lag > _BEHIND and lag >= before

    def _skip(
        self, client: TopicClient, readers: dict[str, TopicFollower], topic: str, last: SinkRecord
    ) -> None:
        readers[topic].close()
        readers[topic] = client.reader(topic)
        self._last_skip[topic] = time.monotonic()
        self._lags.pop(topic)
        self._table.unseen += max(0, int((time.time() - _time_of(last)) * 1_000_000))

    def _judge(self) -> None:
        now = time.monotonic()
        if now < self._next_judge:
            return
        self._next_judge = now + _JUDGE
        self._table.judge(time.time_ns() // 1000)
        self._judged()


def _time_of(record: SinkRecord) -> float:
    """Return a record's time in seconds; now if it has none."""
    return time.time() if record.timestamp is None else record.timestamp / 1000
