"""Repeated lines of client libraries: the first as it is, then a count at growing intervals.

librdkafka logs each failed attempt to connect: 19 lines a second and client, 400 MB a day. pymongo, urllib3
and others do alike. Lines of tieline's own are not touched: they say by themselves what is said once.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

PAUSES = (10.0, 60.0, 300.0, 1800.0, 3600.0)
"""Seconds until the first summary, the second, …; the last for ever."""
_MOST_KINDS = 500
_LIMITED_HERE = "tieline.kafka"
_CLIENT = re.compile(r"(\[[^\]]*\] ?)+:?|\S+:\d+/(bootstrap|\d+): |\([^()]*\)$")
_NUMBER = re.compile(r"\b0x[0-9a-f]+\b|\d+(\.\d+)?")


@dataclass
class _Kind:
    """Lines that differ in numbers and in the client that says them alone."""

    since: float
    last: logging.LogRecord
    seen: float
    count: int = 0
    pause: int = 0

    @property
    def due(self) -> float:
        return self.since + PAUSES[min(self.pause, len(PAUSES) - 1)]


class RepeatFilter(logging.Filter):
    """A filter for a handler. ``now``: monotonic seconds. Any thread may log."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._writing = threading.local()  # a summary of our own, which is not counted
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; one that is due says how many there were."""
        if getattr(self._writing, "summary", False) or not _is_foreign(record.name):
            return True
        message = record.getMessage()
        key = (record.name, record.levelno, kind_of(message))
        with self._lock:
            now = self._now()
            kind = self._kinds.get(key)
            if kind is None or (now - kind.seen > PAUSES[1] and now > kind.due):
                self._kinds[key] = _Kind(now, record, now)
                if len(self._kinds) > _MOST_KINDS:
                    self._kinds.popitem(last=False)
                return True
            self._kinds.move_to_end(key)
            kind.count += 1
            kind.last, kind.seen = record, now
            if now < kind.due:
                return False
            record.msg, record.args = _summary(message, kind, now), None
            kind.since, kind.count, kind.pause = now, 0, kind.pause + 1
            return True

    def clear(self) -> None:
        """Forget what was logged: the log begins anew."""
        with self._lock:
            self._kinds.clear()

    def flush(self) -> None:
        """Write the counts that are due and that no further line brings along."""
        due = []
        with self._lock:
            now = self._now()
            for kind in self._kinds.values():
                if kind.count and now >= kind.due:
                    due.append((kind.last, _summary(kind.last.getMessage(), kind, now)))
                    kind.since, kind.count, kind.pause = now, 0, kind.pause + 1
        self._writing.summary = True
        try:
            for record, summary in due:
                logging.getLogger(record.name).log(record.levelno, "%s", summary)
        finally:
            self._writing.summary = False


def kind_of(message: str) -> str:
    """What lines of one kind have in common."""
    return _NUMBER.sub("#", _CLIENT.sub("", message))[:300]


def _is_foreign(name: str) -> bool:
    return name == _LIMITED_HERE or name.partition(".")[0] not in ("tieline", "tieline_connectors")


def _summary(message: str, kind: _Kind, now: float) -> str:
    return f"{message} ({kind.count} such lines in the last {now - kind.since:.0f} s)"
