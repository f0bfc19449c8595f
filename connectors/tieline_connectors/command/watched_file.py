"""Looking at files that others write: one that is half-written, is no file at all, or does not answer.

A file on a network mount may keep whoever opens it waiting for ever, and a FIFO does so anywhere. So a
look is made by a thread of its own, and whoever asks waits for a bounded time.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that a look may take."""
_GRACE = 0.25
"""Seconds more: a process that was stopped finds its patience at an end, and the look not even begun."""
_IDLE = 10.0
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Hung(Exception):
    """The file system has not answered in time."""


class Looker(Generic[T]):
    """Makes looks of one kind, one at a time; from any thread. Its thread ends by itself when it is idle."""

    def __init__(self, look: Callable[[], T], patience: float = PATIENCE) -> None:
        """``look``: what is done; it may block for ever, and hurts nobody but this object then."""
        self._look = look
        self._patience = patience
        self._asked: queue.SimpleQueue[_Job[T]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._hung: _Job[T] | None = None

    def __call__(self) -> T:
        """What a look that is begun now finds. Raises what it raised, or `Hung`."""
        with self._lock:
            if self._hung is not None and not self._hung.done.is_set():
                self._be_served()
                raise Hung
            self._hung = None
            job: _Job[T] = _Job()
            self._asked.put(job)
            self._be_served()
            if not job.done.wait(self._patience):
                self._be_served()  # its thread may have ended just when it was asked
                if not job.done.wait(_GRACE):
                    self._hung = job
                    raise Hung
        if job.error is not None:
            raise job.error
        return job.found[0]

    def _be_served(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="look", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                job = self._asked.get(timeout=_IDLE)
            except queue.Empty:
                return
            try:
                job.found.append(self._look())
            except Exception as error:
                job.error = error
            job.done.set()


class _Job(Generic[T]):
    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: list[T] = []
        self.error: Exception | None = None


class Content(NamedTuple):
    """A file's text, and what the file system says of the file at that moment.

    ``file``: which file it is, whatever its path. ``stamp``: changes with each change of it. ``written``:
    whether a process has it open for writing, none: this cannot be known here. ``moved``: whether it got its
    name after its content.
    """

    file: tuple[int, int]
    stamp: tuple[int, ...]
    text: str
    written: bool | None = False
    moved: bool = False


def content_of(path: Path, longest: int, known: tuple[int, ...] | None = None) -> Content | None:
    """The content of a file; none: its stamp is ``known``, so nothing has changed.

    Raises ``OSError``, or ``ValueError`` on what is no regular file, too large, or no UTF-8.
    """
    if (kind := stat.S_IFMT((found := os.stat(path)).st_mode)) != stat.S_IFREG:
        raise ValueError(f"it is {_KINDS.get(kind, 'no regular file')}")
    if known is not None and _stamp(found) == known:
        return None
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError("it is no regular file")
        with os.fdopen(os.dup(file), "rb") as opened:
            raw = opened.read(longest + 1)
        if len(raw) > longest:
            raise ValueError(f"it is larger than {longest} bytes")
        written = _is_written(file)
        after = os.fstat(file)
    finally:
        os.close(file)
    changed = _stamp(before) != _stamp(after)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 (byte {error.start})") from None
    moved = after.st_ctime_ns > after.st_mtime_ns
    return Content((after.st_dev, after.st_ino), _stamp(after), text, changed or written, moved)


def engaged(path: Path) -> str | None:
    """Why a kill switch is engaged; none: its file is clearly not there, and nothing else is clear enough."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            found = os.stat(path)
    except FileNotFoundError:
        return _absent(path)
    except OSError as error:
        return f"its file cannot be looked at ({error.strerror})"
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        return f"its file is {_KINDS.get(kind, 'no regular file')}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(file, "rb") as opened:
            return opened.readline(200).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""  # it was there a moment ago
    except OSError as error:
        return f"its file cannot be read ({error.strerror})"


def _absent(path: Path) -> str | None:
    """A name that leads nowhere: is nothing there, or can nobody say?"""
    if os.path.islink(path):
        return "its file is a link that leads nowhere"
    if not os.path.isdir(path.parent):
        return f"its folder {path.parent} is not there"
    return None


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_written(file: int) -> bool | None:
    """Whether a process has the file open for writing: then the kernel grants nobody a lease to read it.

    The signal that tells of a broken lease is one that is ignored unless somebody asks for it.
    """
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return None
    return False
