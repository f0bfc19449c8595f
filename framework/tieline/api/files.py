"""Reading small files that a setting names, without waiting for anything and without surprises."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1024 * 1024


def read_small_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The whole content of a regular file of at most ``limit`` bytes.

    A device, a named pipe, a socket or a folder is refused and not waited for; so are the files of
    ``/proc`` and ``/sys``, whose size is not known. Raises ``OSError``, and ``ValueError`` with the reason.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a regular file")
        if found.st_size > limit:
            raise ValueError(f"is larger than {limit} bytes")
        if found.st_size == 0:
            if path.resolve().parts[1:2] == ("proc",):
                raise ValueError("is not a file on a disk")
            return b""
        content = b""
        while len(content) <= limit and (more := os.read(file, limit + 1 - len(content))):
            content += more
        if len(content) > limit:
            raise ValueError(f"is larger than {limit} bytes")
        return content
    finally:
        os.close(file)
