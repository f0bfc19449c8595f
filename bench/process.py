"""The CPU time and memory of a process, from the kernel."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all its threads since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mb(pid: int) -> float:
    """Return the largest resident memory it has had."""
    return _read_mb(pid, "status", "VmHWM")


def pss_mb(pid: int) -> float:
    """Return its private memory plus its share of shared memory."""
    return _read_mb(pid, "smaps_rollup", "Pss")


def _read_mb(pid: int, file: str, name: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/{pid}/{file} has no {name}")
