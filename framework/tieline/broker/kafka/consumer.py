"""A member of a consumer group on Kafka, with cooperative rebalancing."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message
from confluent_kafka import Consumer as Client
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import FatalError, RetriableError, TielineError, TopicPartition
from tieline.broker.internal import takes
from tieline.broker.kafka.changelog import ChangelogServices, KafkaChangelog, Place
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.codes import Meaning, Operation, meaning
from tieline.broker.kafka.ends import Ends
from tieline.broker.kafka.errors import call_with_timeout, poll_client, to_tieline_error
from tieline.broker.kafka.records import to_record
from tieline.broker.kafka.resets import POLICIES, reset, unreadable
from tieline.broker.kafka.settings import ClientSettings, create_client, log
from tieline.broker.kafka.topic_ids import TopicIds
from tieline.broker.port import ConsumedRecord, RebalanceListener, Skipped, Unreadable

_NO_ERROR = {
    KafkaError._PARTITION_EOF,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # not created yet
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._MAX_POLL_EXCEEDED,  # told as lost
}

_NO_RECORD = {KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE}

_TRIES = 3  # times that a batch must come unreadable to be so

_CONFIRMED_FOR = 0.4  # seconds; less than ``fetch.error.backoff.ms``, see ``KafkaConsumer._confirmed``
_CONFIRM_AT_MOST = 1.0  # seconds of waiting for the brokers to confirm the ids of topics
_LOOK_AT_TOPICS_EVERY = 5.0  # seconds, where nothing comes

_LOOK_EVERY = 0.05  # while the names of the topics are on their way


class KafkaConsumer:
    """A pattern is matched here and not by librdkafka, whose regular expressions are others.

    ``seek``, ``pause`` and ``commit`` of a partition that is not owned (any more): the first two do
    nothing, the last raises ``RetriableError``. A commit that comes too late for its generation, too.
    """

    def __init__(
        self, settings: ClientSettings, cluster: Cluster, refresh: float, ground: ChangelogServices
    ) -> None:
        self._policy = POLICIES[str(settings.get("auto.offset.reset", "earliest"))]
        own = {
            "auto.offset.reset": "error",  # so that it is told here what there is no record for
            "error_cb": self._client_error,
            "on_commit": self._on_commit,
            "topic.metadata.refresh.interval.ms": int(refresh * 1000),
        }
        self._client = create_client(Client, settings | own, "consumer.override.")
        self._group = str(settings["group.id"])
        self._committing = f"group {self._group}: committing"
        self._cluster = cluster
        self._refresh = refresh
        self._ground = ground
        self._ends = Ends(cluster.ends)
        self._ids = TopicIds(cluster.descriptions)
        self._unconfirmed: list[ConsumedRecord] = []  # taken, and perhaps of a topic made anew
        self._lost_places: dict[TopicPartition, int | None] = {}  # offsets at which there is no record
        self._starts: Mapping[TopicPartition, Future[Any]] = {}
        self._lasts: Mapping[TopicPartition, Future[Any]] = {}
        self._seen_ends: dict[TopicPartition, int] = {}  # while the topic was the one that it is
        self._skipped: list[Skipped] = []
        self._eof: dict[TopicPartition, int] = {}
        self._unreadable: dict[TopicPartition, tuple[int | None, int]] = {}  # at which position, how often
        self._taking_over: dict[TopicPartition, KafkaChangelog] = {}
        self._with_changelog = False
        self._member: Any = None
        self._topics: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._subscribed: frozenset[str] = frozenset()
        self._names: Future[Collection[str]] | None = None
        self._names_due = 0.0
        self._listener: RebalanceListener | None = None
        self._owned: set[TopicPartition] = set()
        self._assigned = False  # since the consumer joined, or lost what it had; perhaps no partition at all
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._left: set[TopicPartition] = set()  # since ``poll`` of the client has returned
        self._rebalancing = False
        self._error: TielineError | None = None
        self._asked: dict[TopicPartition, int] = {}
        self._answer: Future[None] = Future()

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        """See ``Consumer.subscribe``."""
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise FatalError(f"group {self._group}: {pattern!r} is no regular expression: {error}") from None
        self._topics = frozenset(topics)
        self._listener = listener
        self._subscribe(self._topics)

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """See ``Consumer.poll``."""
        deadline = time.monotonic() + timeout
        while True:
            self._match_topics()
            self._serve_resets()
            self._ids.look({at.topic for at in self._owned}, _LOOK_AT_TOPICS_EVERY)
            left = max(0.0, deadline - time.monotonic())
            waiting = self._names is not None or self._lost_places or self._unconfirmed
            records = self._take(max_records, min(left, _LOOK_EVERY) if waiting else left)
            if records:
                return records
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if time.monotonic() >= deadline:
                return []

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See ``Consumer.pause``."""
        owned = (self._owned & set(partitions)) - self._paused
        self._paused |= owned
        self._client.pause(_kafka(owned))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See ``Consumer.resume``."""
        owned = self._paused & set(partitions)
        self._paused -= owned
        self._client.resume(_kafka(owned))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See ``Consumer.seek``."""
        if partition not in self._owned:
            return
        self._positions[partition] = offset
        self._drop([partition])
        self._go_to(partition, offset)

    def commit(self, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """See ``Consumer.commit``."""
        self._still_owned(offsets)
        self._still_the_same(offsets, min(timeout, _CONFIRM_AT_MOST))
        if not offsets:
            return
        wanted = [KafkaPartition(*at, offset) for at, offset in offsets.items()]

        def commit() -> list[KafkaPartition] | None:
            return self._client.commit(offsets=wanted, asynchronous=False)

        if not self._rebalancing:
            self._raise_refusal(call_with_timeout(commit, timeout, self._committing, Operation.COMMIT))
            return
        try:  # another thread would wait for this one for ever; the client's own limit: socket.timeout.ms
            self._raise_refusal(commit())
        except KafkaException as error:
            raise to_tieline_error(error, self._committing, Operation.COMMIT) from error

    def commit_async(self, offsets: Mapping[TopicPartition, int]) -> Future[None]:
        """See ``Consumer.commit_async``."""
        self._answer = Future()
        try:
            self._still_owned(offsets)
            self._still_the_same(offsets, _CONFIRM_AT_MOST)
            self._client.commit(offsets=[KafkaPartition(*at, to) for at, to in offsets.items()])
        except KafkaException as error:
            self._answer.set_exception(to_tieline_error(error, self._committing, Operation.COMMIT))
        except RetriableError as error:
            self._answer.set_exception(error)
        else:
            self._asked = dict(offsets)
        return self._answer

    def committed(self, partitions: Collection[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """See ``Consumer.committed``."""
        what = f"group {self._group}: its offsets"
        try:
            stored = self._client.committed(_kafka(partitions), timeout=timeout) if partitions else []
        except KafkaException as error:
            raise to_tieline_error(error, what, Operation.COMMIT) from error
        for result in stored:
            if result.error is not None:
                raise to_tieline_error(result.error, what, Operation.COMMIT)
        return {
            TopicPartition(result.topic, result.partition): result.offset
            for result in stored
            if result.offset >= 0
        }

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> KafkaChangelog:
        """See ``Consumer.changelog``."""
        self._with_changelog = True
        self._know_member()
        place = Place(topic, partition, lambda: self._member)
        changelog = self._taking_over.setdefault(partition, KafkaChangelog(self._ground, place))
        changelog.open(timeout)
        del self._taking_over[partition]
        return changelog

    def skipped(self) -> list[Skipped]:
        """See ``Consumer.skipped``."""
        skipped, self._skipped = self._skipped, []
        return skipped

    def topic_id(self, topic: str) -> str | None:
        """See ``Consumer.topic_id``."""
        return self._ids.known.get(topic)

    def lag(self) -> dict[TopicPartition, int | None]:
        """See ``Consumer.lag``."""
        if not self._assigned:
            raise RetriableError(f"group {self._group}: partitions are not assigned yet")
        ends = self._ends.look(self._owned)
        lag: dict[TopicPartition, int | None] = {}
        for at in self._owned:
            position = self._positions.get(at)
            fetched = self._client.get_watermark_offsets(KafkaPartition(*at), cached=True)[1]
            end = ends.get(at, fetched)
            if position is None or end is None or max(end, fetched) < 0:
                lag[at] = None
            else:
                lag[at] = max(0, end - position, fetched - position)
        return lag

    def close(self, timeout: float) -> None:
        """See ``Consumer.close``."""
        deadline = time.monotonic() + timeout
        listener, self._listener = self._listener, None
        try:
            if listener is not None and self._owned:
                self._listener = listener  # a commit inside is for owned partitions only
                listener.revoked(sorted(self._owned))
        finally:
            self._listener = None
            self._owned.clear()
            self._positions.clear()
            left = max(0.1, deadline - time.monotonic())
            call_with_timeout(self._client.close, left, f"group {self._group}: leaving")

    def _take(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        messages: list[Message] = []
        try:
            first = poll_client(self._client.poll, timeout)
            self._left.clear()
            if first is not None:
                messages.append(first)
                if max_records > 1:
                    messages += self._client.consume(max_records - 1, 0)
        except KafkaException as error:  # what was taken before is handed over first
            self._error = to_tieline_error(error, f"group {self._group}", Operation.READ)
        self._know_member()
        records = [to_record(message) for message in messages if message.error() is None]
        others = [message for message in messages if message.error() is not None]
        if self._left:  # taken away while we were collecting: whoever owns it now reads it
            gone = self._left - self._owned
            records = [r for r in records if (r.topic, r.partition) not in gone]
            if records and records[0][:2] in self._left:  # back already: read again from the commit
                del records[0]
        records = self._confirmed(records)
        for message in others:
            if (message.topic(), message.partition()) not in self._left:
                self._met(message)
        waiting = {(r.topic, r.partition) for r in self._unconfirmed}
        for at in self._eof.keys() - waiting:  # the records before the end come first
            self._positions[at] = max(self._eof.pop(at), self._positions.get(at, 0))
        return records

    def _followed(self, records: list[ConsumedRecord]) -> list[ConsumedRecord]:
        """Move the positions on. Offsets that go back are those of a new topic of the same name: the
        client reads it from its beginning without a word, and nothing known of the old one holds.
        """
        anew: dict[TopicPartition, int] = {}
        at, next_offset = None, 0
        for index, (topic, partition, offset, *_) in enumerate(records):
            if at is None or partition != at.partition or topic != at.topic:  # they come in runs
                if at is not None:
                    self._positions[at] = next_offset
                at = TopicPartition(topic, partition)
                next_offset = self._positions.get(at, 0)
            if offset < next_offset:
                anew[at] = index
            next_offset = offset + 1
        if at is not None:
            self._positions[at] = next_offset
        if anew and self._listener is not None:
            self._listener.lost(sorted(anew))
            self.resume(anew)
            self._listener.assigned(sorted(anew))
            return [r for i, r in enumerate(records) if i >= anew.get(TopicPartition(r[0], r[1]), 0)]
        return records

    def _met(self, message: Message) -> None:
        found: Any = message
        error: KafkaError = found.error()
        if error.code() == KafkaError._PARTITION_EOF:
            at = TopicPartition(found.topic(), found.partition())
            if at in self._owned and at not in self._lost_places:
                self._eof[at] = found.offset()
        elif error.code() in _NO_RECORD:
            at = TopicPartition(found.topic(), found.partition())
            if at in self._owned:
                told = found.offset() if found.offset() is not None and found.offset() >= 0 else None
                self._lost_places[at] = told
                self._ids.doubt([at.topic])
        elif meaning(error.name(), Operation.READ) is Meaning.UNREADABLE and found.topic() is not None:
            self._could_not_read(TopicPartition(found.topic(), found.partition()), error)
        elif error.code() not in _NO_ERROR:
            self._error = to_tieline_error(error, f"group {self._group}", Operation.READ)

    def _could_not_read(self, at: TopicPartition, error: KafkaError) -> None:
        """Give up on what came damaged several times in a row: on its way it is damaged only once."""
        position = self._positions.get(at)
        before, times = self._unreadable.get(at, (position, 0))
        self._unreadable[at] = (position, times + 1 if before == position else 1)
        if self._unreadable[at][1] >= _TRIES:
            self._error = Unreadable(unreadable(self._group, at, position, f"{error.name()}: {error.str()}"))

    def _confirmed(self, records: list[ConsumedRecord]) -> list[ConsumedRecord]:
        """Hand over what is of the topics that are known: the client goes on in a topic made anew at the
        position of the old one, without a word. Nothing of such a topic comes back before an error of
        fetching, after which the client rests longer than ``_CONFIRMED_FOR``.
        """
        records = self._unconfirmed + records
        self._unconfirmed = []
        topics = {record.topic for record in records}
        if topics and not self._confirm(topics):
            self._unconfirmed = records
            records = []
        if self._ids.changed:
            records = self._begin_anew(records)
        paused = self._paused & {TopicPartition(r.topic, r.partition) for r in records}
        if paused:  # while they were not confirmed
            self._unconfirmed += [r for r in records if (r.topic, r.partition) in paused]
            records = [r for r in records if (r.topic, r.partition) not in paused]
        for at in {TopicPartition(*place) for place in {(r.topic, r.partition) for r in records}}:
            self._seen_ends[at] = self._client.get_watermark_offsets(KafkaPartition(*at), cached=True)[1]
        return self._followed(records)

    def _confirm(self, topics: Collection[str]) -> bool:
        """Whether the ids of these topics are confirmed; ``poll`` raises why the brokers refuse to."""
        if self._ids.confirm(topics, _CONFIRMED_FOR, _CONFIRM_AT_MOST):
            return True
        if self._ids.error is not None:
            error, self._ids.error = self._ids.error, None
            self._error = to_tieline_error(error, "looking at the id of a topic", Operation.METADATA)
        return False

    def _begin_anew(self, records: list[ConsumedRecord]) -> list[ConsumedRecord]:
        """End the partitions of topics that were replaced as lost, and begin the new ones."""
        topics, self._ids.changed = self._ids.changed, set()
        anew = sorted(at for at in self._owned if at.topic in topics)
        if self._listener is None or not anew:
            return records
        self._drop(anew)
        self._left.update(anew)
        for at in anew:
            first = self._positions.pop(at, None)
            self._lost_places.pop(at, None)
            self._eof.pop(at, None)
            end = max(self._seen_ends.pop(at, 0), first or 0)
            self._skipped.append(Skipped(at, end if first is None else first, end, "recreated"))
        self._listener.lost(anew)
        self.resume(anew)
        for at in anew:
            self._go_to(at, OFFSET_BEGINNING)
        try:  # what was committed is an offset of the old one
            self._client.commit(offsets=[KafkaPartition(*at, 0) for at in anew])
        except KafkaException as error:
            log.warning("the offsets of a topic that was deleted could not be reset: %s", error)
        self._listener.assigned(anew)
        return [r for r in records if r.topic not in topics]

    def _go_to(self, at: TopicPartition, offset: int) -> None:
        # The client's own seek waits without a time-out, and fails where nothing was fetched yet.
        self._client.incremental_unassign(_kafka([at]))
        self._client.incremental_assign([KafkaPartition(*at, offset)])
        if at in self._paused:
            self._client.pause(_kafka([at]))

    def _drop(self, partitions: Collection[TopicPartition]) -> None:
        self._unconfirmed = [r for r in self._unconfirmed if (r.topic, r.partition) not in partitions]

    def _serve_resets(self) -> None:
        """Continue partitions without a record at their position, when the brokers say what they have."""
        if not self._lost_places:
            return
        if not self._starts:
            before = {(r.topic, r.partition) for r in self._unconfirmed}  # what was read is handed over first
            waiting = [at for at in self._lost_places if at not in before]
            if not waiting:
                return
            self._starts, self._lasts = self._cluster.starts(waiting), self._cluster.ends(waiting)
        answers = [*self._starts.values(), *self._lasts.values()]
        if not all(answer.done() for answer in answers):
            return
        if not self._confirm({at.topic for at in self._starts}):
            return
        starts, lasts, self._starts, self._lasts = self._starts, self._lasts, {}, {}
        if self._ids.changed:
            self._begin_anew([])
        for at, answer in starts.items():
            if at not in self._lost_places or answer.exception() or lasts[at].exception():
                continue  # gone, or asked again
            start, end = answer.result().offset, lasts[at].result().offset
            told = self._lost_places.pop(at)
            position = self._positions.get(at, told)
            found = reset(self._group, at, position, start, end, self._policy)
            self._skipped += found.skipped
            self._positions[at] = found.offset
            self._go_to(at, found.offset)

    def _still_the_same(self, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        topics = {at.topic for at in offsets}
        if self._listener is None or not topics:
            return
        self._ids.confirm(topics, _CONFIRMED_FOR, timeout)
        if anew := sorted(topics & self._ids.changed):
            raise RetriableError(
                f"{self._committing}: deleted and made again, nothing committed: {', '.join(anew)}"
            )

    def _client_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, f"group {self._group}", Operation.METADATA)
        if isinstance(cause, FatalError):
            self._error = cause

    def _match_topics(self) -> None:
        """Ask for the names of all topics now and then, and join those that match."""
        if self._pattern is None:
            return
        now = time.monotonic()
        if self._names is None and now >= self._names_due:
            self._names = self._cluster.topic_names()
        if self._names is None:
            return
        if self._names.done():
            names, self._names = self._names, None
            self._names_due = now + self._refresh
            if names.exception() is None:
                there, pattern = names.result(), self._pattern
                matching = {name for name in there if takes(pattern, name, there, self._cluster.own)}
                self._subscribe(self._topics | matching)

    def _subscribe(self, topics: frozenset[str]) -> None:
        if not topics or topics == self._subscribed:
            return
        self._subscribed = topics
        try:
            self._client.subscribe(
                sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except KafkaException as error:
            raise to_tieline_error(error, f"group {self._group}: subscribing", Operation.METADATA) from error

    def _still_owned(self, offsets: Mapping[TopicPartition, int]) -> None:
        gone = sorted(offsets.keys() - self._owned) if self._listener is not None else []
        if gone:
            raise RetriableError(f"{self._committing}: not owned any more, nothing committed: {gone}")

    def _raise_refusal(self, results: list[KafkaPartition] | None) -> None:
        for result in results or []:
            if result.error is not None:
                raise to_tieline_error(
                    result.error, f"{self._committing} {result.topic}-{result.partition}", Operation.COMMIT
                )

    def _know_member(self) -> None:
        """For the changelogs, which write from other threads: there this call waits for ``poll`` to end."""
        if self._with_changelog:
            self._member = self._client.consumer_group_metadata()

    # Called by the client inside poll and consume.

    def _on_commit(self, error: KafkaError | None, results: list[KafkaPartition]) -> None:
        answered = {TopicPartition(r.topic, r.partition): r.offset for r in results}
        if answered != self._asked or self._answer.done():
            return  # of an earlier one, or of one that was waited for
        try:
            if error is not None:
                raise to_tieline_error(error, self._committing, Operation.COMMIT)
            self._raise_refusal(results)
        except TielineError as cause:
            self._answer.set_exception(cause)
        else:
            self._answer.set_result(None)

    def _on_assign(self, client: Client, partitions: list[KafkaPartition]) -> None:
        # The client keeps a pause beyond the assignment in which it was made.
        client.resume([KafkaPartition(partition.topic, partition.partition) for partition in partitions])
        client.incremental_assign(partitions)
        coming = _ours(partitions)
        self._owned.update(coming)
        self._assigned = True
        self._rebalancing = True
        try:
            if self._listener is not None and coming:
                self._listener.assigned(coming)
        finally:
            self._rebalancing = False

    def _on_revoke(self, client: Client, partitions: list[KafkaPartition]) -> None:
        self._leave(client, partitions, lost=False)

    def _on_lost(self, client: Client, partitions: list[KafkaPartition]) -> None:
        self._leave(client, partitions, lost=True)

    def _leave(self, client: Client, partitions: list[KafkaPartition], *, lost: bool) -> None:
        going = [at for at in _ours(partitions) if at in self._owned]
        self._left.update(going)
        self._rebalancing = True
        try:
            if self._listener is not None and going:
                if lost:
                    self._assigned = False
                    self._owned.difference_update(going)
                    self._listener.lost(going)
                else:
                    self._listener.revoked(going)
        finally:
            self._rebalancing = False
            self._owned.difference_update(going)
            self._paused.difference_update(going)
            self._drop(going)
            self._ids.doubt({at.topic for at in going})
            for at in going:
                self._lost_places.pop(at, None)
                self._seen_ends.pop(at, None)
                self._eof.pop(at, None)
                self._unreadable.pop(at, None)
                self._positions.pop(at, None)
                self._taking_over.pop(at, None)
            client.incremental_unassign(partitions)


def _kafka(partitions: Collection[TopicPartition]) -> list[KafkaPartition]:
    return [KafkaPartition(*at) for at in partitions]


def _ours(partitions: Collection[KafkaPartition]) -> list[TopicPartition]:
    return sorted(TopicPartition(partition.topic, partition.partition) for partition in partitions)
