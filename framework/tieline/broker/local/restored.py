"""What changes in a log file that was restored from a backup.

What the file assigned after the backup was taken is lost, and known elsewhere: a sink's store may hold
records with those offsets, a device may have executed commands. So offsets continue far beyond all that may
have been assigned, and a changelog remembers when it was restored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from tieline.api import StartupError
from tieline.broker.local.file import connect
from tieline.broker.local.layout import OFFSET_MASK

SKIPPED_OFFSETS = 1 << 32
"""By how much offsets continue later: 50 days of a thousand records a second, and 250 restores."""
RESTORED = "restored"
"""The key in the table ``about``: when the file was last restored, in microseconds since 1970."""


def mark_restored(path: Path, restored_at: int, gap: tuple[str, str] | None = None) -> None:
    """Let every partition of a file continue at later offsets, and note when it was restored.

    A group that had read everything is set to the later offset too. ``gap``: change this topic alone. Its
    reader expects consecutive offsets, so the source offsets of this name note those without a record.

    No other process may use the file. Raises ``StartupError``.
    """
    connection = connect(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        highest: Any = connection.execute("SELECT coalesce(max(next), 0) FROM partition").get
        if highest + SKIPPED_OFFSETS > OFFSET_MASK - SKIPPED_OFFSETS:
            raise StartupError(
                f"{path.name} was restored too often: its offsets would become too large. Start with an "
                "empty data.dir"
            )
        if gap is not None:
            topic, name = gap
            connection.execute(
                "INSERT INTO source_offset SELECT ?1, CAST(next AS TEXT), CAST(next + ?2 AS TEXT) "
                "FROM partition WHERE start < next AND topic = (SELECT number FROM topic WHERE name = ?3) "
                "ON CONFLICT DO UPDATE SET next = excluded.next",
                (name, SKIPPED_OFFSETS, topic),
            )
        connection.execute(
            "UPDATE group_offset SET next = next + ?1 WHERE next = "
            "(SELECT next FROM partition WHERE id = group_offset.partition)",
            (SKIPPED_OFFSETS,),
        )
        connection.execute(
            "UPDATE partition SET next = next + ?1, "
            "start = CASE WHEN start = next THEN next + ?1 ELSE start END "
            "WHERE ?2 IS NULL OR topic = (SELECT number FROM topic WHERE name = ?2)",
            (SKIPPED_OFFSETS, None if gap is None else gap[0]),
        )
        connection.execute("INSERT OR REPLACE INTO about VALUES (?1, ?2)", (RESTORED, str(restored_at)))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except apsw.Error as error:
        raise StartupError(f"the copy of {path.name} cannot be used: {error}. Use another backup") from error
    finally:
        connection.close()
