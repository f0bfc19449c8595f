"""Locks on files and folders that end with their process, and the process that holds one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tieline.api.errors import DataDirInUseError


def lock_exclusively(descriptor: int, what: str, fix: str) -> None:
    """Lock an open file or folder until it is closed or its process ends.

    The lock belongs to the inode: another path to it (a link, a mount, ``..``) has the same lock, and a
    deleted file takes its lock with it. Therefore lock the data itself, not a file beside it. Raises
    ``DataDirInUseError`` with the process that holds the lock; its message begins with ``what`` and ends
    with ``fix``.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise already_owned(what, lock_holder(descriptor), fix) from None


def already_owned(what: str, process: int | None, fix: str) -> DataDirInUseError:
    """Return the error that names the process, if this system shows it."""
    named = f"process {process}" if process else "a process that is not visible from here (a container?)"
    return DataDirInUseError(f"{what} belongs to the running {named}; {fix}")


def lock_holder(descriptor: int) -> int | None:
    """Return the process that has locked this file or folder, or ``None`` if ``/proc`` does not show it."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    holders: dict[str, int] = {}
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        words = line.split()
        # "1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF"; a line with "->" only waits for the lock
        if len(words) >= 6 and words[1] == "FLOCK" and words[4].isdecimal():
            lock_device, _, inode = words[5].rpartition(":")
            if inode == str(status.st_ino):
                holders[lock_device] = int(words[4])
    # Some file systems (btrfs, overlayfs) show another device here than in stat.
    only_holder = next(iter(holders.values())) if len(holders) == 1 else None
    return holders.get(device, only_holder) or None
