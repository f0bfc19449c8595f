"""A log handler that never makes its caller wait: a thread of its own writes to the stream.

If nobody reads the other end of a pipe, a write to it blocks. Without this queue, a worker whose standard
error is such a pipe would stop moving records.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
import os
import queue
import select
import threading
import time
from logging.handlers import QueueHandler
from typing import Any, Protocol

MAX_LINES = 10_000
_FLUSH_TIMEOUT = 2.0


class LineStream(Protocol):
    """What a line is written to: a text stream, or what has its descriptor."""

    @property
    def encoding(self) -> str:
        """The encoding of its text."""

    @property
    def errors(self) -> str | None:
        """How characters are written that the encoding does not have."""

    def fileno(self) -> int:
        """Return its descriptor. Raises ``ValueError`` or ``OSError`` if it has none."""


class QueuedHandler(QueueHandler):
    """Formats a line on the caller's thread, and writes it on its own. Any thread may log.

    Lines keep their order. If ``max_lines`` lines wait, further ones are dropped and counted, until half of
    them have been written. The first line after such a gap says how many were dropped.
    """

    def __init__(self, stream: LineStream, max_lines: int = MAX_LINES) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(max_lines)
        super().__init__(self._lines)
        self._stream = stream
        self._resume_below = max_lines // 2
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> Any:
        """Return the line for a record. The names of the connector and task are those of this thread."""
        return self.format(record)

    def enqueue(self, line: Any) -> None:
        """Queue a line, or drop and count it. The caller holds the handler's lock."""
        if self._dropped and self._lines.qsize() > self._resume_below:
            self._dropped += 1
            return
        self._report_dropped()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until every line and the count of dropped ones are written, at most two seconds."""
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        self._wait_until_written(deadline)
        with self.lock or contextlib.nullcontext():  # as enqueue, which Handler.handle calls with the lock
            self._report_dropped()
        self._wait_until_written(deadline)

    def close(self) -> None:
        """End the thread after the lines that wait. If the stream takes no more, the thread is abandoned."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass  # a daemon thread, which the end of the process does not wait for
        else:
            self._thread.join(_FLUSH_TIMEOUT)
        super().close()

    def _wait_until_written(self, deadline: float) -> None:
        lines = self._lines
        with lines.all_tasks_done:
            lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, deadline - time.monotonic())

    def _report_dropped(self) -> None:
        if not self._dropped:
            return
        count = self._dropped
        message = f"{count} log lines were dropped: the reader of this log is too slow, or does not read"
        notice = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)
        try:  # in an empty context: the gap belongs to no connector
            self._lines.put_nowait(contextvars.Context().run(self.format, notice))
        except queue.Full:
            return
        self._dropped -= count

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            try:
                if line is None:
                    return
                self._write(f"{line}\n")
            finally:
                self._lines.task_done()

    def _write(self, text: str) -> None:
        """Write a line. A stream that is gone takes nothing, and there is no other place to report it."""
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:  # not a file: a buffer in memory
            if isinstance(self._stream, io.TextIOBase):
                self._stream.write(text)
            return
        except ValueError:  # closed
            return
        encoding, errors = self._stream.encoding or "utf-8", self._stream.errors or "backslashreplace"
        data = text.encode(encoding, errors)
        # Past the stream's own lock: a thread that held it, blocked, would crash Python at its end.
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # another process made the pipe non-blocking
                writable = select.poll()
                writable.register(descriptor, select.POLLOUT)
                writable.poll()
            except OSError:
                return
