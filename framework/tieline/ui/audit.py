"""The audit log of the pages: who changed what, when, from where, and what became of it.

``audit-pages.log`` below ``data.dir`` has one JSON object a line. A line is on disk before the change begins.
A file that has become large is kept as ``audit-pages.<number>.log``, and the first line of the next one has
its SHA-256. So a change of an older file is noticed, and the newest hundred megabytes are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tieline.api.private_files import sync_folder

log = logging.getLogger(__name__)

MAX_BYTES = 5_000_000
KEPT = 20
"""So many older files are kept: sign-ins that are refused are lines, too, and must not fill the disk."""
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
        line = self._line(event, _shorten(details))
        with self._lock:
            self._rotate()
            file = os.open(self._path, _OPEN, 0o600)
            try:
                size = os.fstat(file).st_size
                if not size:
                    line = self._continuation() + line
                elif os.pread(file, 1, size - 1) != b"\n":  # after a crash
                    line = b"\n" + line
                _write(file, line, size)
                os.fsync(file)
            finally:
                os.close(file)

    def _line(self, event: str, details: Mapping[str, Any]) -> bytes:
        line = {"time_ms": int(self._clock() * 1000), "event": event, **details}
        return (json.dumps(line, ensure_ascii=True, default=str) + "\n").encode()

    def _rotate(self) -> None:
        """Keep a large file under a number of its own, and delete the oldest of too many."""
        try:
            if self._path.stat().st_size < MAX_BYTES:
                return
            older = self._older()
            number = max(older, default=0) + 1
            self._path.rename(self._path.with_suffix(f".{number}{self._path.suffix}"))
            for each in sorted(older)[: len(older) + 1 - KEPT]:
                older[each].unlink()
            sync_folder(self._path.parent)
        except FileNotFoundError:
            return
        except OSError:  # a long file is better than no line
            log.exception("the audit log of the pages cannot be continued in a new file")

    def _older(self) -> dict[int, Path]:
        name = re.compile(rf"{re.escape(self._path.stem)}\.(\d{{1,9}}){re.escape(self._path.suffix)}")
        found = ((name.fullmatch(path.name), path) for path in self._path.parent.iterdir())
        return {int(match[1]): path for match, path in found if match}

    def _continuation(self) -> bytes:
        """Return the first line of a file that continues another one; empty for the first file."""
        older = self._older()
        if not older:
            return b""
        newest = older[max(older)]
        return self._line(
            "continues", {"file": newest.name, "sha256": hashlib.sha256(newest.read_bytes()).hexdigest()}
        )


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
