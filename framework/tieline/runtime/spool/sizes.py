"""How much waits in the spools of a folder, read beside a running worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tieline.broker.local.store import Store


class SpoolSize(NamedTuple):
    """A spool's name, what waits in it (records, bytes), and how many records its quarantine holds."""

    spool: str
    waiting: int
    bytes: int
    quarantined: int


def spool_sizes(folder: Path) -> Iterator[SpoolSize]:
    """Yield the size of every spool in a folder, by name. Raises ``StartupError`` for a damaged file."""
    for path in sorted(folder.glob("*.db")):
        with Store(path, owner=False) as store:
            waiting, size = store.size("spool")
            quarantined, _ = store.size("quarantine")
        yield SpoolSize(path.stem, waiting, size, quarantined)
