"""An observer of the bus, independent of the connector, that knows what the connector should receive."""

from __future__ import annotations

import time
from collections import Counter

from typing_extensions import Self

from tieline_lab.comparison import Message
from tieline_lab.vip import Vip

PREFIXES = ("devices/", "datalogger/", "actuators/", "analysis/")
"""The prefixes that the bus source reads if its ``bus.prefixes`` is ``all``."""


class Observer:
    """Counts every message of the bus until its context ends. Not thread-safe.

    ``seen`` are the messages that must be stored. ``from_worker`` are those that the worker published itself;
    they have a header that says so, and are not stored.

    The constructor subscribes, so that every later message is seen. Messages wait in the socket's queue,
    which has no limit, until ``collect`` is called.
    """

    def __init__(self, bus: Vip) -> None:
        self.seen: Counter[Message] = Counter()
        self.from_worker: Counter[Message] = Counter()
        self._bus = bus
        self._first_message_at: float | None = None
        self._collected_at = 0.0
        for prefix in PREFIXES:
            bus.subscribe(prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """The seconds from the first message to the end of the last ``collect``."""
        return self._collected_at - (self._first_message_at or self._collected_at)

    def collect(self, seconds: float) -> None:
        """Count the messages that have arrived and those that arrive within ``seconds``."""
        end = time.monotonic() + seconds
        while message := self._bus.receive(max(0.0, end - time.monotonic())):
            self._first_message_at = self._first_message_at or time.monotonic()
            counter = self.from_worker if "tieline.origin" in message.headers else self.seen
            counter[Message.of(message.topic, message.headers, message.message)] += 1
            if time.monotonic() >= end:
                break
        self._collected_at = time.monotonic()

    def close(self) -> None:
        """Disconnect; later messages are not seen."""
        self._bus.close()
