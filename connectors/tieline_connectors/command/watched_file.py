"""Read files that other programs write, which may be incomplete, not a regular file, or not answer.

Opening a file on a network mount, or a FIFO anywhere, may block forever. So another thread reads it, and the
caller waits for a bounded time.
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

TIMEOUT = 2.0
"""Seconds that a call may take."""
_SCHEDULING_GRACE = 0.25
"""Additional seconds: after a suspension the timeout is over, and the call may not even have started."""
_IDLE = 10.0
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class FileTimeoutError(Exception):
    """The file system did not answer in time."""


class BoundedCall(Generic[T]):
    """Calls a function with a timeout, one call at a time; from any thread. Its own thread ends when idle."""

    def __init__(self, function: Callable[[], T], timeout: float = TIMEOUT) -> None:
        """``function`` may block forever; then only this object is affected."""
        self._function = function
        self._timeout = timeout
        self._jobs: queue.SimpleQueue[_Job[T]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._hung: _Job[T] | None = None

    def __call__(self) -> T:
        """Return the result of a call that starts now. Raises what it raised, or `FileTimeoutError`."""
        with self._lock:
            if self._hung is not None and not self._hung.done.is_set():
                self._ensure_thread()
                raise FileTimeoutError
            self._hung = None
            job: _Job[T] = _Job()
            self._jobs.put(job)
            self._ensure_thread()
            if not job.done.wait(self._timeout):
                self._ensure_thread()  # its thread may have ended just before the call
                if not job.done.wait(_SCHEDULING_GRACE):
                    self._hung = job
                    raise FileTimeoutError
        if job.error is not None:
            raise job.error
        return job.result[0]

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="file reader", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE)
            except queue.Empty:
                return
            try:
                job.result.append(self._function())
            except Exception as error:  # noqa: BLE001 - the caller's thread raises it
                job.error = error
            job.done.set()


class _Job(Generic[T]):
    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: list[T] = []
        self.error: Exception | None = None


class Content(NamedTuple):
    """A file's text, and what the file system says of the file at that moment.

    ``file``: device and inode. ``stamp``: changes with each change of the file. ``written``: whether a
    process has it open for writing, ``None`` if this system cannot tell. ``moved``: whether it got its name
    after its content.
    """

    file: tuple[int, int]
    stamp: tuple[int, ...]
    text: str
    written: bool | None = False
    moved: bool = False


def read_content(path: Path, max_bytes: int, known: tuple[int, ...] | None = None) -> Content | None:
    """Return the content of a file; ``None`` if its stamp is ``known``, so that nothing has changed.

    Raises ``OSError``, or ``ValueError`` if it is not a regular file, too large, or not UTF-8.
    """
    status = os.stat(path)
    if (kind := stat.S_IFMT(status.st_mode)) != stat.S_IFREG:
        raise ValueError(f"it is {_KINDS.get(kind, 'not a regular file')}")
    if known is not None and _stamp(status) == known:
        return None
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError("it is not a regular file")
        with os.fdopen(os.dup(file), "rb") as opened:
            raw = opened.read(max_bytes + 1)
        if len(raw) > max_bytes:
            raise ValueError(f"it is larger than {max_bytes} bytes")
        written = _is_open_for_writing(file)
        after = os.fstat(file)
    finally:
        os.close(file)
    changed = _stamp(before) != _stamp(after)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from None
    moved = after.st_ctime_ns > after.st_mtime_ns
    return Content((after.st_dev, after.st_ino), _stamp(after), text, changed or written, moved)


def kill_switch_reason(path: Path) -> str | None:
    """Return why a kill switch is engaged; ``None`` only if its file certainly does not exist."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(path)
    except FileNotFoundError:
        return _reason_if_absent(path)
    except OSError as error:
        return f"its file cannot be accessed ({error.strerror})"
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        return f"its file is {_KINDS.get(kind, 'not a regular file')}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(file, "rb") as opened:
            return opened.readline(200).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""  # it existed a moment ago
    except OSError as error:
        return f"its file cannot be read ({error.strerror})"


def _reason_if_absent(path: Path) -> str | None:
    """Return why it is unknown whether the file exists; ``None`` if it certainly does not."""
    if os.path.islink(path):
        return "its file is a broken link"
    if not os.path.isdir(path.parent):
        return f"its folder {path.parent} does not exist"
    return None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_open_for_writing(file: int) -> bool | None:
    """Return whether a process has the file open for writing: then the kernel grants no lease to read it.

    The signal of a broken lease is set to one that is ignored by default.
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
