"""VOLTTRON's pinned packages, installed in a virtual environment of their own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tieline_lab.cache import FILES, cache_folder, create_once
from tieline_lab.process import ProcessError, run
from tieline_lab.volttron.home import Generation


def why_not() -> str | None:
    """Return why this machine cannot run VOLTTRON, or ``None`` if it can."""
    if _find_python():
        return None
    return "VOLTTRON needs Python 3.10, 3.11 or 3.12: none of them was found. Install one and add it to PATH"


def install(generation: Generation, say: Callable[[str], None] = print) -> Path:
    """Return VOLTTRON's virtual environment; the first call creates it in about 25 s."""
    requirements = FILES / f"volttron-{generation}-requirements.txt"
    python = _find_python()
    if python is None:
        raise ProcessError(str(why_not()))

    def create(folder: Path) -> None:
        say(f"installing VOLTTRON {generation}.x into {folder}")
        run([python, "-m", "venv", str(folder / "venv")])
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "-q", "-r", str(requirements)])

    recipe = f"{python} {requirements.read_text()}"
    return create_once(cache_folder() / f"volttron-{generation}", recipe, create) / "venv"


def _find_python() -> str | None:
    """Return a Python for which VOLTTRON's pinned packages have wheels, or ``None``."""
    if sys.hexversion < 0x030D0000:
        return os.path.realpath(sys.executable)
    return next(filter(None, map(shutil.which, ("python3.12", "python3.11", "python3.10"))), None)
