"""The disk of a folder: its file system, and the duration of an fsync."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

_MEMORY = ("tmpfs", "ramfs")


def file_system(folder: Path) -> str:
    """Return the type of the file system, such as ext4."""
    longest, result = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, escaped, kind = line.split()[:3]
        mount_point = escaped.encode().decode("unicode_escape")
        if folder.resolve().is_relative_to(mount_point) and len(mount_point) >= len(longest):
            longest, result = mount_point, kind
    return result


def why_no_disk(folder: Path) -> str | None:
    """Return why an fsync in this folder cannot be measured, or ``None`` if it can."""
    kind = file_system(folder)
    return f"{folder} is on a {kind}: an fsync there does nothing" if kind in _MEMORY else None


class FsyncLoop:
    """Appends a page to a plain file and calls fsync repeatedly until the context ends.

    ``seconds`` has the duration of each append with its fsync. The loop pauses for ``pause`` seconds between
    two of them, so that it takes little disk time from the worker that is measured at the same time.
    """

    def __init__(self, folder: Path, pause: float = 0.01) -> None:
        self.seconds: list[float] = []
        self._path = folder / "fsync"
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        page = bytes(4096)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while not self._stop.wait(self._pause):
                start = time.monotonic()
                os.write(file, page)
                os.fsync(file)
                self.seconds.append(time.monotonic() - start)
        finally:
            os.close(file)
