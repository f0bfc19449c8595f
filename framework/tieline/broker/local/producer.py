"""A producer on the local log. A unit is in one transaction, which units of other producers may share."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout

from tieline.api import DataError, RetriableError, TielineError
from tieline.broker.local.layout import Appended
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.records import Delivery, Unit

_OVERHEAD = 256
"""Bytes of memory for a record besides its content."""


class LocalProducer:
    """A ``Producer`` on the local log. If a unit cannot be written, no later one is, so that order is kept.

    A unit's source offsets and their notes are written with it, up to the first record that can never be
    written. From then on only ``save_offsets`` stores them, because only the task's delivery ledger knows
    what became of that record.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._in_flight: deque[tuple[Unit, int, Future[Appended]]] = deque()
        self._in_flight_bytes = 0
        self._broken: BaseException | None = None
        self._offsets_with_units = True  # used by the writer's thread alone

    @property
    def in_flight_bytes(self) -> int:
        """The bytes that were sent and not yet reported; see ``Producer.in_flight_bytes``."""
        return self._in_flight_bytes

    def send(self, unit: Unit) -> None:
        """Send a unit without waiting; see ``Producer.send``."""
        size = sum(_OVERHEAD + len(r.value or b"") + len(r.key or b"") for r in unit.records)
        future = self._store.submit(lambda tables: self._write(tables, unit))
        future.add_done_callback(self._note_end)  # in the writer's thread, before the next unit
        self._in_flight.append((unit, size, future))
        self._in_flight_bytes += size

    def poll(self, timeout: float) -> list[Delivery]:
        """Return the units that have ended; see ``Producer.poll``."""
        ended: list[Delivery] = []
        while self._in_flight:
            unit, size, future = self._in_flight[0]
            if ended and not future.done():
                break
            try:
                appended = future.result(timeout)
            except FutureTimeout:
                break
            except Exception:
                if ended:
                    break  # report these first; the next call raises
                self._in_flight.clear()
                self._in_flight_bytes = 0
                raise
            self._in_flight.popleft()
            self._in_flight_bytes -= size
            failures = {index: DataError({index: cause}) for index, cause in appended.failures.items()}
            ended.append(Delivery(unit, appended.metadata, failures))
        return ended

    def save_offsets(
        self,
        connector: str,
        offsets: Mapping[str, str],
        timeout: float,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Store source offsets, and return when they are stored; see ``Producer.save_offsets``.

        Does nothing while each unit stores its own offsets: to store them again could set back an offset of
        a later unit that is not reported yet.
        """
        if not self._offsets_with_units:
            self._store.save_source_offsets(connector, offsets, timeout, notes)

    def close(self, timeout: float) -> None:
        """Close, abandoning what is not acknowledged in time; see ``Producer.close``."""
        if self._in_flight:
            try:
                self._in_flight[-1][2].result(timeout)
            except (TielineError, FutureTimeout, CancelledError):
                for _, _, future in reversed(self._in_flight):
                    future.cancel()
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def _write(self, tables: Tables, unit: Unit) -> Appended:
        """Write a unit, in the writer's thread."""
        if self._broken is not None:
            raise RetriableError(f"an earlier unit of this producer was not written: {self._broken}")
        appended = tables.append(unit.records)
        if appended.failures:
            self._offsets_with_units = False
        if unit.offsets and self._offsets_with_units:
            tables.save_source_offsets(unit.connector, unit.offsets, unit.notes)
        return appended

    def _note_end(self, future: Future[Appended]) -> None:
        if self._broken is None:
            self._broken = CancelledError() if future.cancelled() else future.exception()
