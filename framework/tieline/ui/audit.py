"""The audit log of the pages: who changed what, when, from where, and what became of it.

``audit-pages.log`` below ``data.dir`` has one JSON object a line. A line is on disk before the change begins.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_LONGEST_VALUE = 500
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class PageAudit:
    """Appends to the file. Safe for many threads. Raises ``OSError`` if a line is not on disk."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()

    def append(self, event: str, details: Mapping[str, Any]) -> None:
        """Append one line. Long texts are shortened."""
        line = {"time_ms": int(self._clock() * 1000), "event": event, **_shorten(details)}
        with self._lock:
            file = os.open(self._path, _OPEN, 0o600)
            try:
                text = json.dumps(line, ensure_ascii=True, default=str) + "\n"
                size = os.fstat(file).st_size
                start = "" if not size or os.pread(file, 1, size - 1) == b"\n" else "\n"  # after a crash
                _write(file, (start + text).encode(), size)
                os.fsync(file)
            finally:
                os.close(file)


def _write(file: int, line: bytes, size: int) -> None:
    """Write a whole line, or none of it: a disk that is almost full takes a part."""
    try:
        while line:
            line = line[os.write(file, line) :]
    except OSError:
        os.ftruncate(file, size)
        raise


def _shorten(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key[:100]: _short(value) for key, value in details.items()}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _shorten(value)
    return value[:_LONGEST_VALUE] if isinstance(value, str) else value
