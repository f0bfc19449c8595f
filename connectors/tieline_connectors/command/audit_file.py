"""The audit log on disk: appended to and fsynced, one owner; what a crash tore is healed and told."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tieline.api import Fatal
from tieline.api.locks import lock_exclusively
from tieline_connectors.command.audit import MAX_LINE, Broken, Head, head_of, next_line, verify

_HEAD_EVERY = 1.0
"""Seconds: a head at each line would cost more than the line."""


class AuditFile:
    """Use it from one thread. ``path`` is the log; beside it ``path.head`` holds the hash of its last line.

    The head follows the log within a second (`keep_head`), and at ``close``; it may be older, never newer.

    ``healed``: what the opening found torn and cut off, as a sentence for the log; empty: nothing.
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the log and checks its end.

        Raises ``AlreadyOwned`` when another process has it, ``Fatal`` when its end is not what was written
        (it is left as it is), ``OSError``.
        """
        self.path = path
        self.healed = ""
        self._head_path = _head_path(path)
        self._file = _open_locked(path)
        try:
            self._heal()
            self.head, self._size = self._check_end(), os.fstat(self._file).st_size
            self._kept, self._kept_at = Head(), 0.0
            self._write_head()
            _sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, at: int, *events: Mapping[str, Any]) -> Head:
        """These events are on the disk when this returns; one fsync for all. Raises ``OSError``.

        After an error nothing of them counts: what may have been written is cut off by the next call.
        """
        head, lines = self.head, []
        for event in events:
            line, head = next_line(head, event, at)
            lines.append(line)
        if os.fstat(self._file).st_size != self._size:
            os.ftruncate(self._file, self._size)  # what an append that failed has left behind
        content = memoryview(b"".join(lines))
        while content:
            content = content[os.write(self._file, content) :]
        os.fsync(self._file)
        self.head, self._size = head, os.fstat(self._file).st_size
        self.keep_head()
        return head

    def keep_head(self) -> None:
        """Write the head if it has moved and is a second old; also when nothing is appended."""
        if self.head != self._kept and time.monotonic() >= self._kept_at + _HEAD_EVERY:
            self._write_head()

    def close(self) -> None:
        """Let the file go; twice is fine."""
        if self._file >= 0:
            if self.head != self._kept:
                self._write_head()
            os.close(self._file)
            self._file = -1

    def _heal(self) -> None:
        """Cut off a last line without its end: it was never acknowledged."""
        size = os.fstat(self._file).st_size
        start = max(0, size - MAX_LINE)
        tail = os.pread(self._file, size - start, start)
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if torn:
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

    def _refused(self, why: str) -> Fatal:
        way_out = f"look with `tieline command audit verify`, then move it and {self._head_path.name} away"
        return Fatal(f"{self.path}: {why}; {way_out}")

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
                raise Fatal(f"{path}: it is not a regular file; give audit.file another path")
            lock_exclusively(file, f"the audit log {path}", fix)
            os.fchmod(file, 0o600)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # deleted or replaced while it was opened: what is at the path now counts


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def verify_file(path: Path, head: Head | None = None) -> Broken | None:
    """The first broken place of a log on disk, also of one that is being written; none: it is whole.

    ``head``: a head kept elsewhere; none: the one beside the log, if it is there. Raises ``OSError``.
    """
    if head is None:
        try:
            head = head_beside(path)  # before the log: what is appended meanwhile makes it longer
        except (ValueError, RecursionError):
            return Broken(0, f"{_head_path(path).name} is damaged")
    with path.open("rb") as log:
        return verify(_lines(log), head)


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


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
