"""Dead letters of a sink, kept until they are written with the offsets of a commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future

from tieline.api import AccessDeniedError, DataError, SinkRecord, TopicPartition
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.converters.avro import framed_schema_id
from tieline.dead_letters.letter import class_name
from tieline.dead_letters.record import shorten
from tieline.runtime.errors.dead_letters import DeadLetters
from tieline.runtime.errors.failed_records import Failure, cause_of
from tieline.runtime.errors.failure_table import Stage

_MAX_LETTERS = 1_000
_MAX_BYTES = 16 << 20


class PendingLetter:
    """A letter that is not stored. ``stored`` ends when it is."""

    __slots__ = ("offset", "partition", "record", "stored")

    def __init__(self, partition: TopicPartition, offset: int, record: ProducerRecord) -> None:
        self.partition = partition
        self.offset = offset
        self.record = record
        self.stored: Future[None] = Future()

    @property
    def size(self) -> int:
        """Its bytes without headers."""
        return len(self.record.value or b"") + len(self.record.key or b"")


class SinkLetters:
    """The dead letters of a sink task that wait for a commit of offsets behind them. Used by its thread.

    ``maker`` is ``None`` if no dead letter queue is configured. ``avro``: values have Confluent's frame.
    """

    def __init__(self, maker: DeadLetters | None, *, avro: bool = False) -> None:
        self.maker = maker
        self._avro = avro
        self._batch: Sequence[ConsumedRecord] = ()
        self._pending: dict[TopicPartition, dict[int, PendingLetter]] = {}
        self._reported: dict[TopicPartition, set[int]] = {}
        self._number = self._bytes = 0

    def create_topics(self) -> None:
        """Create the topic of dead letters and that of their replays, if there is a queue.

        Raises ``RetriableError``, ``AccessDeniedError``, ``FatalError``.
        """
        if self.maker is not None:
            self.maker.create_topic()
            self.maker.create_replay_topic()

    @property
    def full(self) -> bool:
        """Whether so many letters wait that they must be written before more records are read."""
        return self._number >= _MAX_LETTERS or self._bytes >= _MAX_BYTES

    def keep_batch(self, batch: Sequence[ConsumedRecord]) -> None:
        """Note which records the task is offered now, as they were consumed."""
        self._batch = batch

    def add(self, record: ConsumedRecord, failure: Failure) -> None:
        """Add the letter of a record that failed."""
        assert self.maker is not None
        partition = TopicPartition(record.topic, record.partition)
        if record.offset not in self._pending.get(partition, ()):
            letter = self.maker.of_consumed(record, failure, self._schema_id(record))
            self._keep(PendingLetter(partition, record.offset, letter))

    def report(self, record: SinkRecord, error: Exception, task: type) -> tuple[bool, Future[None]]:
        """Add the letter of a record that the task reports.

        Return whether it was reported before, and what ends when it is stored.

        A record that is not of the batch which the task is offered now is kept as data, not as bytes.
        """
        assert self.maker is not None
        partition = record.consumed_from
        known = self._pending.get(partition, {}).get(record.offset)
        if known is not None:
            return True, known.stored
        failure = Failure(Stage.TASK_PUT, error, class_name(task))
        consumed = self._consumed(partition, record.offset)
        if consumed is None:
            letter = self.maker.of_record(record, failure)
        else:
            letter = self.maker.of_consumed(consumed, failure, self._schema_id(consumed))
        self._reported.setdefault(partition, set()).add(record.offset)
        return False, self._keep(PendingLetter(partition, record.offset, letter))

    def take_reported(self, partition: TopicPartition, offsets: Iterable[int]) -> int:
        """Return how many of these offsets the task has reported, and forget them."""
        reported = self._reported.get(partition)
        if not reported:
            return 0
        number = len(reported)
        reported.difference_update(offsets)
        return number - len(reported)

    def before(self, offsets: Mapping[TopicPartition, int]) -> list[PendingLetter]:
        """Return the letters about records before these offsets, in the order of each partition."""
        if not self._number:
            return []
        return [
            self._pending[partition][number]
            for partition, offset in offsets.items()
            for number in sorted(self._pending.get(partition, ()))
            if number < offset
        ]

    def all(self) -> list[PendingLetter]:
        """Return all letters that wait."""
        return self.before(dict.fromkeys(self._pending, 1 << 63))

    def stored(self, letters: Collection[PendingLetter]) -> None:
        """Note that these letters are stored."""
        for letter in letters:
            waiting = self._pending.get(letter.partition, {})
            if waiting.get(letter.offset) is letter:
                del waiting[letter.offset]
                self._forget(letter)
            if not letter.stored.done():
                letter.stored.set_result(None)

    def write(self, letters: Sequence[PendingLetter], timeout: float) -> None:
        """Write letters without offsets. Raises as ``DeadLetters.write``."""
        assert self.maker is not None
        self.maker.write([letter.record for letter in letters], timeout)

    def shorten_refused(self, letters: Sequence[PendingLetter], error: DataError) -> AccessDeniedError | None:
        """Shorten the letters that the broker refuses. Return an error if one of them cannot be shorter."""
        refused = [letters[index] for index in error.failures if 0 <= index < len(letters)]
        for letter in refused:
            shorter = shorten(letter.record)
            if shorter is None:
                return AccessDeniedError(
                    f"the dead letter topic refuses a letter: {cause_of(error)}. Raise its max.message.bytes"
                )
            letter.record = shorter
        return None if refused else AccessDeniedError(f"the dead letters cannot be written: {error}")

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Drop the letters of these partitions: their records come again."""
        for partition in partitions:
            self._reported.pop(partition, None)
            for letter in self._pending.pop(partition, {}).values():
                self._forget(letter)
                letter.stored.cancel()

    def _keep(self, letter: PendingLetter) -> Future[None]:
        self._pending.setdefault(letter.partition, {})[letter.offset] = letter
        self._number += 1
        self._bytes += letter.size
        return letter.stored

    def _forget(self, letter: PendingLetter) -> None:
        self._number -= 1
        self._bytes -= letter.size

    def _consumed(self, partition: TopicPartition, offset: int) -> ConsumedRecord | None:
        where = (*partition, offset)
        return next((record for record in self._batch if record[:3] == where), None)

    def _schema_id(self, record: ConsumedRecord) -> int | None:
        return framed_schema_id(record.value) if self._avro and record.value is not None else None
