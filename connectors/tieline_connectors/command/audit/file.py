"""The audit log on disk: appended to and fsynced, one owner; what a crash tore is healed and told."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tieline.api import DataDirInUseError, FatalError
from tieline.api.locks import lock_exclusively
from tieline_connectors.command.audit.chain import (
    MAX_LINE,
    Broken,
    Head,
    continued,
    head_of,
    next_line,
    verify,
)

log = logging.getLogger(__name__)

_EMPTIED = "it was emptied"
_LOOK_EVERY = _HEAD_EVERY = 1.0
"""Seconds: a head at each line would cost more than the line."""
_BEGINNING = b'{"at":'
"""How each line begins; nothing else is ever cut off."""


class AuditFile:
    """Use it from one thread. ``path`` is the log; beside it ``path.head`` holds the hash of its last line.

    The head follows the log within a second (`keep_head`), and at ``close``; it may be older, never newer.

    A log that was moved, deleted or emptied while it is written is continued by a new file at its path,
    before anything else is written; one that was changed in another way is not written any more.

    ``healed``: what the opening found torn and cut off, as a sentence for the log; empty: nothing.
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the log and checks its end.

        Raises ``DataDirInUseError`` if another process has the file open, ``FatalError`` if its end is not
        what was written (the file is left unchanged), and ``OSError``.
        """
        self.path = path
        self.healed = ""
        self._head_path = _head_path(path)
        self._file = _open_locked(path)
        try:
            self._heal()
            self.head, self._size = self._check_end(), os.fstat(self._file).st_size
            os.fchmod(self._file, 0o600)
            self._kept, self._kept_at = Head(), 0.0
            self._looked_at, self._torn, self._told = time.monotonic(), False, ""
            self.count: Callable[[str, int], None] = lambda name, number: None
            self._write_head()
            _sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, at: int, *events: Mapping[str, Any]) -> Head:
        """These events are on the disk, at the path, when this returns. Raises ``OSError``.

        After an error nothing of them counts: what may have been written is cut off by the next call.
        """
        if why := self._lost():
            self._continue(at, why)
        self._write(at, events)
        if why := self._lost():  # between that look and the write: they are where nobody looks for them
            self._continue(at, why)
            self._write(at, events)
        self.keep_head()
        return self.head

    def keep_head(self) -> None:
        """Write the head if it has moved and is a second old; see whether the log is still at its path."""
        now = time.monotonic()
        if now >= self._looked_at + _LOOK_EVERY:
            self._looked_at = now
            try:
                if why := self._lost():
                    self._continue(time.time_ns() // 1000, why)
                self._alarm("")
            except OSError as error:
                self._alarm(f"the audit log cannot be written, commands wait: {error}")
        if self.head != self._kept and now >= self._kept_at + _HEAD_EVERY:
            self._write_head()

    def close(self) -> None:
        """Let the file go; twice is fine."""
        if self._file >= 0:
            if self.head != self._kept:
                self._write_head()
            os.close(self._file)
            self._file = -1

    def _write(self, at: int, events: Sequence[Mapping[str, Any]]) -> None:
        head, lines = self.head, []
        for event in events:
            line, head = next_line(head, event, at)
            lines.append(line)
        if self._torn:
            os.ftruncate(self._file, self._size)  # what an append that failed has left behind
        self._torn = True
        _write_all(self._file, b"".join(lines))
        self.head, self._size, self._torn = head, os.fstat(self._file).st_size, False

    def _lost(self) -> str:
        """What has happened to our file, so that its path needs a new one; empty: it is as we left it.

        Raises ``OSError`` where only a person can say what to do.
        """
        ours = os.fstat(self._file)
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return "it was moved or deleted"
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            if stat.S_ISREG(there.st_mode) and there.st_size == 0:
                return "it was replaced by an empty file"
            raise self._unusable("another file is in its place")
        if ours.st_size == 0 < self._size:
            return _EMPTIED
        if ours.st_size < self._size:
            raise self._unusable(f"it was cut from {self._size} to {ours.st_size} bytes")
        if ours.st_size > self._size and not self._torn:
            raise self._unusable("somebody else has written to it")
        return ""

    def _continue(self, at: int, why: str) -> None:
        """Let the chain go on at the path, in a file that says so on its first line. Raises ``OSError``."""
        line, head = continued(self.head, why, at)
        file = self._file if why == _EMPTIED else self._another()
        try:
            if os.fstat(file).st_size:
                raise self._unusable("another file is in its place")
            try:
                os.fchmod(file, 0o600)
                _write_all(file, line)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, 0)  # half a line would be somebody else's content to the next call
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
        self.count("audit.continued", 1)

    def _another(self) -> int:
        try:
            return _open_locked(self.path)
        except (DataDirInUseError, FatalError) as error:
            raise self._unusable(f"another file is in its place ({error})") from error

    def _unusable(self, why: str) -> OSError:
        way_out = "move it away, and its chain continues in a new file"
        return OSError(errno.ESTALE, f"{self.path}: {why} while it was written; {way_out}")

    def _alarm(self, told: str) -> None:
        if told and told != self._told:
            log.error("%s", told)
        self._told = told

    def _heal(self) -> None:
        """Cut off a last line without its end: it was never acknowledged.

        Raises ``FatalError`` if the unfinished line is not a line of an audit log: the file may not be ours.
        """
        size = os.fstat(self._file).st_size
        start = max(0, size - MAX_LINE)
        tail = os.pread(self._file, size - start, start)
        rest = tail[tail.rfind(b"\n") + 1 :]
        torn = len(rest)
        if torn:
            begun = rest.rstrip(b"\0")[: len(_BEGINNING)]  # a power loss may leave zeros
            if not _BEGINNING.startswith(begun):
                raise FatalError(f"{self.path}: it is not an audit log; give audit.file another path")
            os.ftruncate(self._file, size - torn)
            os.fsync(self._file)
            self.healed = f"{self.path}: a last line of {torn} bytes was torn by a crash and cut off"

    def _check_end(self) -> Head:
        size = os.fstat(self._file).st_size
        start = max(0, size - MAX_LINE)
        lines = os.pread(self._file, size - start, start).splitlines(keepends=True)
        try:
            last = head_of(lines[-1]) if lines else Head()
        except ValueError as error:
            raise self._refused(f"its last line is damaged: {error}") from None
        known = self._known_head()
        if known is not None and known.seq > last.seq:
            raise self._refused(f"its end is missing: it has {last.seq} lines, and had {known.seq}")
        if known is not None and known.seq == last.seq and known != last:
            raise self._refused("its last line is another than the one that was written")
        return last

    def _refused(self, why: str) -> FatalError:
        way_out = f"look with `tieline command audit verify`, then move it and {self._head_path.name} away"
        return FatalError(f"{self.path}: {why}; {way_out}")

    def _known_head(self) -> Head | None:
        try:
            return head_beside(self.path)
        except (ValueError, RecursionError):
            raise self._refused(f"{self._head_path.name} is damaged") from None

    def _write_head(self) -> None:
        """Not fsynced, and no error if it fails: it may be older than the log, never newer."""
        new = self._head_path.with_name(self._head_path.name + ".new")
        self._kept, self._kept_at = self.head, time.monotonic()
        with contextlib.suppress(OSError):
            with open(new, "wb", opener=_private) as file:
                file.write(self.head.to_line())
            new.replace(self._head_path)


def _open_locked(path: Path) -> int:
    """The log, which nobody else writes. The lock is the file's own: it ends with the file at this path."""
    fix = "stop it first, or give each worker an audit.file of its own"
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FatalError(f"{path}: it is not a regular file; give audit.file another path")
            lock_exclusively(file, f"the audit log {path}", fix)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # deleted or replaced while it was opened: what is at the path now counts


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def verify_files(paths: Sequence[Path], head: Head | None = None) -> tuple[Path, Broken] | None:
    """The first broken place of a log on disk, also of one that is being written; none: it is whole.

    ``paths``: the log's files, the oldest first. ``head``: a head kept elsewhere; none: the one beside the
    last of them, if it is there. Raises ``OSError``.
    """
    if head is None:
        try:
            head = head_beside(paths[-1])  # before the log: what is appended meanwhile makes it longer
        except (ValueError, RecursionError):
            return paths[-1], Broken(0, f"{_head_path(paths[-1]).name} is damaged")
    place, start, number = paths[0], 0, 0

    def lines() -> Iterator[bytes]:
        nonlocal place, start, number
        for path in paths:
            place, start = path, number
            with path.open("rb") as opened:
                for line in _lines(opened):
                    number += 1
                    yield line

    broken = verify(lines(), head)
    return broken and (place, broken._replace(line=broken.line - start))


def verify_file(path: Path, head: Head | None = None) -> Broken | None:
    """The first broken place of a log that is one file; as `verify_files`."""
    found = verify_files([path], head)
    return found and found[1]


def head_beside(path: Path) -> Head | None:
    """The head beside a log: none where there is none, or an empty file, as a power loss may leave it.

    Raises ``ValueError`` where it is damaged, ``OSError``.
    """
    try:
        found = _head_path(path).read_bytes()
    except FileNotFoundError:
        return None
    return Head.parse(found) if found else None


def _head_path(log: Path) -> Path:
    return log.with_name(log.name + ".head")


def _lines(log: BinaryIO) -> Iterator[bytes]:
    """Lines of a bounded length; the writer's unfinished last one is not a line yet."""
    while line := log.readline(MAX_LINE + 1):
        if line.endswith(b"\n") or len(line) > MAX_LINE:
            yield line


def _write_all(file: int, content: bytes) -> None:
    """On the disk when it returns. Raises ``OSError``."""
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
