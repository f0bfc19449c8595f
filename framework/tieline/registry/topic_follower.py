"""A topic that is followed as it grows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tieline.api import RetriableError, TielineError
from tieline.broker.port import Broker, ConsumedRecord, TopicReader

log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds, of one call to the broker
_PAUSE = 0.05
_POLL = 0.2  # seconds until it notices that it is to stop


class Follower:
    """A thread that reads the topic as it grows."""

    def __init__(self, broker: Broker, topic: str, visit: Callable[[ConsumedRecord], None]) -> None:
        self.well = False
        self._broker = broker
        self._topic = topic
        self._visit = visit
        self._stop = threading.Event()
        self._at_end = threading.Event()
        self._refused: TielineError | None = None
        self._thread = threading.Thread(target=self._run, name=f"{topic} follower", daemon=True)

    def start(self, timeout: float) -> bool:
        """Whether all that the topic held was read in time; it goes on in any case."""
        self._thread.start()
        read = self._at_end.wait(timeout)
        if self._refused is not None:
            raise self._refused
        return read

    def close(self) -> None:
        """Stop, and wait for it."""
        self._stop.set()
        self._thread.join(_TIMEOUT)

    def _run(self) -> None:
        reader: TopicReader | None = None
        pause = _PAUSE
        while not self._stop.is_set():
            try:
                reader = reader or self._broker.reader(self._topic, since=0, timeout=_TIMEOUT)
                for record in reader.poll(1_000, 0.0 if not reader.at_end else _POLL):
                    self._visit(record)
                self.well, pause = True, _PAUSE
                if reader.at_end:
                    self._at_end.set()
            except RetriableError as error:
                if self.well:
                    log.warning("the registry's topic cannot be followed now: %s", error)
                self.well = False
                self._stop.wait(pause)
                pause = min(2 * pause, 5.0)
            except TielineError as error:
                self.well = False
                self._refused = error
                log.error("the registry's topic cannot be followed any more: %s", error)
                break
        self._at_end.set()
        if reader is not None:
            reader.close(_POLL)
