"""The CPU time and memory of a process, from the kernel."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all its threads since its start."""
    return _cpu_seconds(Path(f"/proc/{pid}"))


def cpu_seconds_of_threads(pid: int) -> dict[str, float]:
    """Return the same for each of its threads that has not ended, by the thread's id."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            found[task.name] = _cpu_seconds(task)
    return found


def peak_mb(pid: int) -> float:
    """Return the largest resident memory it has had."""
    return _read_mb(pid, "status", "VmHWM")


def pss_mb(pid: int) -> float:
    """Return its private memory plus its share of shared memory."""
    return _read_mb(pid, "smaps_rollup", "Pss")


def _cpu_seconds(folder: Path) -> float:
    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _read_mb(pid: int, file: str, name: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/{pid}/{file} has no {name}")
