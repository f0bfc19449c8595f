"""The contract of a source task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from tieline.api.config import Config
from tieline.api.record import Position, RecordMetadata, SourceRecord

C = TypeVar("C", bound=Config)


class TransactionContext(Protocol):
    """Reserved: lets a source task set the bounds of its transactions (``transaction.boundary``, KIP-618)."""

    def commit_transaction(self) -> None:
        """Commit after the batch that ``poll`` returns next."""

    def abort_transaction(self) -> None:
        """Discard what is in the transaction, after the batch that ``poll`` returns next."""


class SourceContext(Protocol):
    """What the runtime offers a source task. Safe to use from threads of the task's own."""

    @property
    def connector(self) -> str:
        """The connector's name."""

    @property
    def task(self) -> int:
        """The task's number, from 0."""

    @property
    def data_dir(self) -> Path:
        """The worker's ``data.dir``: a task that keeps files of its own puts them there.

        It belongs to this worker alone. Name a file after connector and task; the folder may not exist yet.
        """

    @property
    def spool_used(self) -> float:
        """Return which share of ``spool.max.bytes`` is in use, from 0.0; 0.0 for a source without a spool.

        A task that also fetches old records stops doing so while this is high, to leave the room to new ones.
        """

    @property
    def stopping(self) -> bool:
        """Whether the task was asked to stop."""

    @property
    def transaction(self) -> TransactionContext | None:
        """Reserved: ``None`` until connectors may set the bounds of transactions themselves."""

    def offset(self, partition: Position) -> Position | None:
        """Return the last saved source offset of one source partition, ``None`` if nothing was saved."""

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """Return the last saved source offset of each source partition, ``None`` where nothing was saved.

        Always ``None`` for a source with ``replayable = False``: its position is that of its spool.
        """

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the task's counters, such as ``dropped.too_large``, which the ledger shows."""

    def observe(self, name: str, seconds: float) -> None:
        """Add to a distribution of durations that ``Connector.metrics`` exports. Cheap and thread-safe."""

    def connected(self, system: str) -> None:
        """Report that ``system`` is connected. Cheap and thread-safe: call it after every success."""

    def not_connected(self, system: str, reason: str) -> None:
        """Report that ``system`` ("the platform at tcp://…") cannot be reached. Call it at each attempt.

        The runtime logs it at once and then at growing intervals, and shows it with the ledger until
        ``connected``. Do not call it for an outage that the task raises as ``RetriableError``: the runtime
        reports that.
        """

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep input that cannot be parsed, in a durable and bounded store, and count it. Never raises.

        It is kept if the source has a spool (``replayable = False``), and only counted otherwise.
        """


class SourceTask(ABC, Generic[C]):
    """Reads from an external system. The calls, in order, all from one thread except ``interrupt``:

    1. ``Task(context, config)``: keep both, and build what connects later; connect to nothing yet.
    2. ``start()``: connect, and resume from ``context.offsets``.
    3. ``poll(max_records, max_wait)``, again and again: the next batch. Its records are then transformed,
       converted and produced. A source that cannot be read again (``replayable = False``) gets a durable
       spool in between, and ``poll`` is called by a thread that does nothing else.
    4. ``commit_record(record, metadata)`` after the broker acknowledged a record (metadata ``None``: a
       transform filtered it), in the order of a partition's records. Not called for a spooled source,
       whose promise ends at the spool.
    5. ``commit()`` after offsets were saved.
    6. ``interrupt()``, **from another thread**: make a waiting ``poll`` return soon. Called once, also if
       ``start`` failed. What ``poll`` still returns afterwards is handled as any batch.
    7. ``stop()``, last, from the task's own thread, also if ``start`` failed: release all resources.

    Offsets are saved only after every earlier record of the same source partition was acknowledged:
    delivery is at least once. Raise ``RetriableError`` for an outage, ``FatalError`` if waiting cannot help.
    """

    replayable: ClassVar[bool] = True
    """Whether records that ``poll`` returned can be read again; not from a bus or MQTT."""

    repeats_are_events: ClassVar[bool] = False
    """Whether this source never returns a record twice, so that two with one ``identity`` are two events.

    The first one keeps its identity. Later ones get an identity from it and their number, which is the same
    in two redundant sources of one stream. A record with the header ``BACKFILL_HEADER`` is not counted: it
    may be one that was returned before. Only used if ``replayable`` is false.
    """

    def __init__(self, context: SourceContext, config: C) -> None:
        self.context = context
        self.config = config

    def start(self) -> None:
        """Connect to the external system and resume from ``context.offsets``.

        Called once, and again after a ``RetriableError``.
        """

    @abstractmethod
    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """Return the next batch: at most ``max_records``, after at most ``max_wait`` seconds; may be empty.

        ``max_records`` is what fits now. Returning fewer records earlier is right.
        """

    def commit_record(self, record: SourceRecord, metadata: RecordMetadata | None) -> None:
        """Note that the broker acknowledged a record. ``metadata`` is ``None`` if a transform filtered it."""

    def commit(self) -> None:
        """Note that offsets were saved."""

    def interrupt(self) -> None:
        """Make a waiting ``poll`` return soon. Called from another thread."""

    def stop(self) -> None:
        """Release all resources. Always the last call."""
