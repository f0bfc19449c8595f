"""The folder for the lab's downloads: environment variable TIELINE_LAB_DIR, else ``.lab``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

FILES = Path(__file__).with_name("files")
"""Files for the servers: lists of pinned packages, settings, the lab's driver."""


def cache_folder() -> Path:
    """Return the absolute folder for downloads."""
    return Path(os.environ.get("TIELINE_LAB_DIR") or ".lab").absolute()


def create_once(folder: Path, recipe: str, create: Callable[[Path], None]) -> Path:
    """Return ``folder``; ``create(folder)`` fills it if it is missing or has another recipe.

    A stamp with the recipe's hash is written last, so that an interrupted folder is recreated. A second
    process that needs the same folder waits for the first one.
    """
    stamp = folder / "complete"
    wanted = hashlib.sha256(recipe.encode()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.is_file() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            create(folder)
            stamp.write_text(wanted)
    return folder
