"""The contract of a source task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from tieline.api.config import Config
from tieline.api.record import Position, RecordMetadata, SourceRecord

C_contra = TypeVar("C_contra", bound=Config, contravariant=True)


class TransactionContext(Protocol):
    """Lets a source task set the bounds of its transactions (``transaction.boundary=connector``, KIP-618)."""

    def commit_transaction(self) -> None:
        """Commit after the batch that ``poll`` returns next."""

    def abort_transaction(self) -> None:
        """Throw away what is in the transaction, after the batch that ``poll`` returns next."""


class SourceContext(Protocol):
    """What the runtime offers a source task. Safe to use from threads of the task's own."""

    @property
    def connector(self) -> str:
        """The connector's name."""

    @property
    def task(self) -> int:
        """The task's number, from 0."""

    @property
    def stopping(self) -> bool:
        """True once the task was asked to stop."""

    @property
    def transaction(self) -> TransactionContext | None:
        """None unless the connector may set transaction bounds itself."""

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """The last saved source offset of each source partition, none where there is none."""

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the task's own counters, such as ``dropped.too_large``; shown with the ledger."""

    def connected(self, to: str) -> None:
        """Report that ``to`` is connected (again). Cheap: call it whenever that is so. From any thread."""

    def not_connected(self, to: str, because: str) -> None:
        """Report that ``to`` ("the platform at tcp://…") cannot be reached; call it at each attempt.

        It is logged at once, again with growing pauses, and shown with the ledger until ``connected``.
        Only for what a task does not raise ``Retriable`` for: that is reported by itself.
        """

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep something that cannot even be parsed, durably, bounded and counted; never raises.

        Kept where the source has a spool (``replayable = False``); only counted elsewhere.
        """


class SourceTask(ABC, Generic[C_contra]):
    """Reads from outside. In calling order, all from one thread but ``stop``:

    1. ``start(context, config)``: open the outside; ``context.offsets`` tells where to go on.
    2. ``poll(max_records, max_wait)``, again and again: the next batch. The records are then
       transformed, converted and produced; a source that cannot be asked again (``replayable = False``)
       gets a durable spool in between, and ``poll`` is called by a thread that does nothing else.
    3. ``commit_record(record, metadata)`` after the broker acknowledged a record (metadata none: it was
       filtered); in the order of the records of a partition. Not called for a spooled source, whose
       promise ends at the spool.
    4. ``commit()`` after offsets were saved.
    5. ``stop()``, **from another thread**: make a waiting ``poll`` return soon; called once, also when
       ``start`` failed. What ``poll`` still returns after it is handled as any batch.
    6. ``close()``: after the last call of the others, from the task's own thread: let everything go.

    Offsets are saved only after every earlier record of the same source partition is acknowledged:
    at least once. Raise ``Retriable`` for an outage, ``Fatal`` when waiting will not help.
    """

    replayable: ClassVar[bool] = True
    """False: what ``poll`` returned cannot be asked for again (a bus, MQTT)."""

    repeats_are_events: ClassVar[bool] = False
    """True: this source never gives one record twice, so that two with one ``identity`` are two events.

    The first keeps its identity, later ones get one that is made of it and their number: two redundant
    sources that see the same stream number alike. Only where ``replayable`` is false.
    """

    @abstractmethod
    def start(self, context: SourceContext, config: C_contra) -> None:
        """Open the outside. Called once. May raise ``Retriable``; it is then called again."""

    @abstractmethod
    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """The next batch: at most ``max_records``, after at most ``max_wait`` seconds (empty is fine).

        ``max_records`` is what fits now; returning early with less is right.
        """

    def commit_record(self, record: SourceRecord, metadata: RecordMetadata | None) -> None:
        """The broker has this record (metadata none: it was filtered)."""

    def commit(self) -> None:
        """Offsets were saved."""

    def stop(self) -> None:
        """Make a waiting ``poll`` return. From another thread."""

    def close(self) -> None:
        """Let everything go. Called once, last."""
