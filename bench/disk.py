"""The disk under a folder: what it is, and how long its own fsync takes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

_MEMORY = ("tmpfs", "ramfs")


def file_system(folder: Path) -> str:
    """Its type, such as ext4."""
    found = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, kind = line.split()[:3]
        place = mounted.encode().decode("unicode_escape")
        if folder.resolve().is_relative_to(place) and len(place) >= len(found[0]):
            found = place, kind
    return found[1]


def why_no_disk(folder: Path) -> str | None:
    """Why nothing can be said here about fsync; none if it can."""
    kind = file_system(folder)
    return f"{folder} is on a {kind}: an fsync there does nothing" if kind in _MEMORY else None


class FsyncLoop:
    """Appends a page to a plain file and calls fsync, again and again while the context lasts.

    ``seconds``: how long each append and fsync took. Between two of them it rests, so that it takes little
    of the disk from what it stands beside.
    """

    def __init__(self, folder: Path, rest: float = 0.01) -> None:
        self.seconds: list[float] = []
        self._path = folder / "fsync"
        self._rest = rest
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        page = bytes(4096)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while not self._over.wait(self._rest):
                begun = time.monotonic()
                os.write(file, page)
                os.fsync(file)
                self.seconds.append(time.monotonic() - begun)
        finally:
            os.close(file)
