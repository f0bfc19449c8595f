"""Who looks at the bus beside the connector, to know what it should have seen."""

from __future__ import annotations

import time
from collections import Counter

from typing_extensions import Self

from tieline_lab.comparison import Message
from tieline_lab.vip import Vip

PREFIXES = ("devices/", "datalogger/", "actuators/", "analysis/")
"""What the bus source reads as ``all``."""


class Observer:
    """Counts every message of the bus; as a context. For one thread.

    What the worker has published itself is counted beside: it says so in a header, and nobody stores it.

    Subscribes at once, so what is published after that is seen. It keeps what has arrived until
    ``collect`` is called: the socket's queue has no limit.
    """

    def __init__(self, bus: Vip) -> None:
        self.seen: Counter[Message] = Counter()
        self.came_back: Counter[Message] = Counter()
        self._bus = bus
        self._first: float | None = None
        self._last = 0.0
        for prefix in PREFIXES:
            bus.subscribe(prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """From the first message to the last ``collect``."""
        return self._last - (self._first or self._last)

    def collect(self, seconds: float) -> None:
        """Count what has arrived and what arrives within ``seconds``."""
        end = time.monotonic() + seconds
        while message := self._bus.receive(max(0.0, end - time.monotonic())):
            self._first = self._first or time.monotonic()
            counted = self.came_back if "tieline.origin" in message.headers else self.seen
            counted[Message.of(message.topic, message.headers, message.message)] += 1
            if time.monotonic() >= end:
                break
        self._last = time.monotonic()

    def close(self) -> None:
        """Disconnect: what comes from now on is not seen."""
        self._bus.close()
