"""The status of a running worker in its ``data.dir``, for programs beside it such as ``tieline status``.

``workers/<host>-<pid>.json`` is replaced at every progress. ``….lock`` beside it is locked while the process
lives, so that the status of an ended worker is not mistaken for a running one's. If the folder cannot be
written, there is no status: a worker on Kafka needs no disk.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tieline.api import DataDirInUseError
from tieline.api.files import read_small_file
from tieline.api.locks import lock_exclusively
from tieline.api.private_files import make_private, open_private

log = logging.getLogger(__name__)
_FOLDER = "workers"
_LARGEST = 64 * 1024 * 1024


class StatusFile:
    """Keeps the status of this process in a file. One thread calls ``write``."""

    def __init__(self, data_dir: Path) -> None:
        """Lock the file. Never raises: without a disk there is no status."""
        name = f"{socket.gethostname() or 'localhost'}-{os.getpid()}"
        self._path = data_dir / _FOLDER / f"{name}.json"
        self._lock = -1
        try:
            _remove_stale(data_dir)
            lock = self._path.with_suffix(".lock")
            make_private(lock)
            self._lock = open_private(lock)
            lock_exclusively(self._lock, str(lock), "give this worker a data.dir of its own")
        except (OSError, DataDirInUseError) as error:
            log.info("no status is kept in %s: %s", self._path.parent, error)
            self._close()

    def write(self, status: Mapping[str, Any]) -> None:
        """Replace the status. Never raises: a worker works without one."""
        if self._lock < 0:
            return
        new = self._path.with_suffix(".new")
        try:
            file = open_private(new, os.O_TRUNC)
            with os.fdopen(file, "w", encoding="utf-8") as written:
                json.dump(status, written, default=str)
            new.replace(self._path)
        except (OSError, ValueError) as error:
            log.debug("the status cannot be written: %s", error)

    def close(self) -> None:
        """Release the lock. The last status stays until the next start."""
        self._close()

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def statuses(data_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the last status of each worker on this folder; ``running``: whether it lives."""
    for path in sorted((data_dir / _FOLDER).glob("*.json")):
        try:
            status = json.loads(read_small_file(path, _LARGEST))
        except (OSError, ValueError, RecursionError):
            continue  # being replaced, or not ours
        if isinstance(status, dict):
            yield {**status, "running": _is_locked(path.with_suffix(".lock"))}


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        lock_exclusively(file, str(path), "")
    except (DataDirInUseError, OSError):
        return True
    finally:
        os.close(file)
    return False


def _remove_stale(data_dir: Path) -> None:
    for path in (data_dir / _FOLDER).glob("*.lock"):
        if not _is_locked(path):
            for left in (path, path.with_suffix(".json"), path.with_suffix(".new")):
                with suppress(OSError):
                    left.unlink()
