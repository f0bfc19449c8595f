"""What a backup copies from a worker's folder, and in which order; pure.

A worker writes while it is copied, so the files are not of one moment. The order makes that harmless: a file
that something is moved *to* is copied after the file that it is moved *from*.

1. What a source noted as received, then its spool: the note is older, so the source fetches more again.
   Spools, then the log: a record that leaves a spool meanwhile is in both copies, never in neither.
2. The log and the ledger of commands, at one moment. The ledger is newer by some milliseconds: it may know
   commands that the log does not call done, never the other way.
3. The head of an audit log before the log: a head may be older, never newer.
4. Everything else: stores of a sink are newer than the offsets in the log, and an audit log is newer than the
   ledger. So a record is delivered to a store again, never left out, and no step lacks its audit line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

Kind = Literal["sqlite", "bytes"]

_OF_A_RUN = re.compile(r".*(\.lock|\.reserve|\.new|\.bell|-wal|-shm|-journal|\.db\.mark)")
"""Files that belong to a running process or to SQLite; they are recreated."""
_FOLDERS_OF_A_RUN = {"workers", "lost+found"}


class BackupFile(NamedTuple):
    """A file to copy: its path below ``data.dir``, and how it is copied."""

    path: str
    kind: Kind


def is_state(path: str) -> bool:
    """Return whether a file below ``data.dir`` belongs in a backup."""
    parts = PurePosixPath(path).parts
    return parts[0] not in _FOLDERS_OF_A_RUN and not _OF_A_RUN.fullmatch(parts[-1])


def steps(paths: Iterable[str]) -> list[Sequence[BackupFile]]:
    """Return the files in the order of copying; the snapshots of one step are taken together."""
    found = sorted({path for path in paths if is_state(path)})
    received = [path for path in found if path.endswith(".received")]
    spools = [path for path in found if _is_sqlite(path) and path.startswith("spools/")]
    core = [path for path in ("log.db", "ledger.db") if path in found]
    heads = [path for path in found if path.endswith(".head")]
    done = {*received, *spools, *core, *heads}
    rest = [path for path in found if path not in done]
    in_order = [[path] for path in (*received, *spools)] + [core] + [[path] for path in (*heads, *rest)]
    return [
        [BackupFile(path, "sqlite" if _is_sqlite(path) else "bytes") for path in step]
        for step in in_order
        if step
    ]


def _is_sqlite(path: str) -> bool:
    return path.endswith(".db")
