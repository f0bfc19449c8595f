"""Locks that end with their process, on what is guarded itself, and the process that has one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tieline.api.errors import DataDirInUseError


def lock_exclusively(descriptor: int, what: str, fix: str) -> None:
    """Lock an open file or folder until it is closed, or its process ends, however it ends.

    The lock is the inode's: another path to it (a link, a mount, ``..``) meets the same lock, and a file
    that is deleted takes its lock with it. So lock what holds the data, not a file beside it. Raises
    ``DataDirInUseError`` with the process that has it; ``what`` and ``fix`` begin and end its sentence.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise already_owned(what, lock_holder(descriptor), fix) from None


def already_owned(what: str, process: int | None, fix: str) -> DataDirInUseError:
    """The error that names the process, as far as this system shows it."""
    named = f"process {process}" if process else "a process that is not visible from here (a container?)"
    return DataDirInUseError(f"{what} belongs to the running {named}; {fix}")


def lock_holder(descriptor: int) -> int | None:
    """The process that has this open file or folder locked; None where ``/proc`` does not show it."""
    found = os.fstat(descriptor)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    holders: dict[str, int] = {}
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        words = line.split()
        # "1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF"; a line with "->" only waits for the lock
        if len(words) >= 6 and words[1] == "FLOCK" and words[4].isdecimal():
            place, _, inode = words[5].rpartition(":")
            if inode == str(found.st_ino):
                holders[place] = int(words[4])
    # Some file systems (btrfs, overlayfs) show another device here than to stat.
    alone = next(iter(holders.values())) if len(holders) == 1 else None
    return holders.get(device, alone) or None
