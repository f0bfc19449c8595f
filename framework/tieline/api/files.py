"""Reads small files that a setting names, without ever waiting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1024 * 1024


def read_small_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    A device, named pipe, socket or folder is rejected without waiting, and so are files of ``/proc`` and
    ``/sys``, whose size is unknown. Raises ``OSError``, or ``ValueError`` with the reason.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        if status.st_size > limit:
            raise ValueError(f"is larger than {limit} bytes")
        if status.st_size == 0:
            if path.resolve().parts[1:2] == ("proc",):
                raise ValueError("is not a file on a disk")
            return b""
        content = b""
        while len(content) <= limit and (chunk := os.read(file, limit + 1 - len(content))):
            content += chunk
        if len(content) > limit:
            raise ValueError(f"is larger than {limit} bytes")
        return content
    finally:
        os.close(file)
