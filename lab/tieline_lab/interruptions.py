"""The signals that ask the lab to stop."""

from __future__ import annotations

import math
import os
import signal
import time
from types import FrameType

from typing_extensions import Self


class Interrupted(BaseException):
    """A signal arrived while the lab was fetching or starting something."""


class Interruptions:
    """Counts SIGINT, SIGTERM and SIGHUP. Before ``only_count``, the first one raises ``Interrupted``.

    Two within a second count once, since the kernel and a shell may both signal a closed terminal. A signal
    that is ignored when the lab begins (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last_signal = -math.inf
        self._counting = False
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def only_count(self) -> None:
        """From now on count signals without raising an exception."""
        self._counting = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._detach_terminals()
        now = time.monotonic()
        if now - self._last_signal < 1.0:
            return
        self._last_signal = now
        self.count += 1
        # Once only: a second signal must not interrupt the stopping of what was started.
        if not self._counting and self.count == 1:
            raise Interrupted

    def _detach_terminals(self) -> None:
        """Redirect further output to /dev/null, since writing to a closed terminal fails."""
        null = os.open(os.devnull, os.O_RDWR)
        for terminal in self._terminals:
            os.dup2(null, terminal)
        os.close(null)
