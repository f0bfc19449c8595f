"""The audit log on disk: appended and fsynced by one process; a line torn by a crash is cut off."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tieline.api import DataDirInUseError, FatalError
from tieline.api.locks import lock_exclusively
from tieline_connectors.command.audit.chain import (
    MAX_LINE,
    ChainHead,
    continuation_line,
    head_of,
    next_line,
)
from tieline_connectors.command.audit.verification import head_path, read_head

log = logging.getLogger(__name__)

_EMPTIED = "it was emptied"
_CHECK_EVERY = _HEAD_EVERY = 1.0
"""Seconds: a head for each line would cost more than the line."""
_BEGINNING = b'{"at":'
"""How each line begins; nothing else is ever cut off."""


class AuditFile:
    """Appends lines to ``path``. ``path.head`` beside it holds the hash of the last line. Used by one thread.

    The head follows the log within a second (`update_head`), and at ``close``; it may be older, never newer.

    A log that was moved, deleted or emptied while it is written is continued by a new file at its path,
    before anything else is written. One that was changed in another way is not written any more.

    ``count`` gets ``audit.continued`` for each such file. ``repaired``: what was torn and cut off when the
    log was opened, as a sentence for the log; empty if nothing.
    """

    def __init__(self, path: Path, count: Callable[[str, int], None] = lambda name, number: None) -> None:
        """Open or create the log, and check its end.

        Raises ``DataDirInUseError`` if another process has the file open. Raises ``FatalError`` if its end
        was changed; then the file is left unchanged. Raises ``OSError``.
        """
        self.path = path
        self._count = count
        self.repaired = ""
        self._head_path = head_path(path)
        self._file = _open_locked(path)
        try:
            self._repair_end()
            self.head, self._size = self._check_end(), os.fstat(self._file).st_size
            os.fchmod(self._file, 0o600)
            self._written_head, self._head_written_at = ChainHead(), 0.0
            self._checked_at, self._torn, self._last_alarm = time.monotonic(), False, ""
            self._write_head()
            _sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, at: int, *events: Mapping[str, Any]) -> ChainHead:
        """Append events; they are on the disk, at the path, when this returns. Raises ``OSError``.

        After an error none of them counts: the next call cuts off what may have been written.
        """
        if why := self._why_lost():
            self._continue(at, why)
        self._write(at, events)
        if why := self._why_lost():  # since that check: the lines are in a file that is no longer at the path
            self._continue(at, why)
            self._write(at, events)
        self.update_head()
        return self.head

    def update_head(self) -> None:
        """Write the head if it changed over a second ago, and check whether the log is still at its path."""
        now = time.monotonic()
        if now >= self._checked_at + _CHECK_EVERY:
            self._checked_at = now
            try:
                if why := self._why_lost():
                    self._continue(time.time_ns() // 1000, why)
                self._alarm("")
            except OSError as error:
                self._alarm(f"the audit log cannot be written, commands wait: {error}")
        if self.head != self._written_head and now >= self._head_written_at + _HEAD_EVERY:
            self._write_head()

    def close(self) -> None:
        """Close the file; it may be called twice."""
        if self._file >= 0:
            if self.head != self._written_head:
                self._write_head()
            os.close(self._file)
            self._file = -1

    def _write(self, at: int, events: Sequence[Mapping[str, Any]]) -> None:
        head, lines = self.head, []
        for event in events:
            line, head = next_line(head, event, at)
            lines.append(line)
        if self._torn:
            os.ftruncate(self._file, self._size)  # what a failed append has left
        self._torn = True
        _write_all(self._file, b"".join(lines))
        self.head, self._size, self._torn = head, os.fstat(self._file).st_size, False

    def _why_lost(self) -> str:
        """Return why the path needs a new file; empty if our file is unchanged.

        Raises ``OSError`` if an operator has to decide what to do.
        """
        ours = os.fstat(self._file)
        try:
            current = os.stat(self.path)
        except FileNotFoundError:
            return "it was moved or deleted"
        if (current.st_dev, current.st_ino) != (ours.st_dev, ours.st_ino):
            if stat.S_ISREG(current.st_mode) and current.st_size == 0:
                return "it was replaced by an empty file"
            raise self._unusable_error("another file is in its place")
        if ours.st_size == 0 < self._size:
            return _EMPTIED
        if ours.st_size < self._size:
            raise self._unusable_error(f"it was cut from {self._size} to {ours.st_size} bytes")
        if ours.st_size > self._size and not self._torn:
            raise self._unusable_error("another process has written to it")
        return ""

    def _continue(self, at: int, why: str) -> None:
        """Continue the chain at the path, in a file whose first line says so. Raises ``OSError``."""
        line, head = continuation_line(self.head, why, at)
        file = self._file if why == _EMPTIED else self._open_next()
        try:
            if os.fstat(file).st_size:
                raise self._unusable_error("another file is in its place")
            try:
                os.fchmod(file, 0o600)
                _write_all(file, line)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, 0)  # the next call would consider half a line foreign content
                raise
        except BaseException:
            if file != self._file:
                os.close(file)
            raise
        if file != self._file:
            os.close(self._file)
        self._file, self._torn = file, False
        self.head, self._size = head, len(line)
        _sync_folder(self.path.parent)
        log.error("the audit log %s: %s while it was written; it continues in a new file", self.path, why)
        self._count("audit.continued", 1)

    def _open_next(self) -> int:
        try:
            return _open_locked(self.path)
        except (DataDirInUseError, FatalError) as error:
            raise self._unusable_error(f"another file is in its place ({error})") from error

    def _unusable_error(self, why: str) -> OSError:
        fix = "move it, and its chain continues in a new file"
        return OSError(errno.ESTALE, f"{self.path}: {why} while it was written; {fix}")

    def _alarm(self, message: str) -> None:
        if message and message != self._last_alarm:
            log.error("%s", message)
        self._last_alarm = message

    def _repair_end(self) -> None:
        """Cut off an incomplete last line, which was never acknowledged.

        Raises ``FatalError`` if it is not a line of an audit log: the file may not be ours.
        """
        size = os.fstat(self._file).st_size
        start = max(0, size - MAX_LINE)
        tail = os.pread(self._file, size - start, start)
        rest = tail[tail.rfind(b"\n") + 1 :]
        torn = len(rest)
        if torn:
            beginning = rest.rstrip(b"\0")[: len(_BEGINNING)]  # a power loss may leave zeros
            if not _BEGINNING.startswith(beginning):
                raise FatalError(f"{self.path} is not an audit log; set audit.file to another path")
            os.ftruncate(self._file, size - torn)
            os.fsync(self._file)
            self.repaired = f"{self.path}: a last line of {torn} bytes was torn by a crash and cut off"

    def _check_end(self) -> ChainHead:
        size = os.fstat(self._file).st_size
        start = max(0, size - MAX_LINE)
        lines = os.pread(self._file, size - start, start).splitlines(keepends=True)
        try:
            last = head_of(lines[-1]) if lines else ChainHead()
        except ValueError as error:
            raise self._damaged_error(f"its last line is damaged: {error}") from None
        known = self._known_head()
        if known is not None and known.seq > last.seq:
            raise self._damaged_error(f"its end is missing: it has {last.seq} lines, and had {known.seq}")
        if known is not None and known.seq == last.seq and known != last:
            raise self._damaged_error("its last line is not the one that was written")
        return last

    def _damaged_error(self, why: str) -> FatalError:
        fix = f"check it with `tieline command audit verify`, then move it and {self._head_path.name}"
        return FatalError(f"{self.path}: {why}; {fix}")

    def _known_head(self) -> ChainHead | None:
        try:
            return read_head(self.path)
        except (ValueError, RecursionError):
            raise self._damaged_error(f"{self._head_path.name} is damaged") from None

    def _write_head(self) -> None:
        """Write the head without fsync, and ignore errors: it may be older than the log, never newer."""
        new = self._head_path.with_name(self._head_path.name + ".new")
        self._written_head, self._head_written_at = self.head, time.monotonic()
        with contextlib.suppress(OSError):
            with open(new, "wb", opener=_private) as file:
                file.write(self.head.to_line())
            new.replace(self._head_path)


def _open_locked(path: Path) -> int:
    """Open the log with an exclusive lock of the file itself, not of its path."""
    fix = "stop it first, or give each worker its own audit.file"
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FatalError(f"{path} is not a regular file; set audit.file to another path")
            lock_exclusively(file, f"the audit log {path}", fix)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # deleted or replaced meanwhile: open what is at the path now


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(file: int, content: bytes) -> None:
    """Write the content; it is on the disk when this returns. Raises ``OSError``."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(file, remaining) :]
    os.fsync(file)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
