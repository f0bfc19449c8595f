"""What became of the records of a spool, in its file, in one transaction with the pump's position."""

from __future__ import annotations

from collections.abc import Callable

from tieline.broker.local.reader import Waiting
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.runtime.spool.room import TOPIC
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.totals import Ended, PartitionView, Totals, decode_note, encode_note

_NAME = "totals"
_KEY = ("totals", "pump")


class SpoolTotals:
    """Totals up to the position that the pump has saved. The pump's thread changes them, any may read.

    ``skipped`` is what left the spool and was not sent: dropped because it was full, quarantined, or lost.
    """

    def __init__(self, store: Store, now_ms: int, alarms: Alarms) -> None:
        self._store = store
        self._alarms = alarms
        self._since = now_ms
        self._begun_at = store.waiting(TOPIC, _KEY).start
        self._base = Totals(now_ms, self._begun_at)

    def begin(self) -> int:
        """Begin to count for a new pump. Return where the spool starts. Raises ``RetriableError``."""
        waiting = self._store.waiting(TOPIC, _KEY)
        self._base = self._saved(waiting)[1]
        return waiting.start

    def change(self, position: int, ended: Ended) -> Callable[[Tables], object]:
        """Return the change that stores the totals up to a position. ``ended``: since ``begin``."""
        totals = self._base.plus(ended)
        passed = position - totals.first
        totals = totals._replace(skipped=max(0, passed - totals.received))
        if mismatch := totals.mismatch(position, gapless=False):
            self._alarms.raise_alarm(
                "mismatch",
                f"the ledger of the spool {self._store.path} counts {mismatch} records more than have "
                "left it. Compare the topics with the source; a new file begins a new count",
            )
        text = f"{position} {encode_note(totals)}"
        return lambda tables: tables.save_source_offsets(_KEY[0], {_KEY[1]: text})

    def view(self) -> tuple[Waiting, PartitionView]:
        """Return what waits and the totals, at one moment. Raises ``RetriableError``."""
        waiting = self._store.waiting(TOPIC, _KEY)
        position, totals = self._saved(waiting)
        mismatch = totals.mismatch(position, gapless=False)
        return waiting, PartitionView(totals, position, waiting.records, mismatch)

    def _saved(self, waiting: Waiting) -> tuple[int, Totals]:
        """Return the stored totals and their position; new ones if there are none that can be read."""
        position, _, note = (waiting.saved or "").partition(" ")
        totals = decode_note(note)
        if totals is None or not position.isdecimal():
            return self._begun_at, Totals(self._since, self._begun_at)
        return int(position), totals
