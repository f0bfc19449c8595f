"""Saved source offsets: a compacted topic in the format of Kafka Connect's ``offset.storage.topic``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tieline.api import RetriableError
from tieline.broker.records import ConsumedRecord

Visit = Callable[[ConsumedRecord], None]
Read = Callable[[str, Visit, Mapping[int, int], float], "dict[int, int]"]


class OffsetsTopic:
    """Reads the topic, each time only what is new. Safe for many threads.

    A key is ``["connector",{source partition}]``, a value the source offset, or null if it was removed.
    """

    def __init__(self, topic: str, read: Read) -> None:
        self.topic = topic
        self._read = read
        self._lock = threading.Lock()
        self._position: dict[int, int] = {}
        self._offsets: dict[str, dict[str, str]] = {}

    def of(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the present saved offsets of a connector. Raises ``RetriableError``."""
        with self._read_to_end(timeout) as offsets:
            return dict(offsets.get(connector, {}))

    def connectors(self, timeout: float) -> list[str]:
        """Return the connectors that have saved offsets. Raises ``RetriableError``."""
        with self._read_to_end(timeout) as offsets:
            return sorted(connector for connector, saved in offsets.items() if saved)

    @contextmanager
    def _read_to_end(self, timeout: float) -> Iterator[dict[str, dict[str, str]]]:
        if not self._lock.acquire(timeout=timeout):
            raise RetriableError(f"{self.topic}: still being read after {timeout} s")
        try:
            self._position = self._read(self.topic, self._visit, self._position, timeout)
            yield self._offsets
        finally:
            self._lock.release()

    def _visit(self, record: ConsumedRecord) -> None:
        # Also if the end is not reached in time: the next call continues from here.
        self._position[record.partition] = record.offset + 1
        try:
            connector, partition = json.loads(record.key or b"")
            if not (isinstance(connector, str) and isinstance(partition, dict)):
                return
            if record.value is not None and not isinstance(json.loads(record.value), dict):
                return
        except (ValueError, TypeError, RecursionError):
            return  # not an offset
        canonical = json.dumps(partition, sort_keys=True, separators=(",", ":"))
        offsets = self._offsets.setdefault(connector, {})
        if record.value is None:
            offsets.pop(canonical, None)
        else:
            offsets[canonical] = record.value.decode()
