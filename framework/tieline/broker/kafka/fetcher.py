"""Fetching the records of the partitions that a consumer owns: none twice, none of another topic."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message
from confluent_kafka import Consumer as Client
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import TielineError, TopicPartition
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.codes import Meaning, Operation, meaning
from tieline.broker.kafka.commits import Commits
from tieline.broker.kafka.errors import (
    PARTITION_EOF,
    UNKNOWN_PARTITION,
    UNKNOWN_TOPIC,
    error_code,
    poll_client,
    to_tieline_error,
)
from tieline.broker.kafka.membership import Membership
from tieline.broker.kafka.pending_resets import PendingResets
from tieline.broker.kafka.positions import ConsumerPositions
from tieline.broker.kafka.records import to_record
from tieline.broker.kafka.resets import describe_unreadable
from tieline.broker.kafka.settings import log
from tieline.broker.kafka.topic_ids import TopicIds
from tieline.broker.port import UnreadableError
from tieline.broker.records import ConsumedRecord, Skipped

_NOT_AN_ERROR = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # not created yet
    UNKNOWN_TOPIC,
    UNKNOWN_PARTITION,
    error_code("_MAX_POLL_EXCEEDED"),  # Membership.on_lost reports it
}
_NO_RECORD = {
    error_code("_AUTO_OFFSET_RESET"),
    error_code("_LOG_TRUNCATION"),
    KafkaError.OFFSET_OUT_OF_RANGE,
}
_CONFIRMED_FOR = 0.4  # seconds; less than ``fetch.error.backoff.ms``, see ``Fetcher._take_confirmed``
_CHECK_TOPICS_EVERY = 5.0  # seconds between two looks at the ids of idle topics
CONFIRM_TIMEOUT = 1.0
"""Seconds to wait for the brokers to confirm the ids of topics."""


class Fetcher:
    """Takes records from the client of one group member. Used by the thread of its consumer."""

    def __init__(
        self,
        client: Client,
        group: str,
        cluster: Cluster,
        policy: str,
        membership: Membership,
        commits: Commits,
    ) -> None:
        """``policy``: ``auto.offset.reset``, a value of ``POLICIES``."""
        self._client = client
        self._group = group
        self._membership = membership
        self._commits = commits
        self._ids = TopicIds(cluster.descriptions)
        self._resets = PendingResets(cluster, group, policy)
        self._unconfirmed: list[ConsumedRecord] = []  # fetched, and perhaps of a topic that was recreated
        self.positions = ConsumerPositions()
        self.skipped: list[Skipped] = []
        """Ranges that were passed over; the consumer takes them out."""
        self.error: TielineError | None = None
        """What ``poll`` is to raise when no records come; the consumer takes it out."""

    @property
    def waiting(self) -> bool:
        """Whether answers of the brokers are on their way, and ``take`` must be called soon again."""
        return bool(self._resets or self._unconfirmed)

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic whose records were taken last, or ``None`` if it is unknown."""
        return self._ids.known.get(topic)

    def check_topics(self) -> None:
        """Ask for the ids of idle topics now and then, and continue where the brokers have answered."""
        self._apply_resets()
        topics = {partition.topic for partition in self._membership.owned}
        self._ids.look(topics, _CHECK_TOPICS_EVERY)

    def recreated(self, topics: Collection[str], timeout: float) -> list[str]:
        """Return those of these topics that were deleted and recreated, as far as the brokers answer."""
        self._ids.confirm(topics, _CONFIRMED_FOR, timeout)
        return sorted(self._ids.changed.intersection(topics))

    def take(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records, waiting at most ``timeout`` seconds for the first."""
        messages: list[Message] = []
        left = self._membership.left
        try:
            first = poll_client(self._client.poll, timeout)
            left.clear()
            if first is not None:
                messages.append(first)
                if max_records > 1:
                    messages += self._client.consume(max_records - 1, 0)
        except KafkaException as error:  # the messages before it are handed over first
            self.error = to_tieline_error(error, f"group {self._group}", Operation.READ)
        self._membership.update_metadata()
        records = [to_record(message) for message in messages if message.error() is None]
        events = [message for message in messages if message.error() is not None]
        if left:  # revoked while the messages were collected: the new owner reads them
            gone = left - self._membership.owned
            records = [r for r in records if (r.topic, r.partition) not in gone]
            if records and records[0][:2] in left:  # assigned again: it is read again from the commit
                del records[0]
        records = self._take_confirmed(records)
        for event in events:
            if (event.topic(), event.partition()) not in left:
                self._handle_event(event)
        self.positions.take_ends({(r.topic, r.partition) for r in self._unconfirmed})
        return records

    def go_to(self, partition: TopicPartition, offset: int) -> None:
        """Continue at another offset."""
        self.positions.next[partition] = offset
        self._drop_unconfirmed([partition])
        self._membership.go_to(partition, offset)

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that are not owned any more."""
        self._drop_unconfirmed(partitions)
        self._ids.doubt({partition.topic for partition in partitions})
        self.positions.drop(partitions)
        for partition in partitions:
            self._resets.discard(partition)

    def fetched_end(self, partition: TopicPartition) -> int:
        """Return the end that the client saw while it fetched; negative if it saw none."""
        return int(self._client.get_watermark_offsets(KafkaPartition(*partition), cached=True)[1])

    def _take_confirmed(self, records: list[ConsumedRecord]) -> list[ConsumedRecord]:
        """Return the records whose topics are known to be the same as before; keep the others back.

        In a topic that was recreated the client continues at the old position, without notice. It returns
        nothing of such a topic before a fetch has failed, and then rests longer than ``_CONFIRMED_FOR``.
        """
        records = self._unconfirmed + records
        self._unconfirmed = []
        topics = {record.topic for record in records}
        if topics and not self._confirm(topics):
            self._unconfirmed = records
            records = []
        if self._ids.changed:
            records = self._restart_recreated(records)
        paused = self._membership.paused & {TopicPartition(r.topic, r.partition) for r in records}
        if paused:  # since they were fetched
            self._unconfirmed += [r for r in records if (r.topic, r.partition) in paused]
            records = [r for r in records if (r.topic, r.partition) not in paused]
        for topic, number in {(r.topic, r.partition) for r in records}:
            partition = TopicPartition(topic, number)
            self.positions.seen_ends[partition] = self.fetched_end(partition)
        went_back = self.positions.advance(records)
        listener = self._membership.listener
        if went_back and listener is not None:
            self._membership.replace(listener, went_back)
            return [r for i, r in enumerate(records) if i >= went_back.get(TopicPartition(r[0], r[1]), 0)]
        return records

    def _handle_event(self, message: Any) -> None:
        """Handle a message that is not a record: an end of a partition, or an error."""
        error: KafkaError = message.error()
        code = error.code()
        if code == PARTITION_EOF or code in _NO_RECORD:
            partition, offset = TopicPartition(message.topic(), message.partition()), message.offset()
            if partition not in self._membership.owned:
                return
            if code in _NO_RECORD:
                self._resets.add(partition, offset if offset is not None and offset >= 0 else None)
                self._ids.doubt([partition.topic])
            elif partition not in self._resets:
                self.positions.reach_end(partition, offset)
        elif meaning(error.name(), Operation.READ) is Meaning.UNREADABLE and message.topic() is not None:
            partition = TopicPartition(message.topic(), message.partition())
            if self.positions.fail_to_read(partition):
                position, why = self.positions.next.get(partition), f"{error.name()}: {error.str()}"
                self.error = UnreadableError(describe_unreadable(self._group, partition, position, why))
        elif code not in _NOT_AN_ERROR:
            self.error = to_tieline_error(error, f"group {self._group}", Operation.READ)

    def _confirm(self, topics: Collection[str]) -> bool:
        """Return whether the ids of these topics are confirmed; ``poll`` raises why the brokers refuse to."""
        if self._ids.confirm(topics, _CONFIRMED_FOR, CONFIRM_TIMEOUT):
            return True
        if self._ids.error is not None:
            error, self._ids.error = self._ids.error, None
            self.error = to_tieline_error(error, "looking at the id of a topic", Operation.METADATA)
        return False

    def _restart_recreated(self, records: list[ConsumedRecord]) -> list[ConsumedRecord]:
        """Begin the topics that have replaced others of the same name. Return the records of the rest."""
        topics, self._ids.changed = self._ids.changed, set()
        recreated = sorted(partition for partition in self._membership.owned if partition.topic in topics)
        listener = self._membership.listener
        if listener is None or not recreated:
            return records
        self._drop_unconfirmed(recreated)
        self._membership.left.update(recreated)
        for partition in recreated:
            self._resets.discard(partition)
            first, end = self.positions.replace(partition)
            self.skipped.append(Skipped(partition, first, end, "recreated"))

        def go_to_beginning() -> None:
            for partition in recreated:
                self._membership.go_to(partition, OFFSET_BEGINNING)
            try:  # the committed offset is one of the old topic
                self._commits.reset(recreated)
            except KafkaException as error:
                log.warning("the offsets of a topic that was deleted could not be reset: %s", error)

        self._membership.replace(listener, recreated, go_to_beginning)
        return [r for r in records if r.topic not in topics]

    def _apply_resets(self) -> None:
        """Continue the partitions without a record at their position, once the brokers have answered."""
        if not self._resets:
            return
        topics = self._resets.poll({(r.topic, r.partition) for r in self._unconfirmed})
        if not topics or not self._confirm(topics):
            return
        answers = self._resets.take_answers()
        if self._ids.changed:
            self._restart_recreated([])
        for partition, reset in self._resets.resets(answers, self.positions.next):
            self.skipped += reset.skipped
            self.positions.next[partition] = reset.offset
            self._membership.go_to(partition, reset.offset)

    def _drop_unconfirmed(self, partitions: Collection[TopicPartition]) -> None:
        self._unconfirmed = [r for r in self._unconfirmed if (r.topic, r.partition) not in partitions]
