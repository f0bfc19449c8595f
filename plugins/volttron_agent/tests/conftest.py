"""What the tests of the agent begin with."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tieline.testing.signals import keep_ignored_signals_from_children

ROOT = Path(__file__).parents[3]
# Environments of our own: what is installed here must not be in those that others test with.
os.environ["TIELINE_LAB_DIR"] = str(
    Path(os.environ.get("TIELINE_LAB_DIR") or ROOT / ".lab").absolute() / "agent"
)

keep_ignored_signals_from_children()


@pytest.fixture(scope="session")
def tieline() -> str:
    """The program, in an environment of its own."""
    program = shutil.which("tieline", path=str(Path(sys.executable).parent))
    assert program, "tieline is not installed beside this Python: make .venv/.check"
    return program


def until(happened: Callable[[], Any], seconds: float = 20.0, *, what: str = "it did not happen") -> Any:
    """What ``happened`` returns, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, f"{what} in {seconds:g} s"
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    """Whether this process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
