"""Limiting repeated lines of client libraries: the first one is logged, then a count at growing intervals.

librdkafka logs each failed attempt to connect: 19 lines a second per client, 400 MB a day. pymongo, urllib3
and others do the same. Lines of tieline itself are not limited.
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
"""Seconds until the first summary, the second, …; the last value repeats."""
_MAX_KINDS = 500
_LIMITED_HERE = "tieline.kafka"
_CLIENT = re.compile(r"(\[[^\]]*\] ?)+:?|\S+:\d+/(bootstrap|\d+): |\([^()]*\)$")
_NUMBER = re.compile(r"\b0x[0-9a-f]+\b|\d+(\.\d+)?")


@dataclass
class _Kind:
    """Lines that differ only in numbers and in the client that logs them."""

    since: float
    last: logging.LogRecord
    seen: float
    count: int = 0
    pause: int = 0

    @property
    def due(self) -> float:
        return self.since + PAUSES[min(self.pause, len(PAUSES) - 1)]


class RepeatFilter(logging.Filter):
    """A filter for a handler. ``now`` returns monotonic seconds. Any thread may log."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._writing = threading.local()  # whether this thread writes a summary, which is not counted
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line. A line that is due gets the count of its kind."""
        if getattr(self._writing, "summary", False) or not _is_limited(record.name):
            return True
        known: tuple[logging.LogRecord, bool] | None = getattr(self._writing, "last", None)
        if known is None or known[0] is not record:  # another handler of the same line decides as the first
            known = self._writing.last = (record, self._decide(record))
        return known[1]

    def _decide(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        key = (record.name, record.levelno, kind_of(message))
        with self._lock:
            now = self._now()
            kind = self._kinds.get(key)
            if kind is None or (now - kind.seen > PAUSES[1] and now > kind.due):
                self._kinds[key] = _Kind(now, record, now)
                if len(self._kinds) > _MAX_KINDS:
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
        """Forget all lines, because a new log begins."""
        with self._lock:
            self._kinds.clear()

    def flush(self) -> None:
        """Write the counts that are due, without waiting for a further line."""
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
    """Return what lines of one kind have in common."""
    return _NUMBER.sub("#", _CLIENT.sub("", message))[:300]


def _is_limited(name: str) -> bool:
    return name == _LIMITED_HERE or name.partition(".")[0] not in ("tieline", "tieline_connectors")


def _summary(message: str, kind: _Kind, now: float) -> str:
    return f"{message} ({kind.count} such lines in the last {now - kind.since:.0f} s)"
