"""A bounded buffer of received messages that were not polled yet. If it is full, new messages are dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class ReceivedMessage(NamedTuple):
    """The frames of a message, when it was received (microseconds since 1970, UTC), and in which session."""

    frames: list[bytes]
    time: int
    session: int = 0


class ReceiveBuffer:
    """Connects the thread that reads the socket with the thread that polls. Neither waits for the other.

    All methods may be called from any thread.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self._closed = self._woken = False
        self._waiting: deque[tuple[ReceivedMessage, int]] = deque()
        self._changed = threading.Condition()

    def put(self, messages: Sequence[list[bytes]], time: int, session: int = 0) -> int:
        """Keep the messages that fit; return how many did not fit and are lost."""
        sized = [(ReceivedMessage(frames, time, session), sum(map(len, frames))) for frames in messages]
        dropped = 0
        with self._changed:
            for item in sized:
                size = item[1]
                if len(self._waiting) < self._max_messages and self._bytes + size <= self._max_bytes:
                    self._waiting.append(item)
                    self._bytes += size
                else:
                    dropped += 1
            self._changed.notify()
        return dropped

    def take(self, limit: int, seconds: float) -> list[ReceivedMessage]:
        """Remove and return the oldest messages, at most ``limit``.

        If there are none, wait for at most ``seconds``, or until the buffer is closed or ``wake`` is called.
        """
        with self._changed:
            if not self._waiting and seconds > 0:
                self._changed.wait_for(lambda: self._waiting or self._closed or self._woken, seconds)
            self._woken = False
            removed = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            self._bytes -= sum(size for _, size in removed)
        return [received for received, _ in removed]

    def wake(self) -> None:
        """End the wait of a ``take``, or of the next one."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """End every wait. Messages in the buffer can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
