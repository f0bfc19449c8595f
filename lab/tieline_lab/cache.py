"""Where the lab keeps what it downloads: environment variable TIELINE_LAB_DIR, else ``.lab``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

FILES = Path(__file__).with_name("files")
"""What the servers are made from: lists of pinned packages, settings, our driver."""


def cache_folder() -> Path:
    """The folder for downloads, absolute."""
    return Path(os.environ.get("TIELINE_LAB_DIR") or ".lab").absolute()


def once(folder: Path, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return ``folder``, made by ``make(folder)`` if it is not there yet or was made from another recipe.

    A stamp with the recipe's hash is written last: a folder whose making was interrupted has none and
    is made anew. A second process that wants the same folder waits for the first.
    """
    stamp = folder / "complete"
    wanted = hashlib.sha256(recipe.encode()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.is_file() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            stamp.write_text(wanted)
    return folder
