"""Read a topic as it grows, in a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tieline.api import RetriableError, TielineError
from tieline.broker.port import Broker, TopicReader
from tieline.broker.records import ConsumedRecord

log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds, of one call to the broker
_MIN_PAUSE = 0.05
_MAX_PAUSE = 5.0
_POLL_TIMEOUT = 0.2  # seconds, and so the longest that ``close`` waits for a poll


class TopicFollower:
    """Passes each record of a topic to ``visit``, in a thread of its own.

    ``is_current``: whether the last read succeeded, so that records are seen within milliseconds.
    """

    def __init__(self, broker: Broker, topic: str, visit: Callable[[ConsumedRecord], None]) -> None:
        self.is_current = False
        self._broker = broker
        self._topic = topic
        self._visit = visit
        self._stop = threading.Event()
        self._at_end = threading.Event()
        self._failure: TielineError | None = None
        self._thread = threading.Thread(target=self._run, name=f"{topic} follower", daemon=True)

    def start(self, timeout: float) -> bool:
        """Start to read, and return whether the end of the topic was reached within ``timeout`` seconds.

        The thread continues in any case. Raises the error by which the broker rejects the read.
        """
        self._thread.start()
        is_read = self._at_end.wait(timeout)
        if self._failure is not None:
            raise self._failure
        return is_read

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join(_TIMEOUT)

    def _run(self) -> None:
        reader: TopicReader | None = None
        pause = _MIN_PAUSE
        while not self._stop.is_set():
            try:
                reader = reader or self._broker.reader(self._topic, since=0, timeout=_TIMEOUT)
                for record in reader.poll(1_000, _POLL_TIMEOUT if reader.at_end else 0.0):
                    self._visit(record)
                self.is_current, pause = True, _MIN_PAUSE
                if reader.at_end:
                    self._at_end.set()
            except RetriableError as error:
                if self.is_current:
                    log.warning("cannot read new records of the topic %s at present: %s", self._topic, error)
                self.is_current = False
                self._stop.wait(pause)
                pause = min(2 * pause, _MAX_PAUSE)
            except TielineError as error:
                self.is_current = False
                self._failure = error
                log.error("cannot read new records of the topic %s any more: %s", self._topic, error)
                break
        self._at_end.set()
        if reader is not None:
            reader.close(_POLL_TIMEOUT)
