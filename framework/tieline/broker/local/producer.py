"""A producer on the local log: one transaction a unit, shared with whoever commits at that moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout

from tieline.api import DataError, RetriableError
from tieline.broker.local.layout import Appended
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.port import Delivery, Unit

_OVERHEAD = 256
"""What a small record takes in memory beside its bytes."""


class LocalProducer:
    """After a unit could not be written (a full disk), none of the later ones is: order is kept.

    A unit's source offsets are written with it, up to the first record that can never be written; from
    then on only ``save_offsets`` stores them, because only the task's ledger knows what became of it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._in_flight: deque[tuple[Unit, int, Future[Appended]]] = deque()
        self._in_flight_bytes = 0
        self._broken: BaseException | None = None
        self._offsets_with_units = True  # the writer's thread alone

    @property
    def in_flight_bytes(self) -> int:
        """See ``Producer.in_flight_bytes``."""
        return self._in_flight_bytes

    def send(self, unit: Unit) -> None:
        """See ``Producer.send``."""
        size = sum(_OVERHEAD + len(r.value or b"") + len(r.key or b"") for r in unit.records)
        future = self._store.submit(lambda tables: self._write(tables, unit))
        future.add_done_callback(self._ended)  # in the writer's thread, before it turns to the next unit
        self._in_flight.append((unit, size, future))
        self._in_flight_bytes += size

    def poll(self, timeout: float) -> list[Delivery]:
        """See ``Producer.poll``."""
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
                    break  # these first; the next call raises
                self._in_flight.clear()
                self._in_flight_bytes = 0
                raise
            self._in_flight.popleft()
            self._in_flight_bytes -= size
            failures = {index: DataError({index: cause}) for index, cause in appended.failures.items()}
            ended.append(Delivery(unit, appended.metadata, failures))
        return ended

    def save_offsets(self, connector: str, offsets: Mapping[str, str], timeout: float) -> None:
        """See ``Producer.save_offsets``: nothing to do while each unit brings its own.

        Storing them again could set back what a later unit, not reported yet, has stored already.
        """
        if not self._offsets_with_units:
            self._store.save_source_offsets(connector, offsets, timeout)

    def close(self, timeout: float) -> None:
        """See ``Producer.close``."""
        if self._in_flight:
            try:
                self._in_flight[-1][2].result(timeout)
            except Exception:
                for _, _, future in reversed(self._in_flight):
                    future.cancel()
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def _write(self, tables: Tables, unit: Unit) -> Appended:
        """In the writer's thread."""
        if self._broken is not None:
            raise RetriableError(f"an earlier unit of this producer was not written: {self._broken}")
        appended = tables.append(unit.records)
        if appended.failures:
            self._offsets_with_units = False
        if unit.offsets and self._offsets_with_units:
            tables.save_source_offsets(unit.connector, unit.offsets)
        return appended

    def _ended(self, future: Future[Appended]) -> None:
        if self._broken is None:
            self._broken = CancelledError() if future.cancelled() else future.exception()
