"""A member of a consumer group on Kafka, with cooperative rebalancing."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import FatalError, RetriableError, TielineError, TopicPartition
from tieline.broker.kafka.changelog import ChangelogServices, ChangelogTarget, KafkaChangelog
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.commit_records import CommitRecords
from tieline.broker.kafka.commits import Commits
from tieline.broker.kafka.ends import Ends
from tieline.broker.kafka.errors import call_with_timeout, to_tieline_error
from tieline.broker.kafka.fetcher import CONFIRM_TIMEOUT, Fetcher
from tieline.broker.kafka.membership import Membership
from tieline.broker.kafka.resets import POLICIES
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.kafka.topic_matcher import TopicMatcher
from tieline.broker.notes import check_notes
from tieline.broker.port import RebalanceListener
from tieline.broker.records import Committed, ConsumedRecord, ProducerRecord, Skipped

_CHECK_ANSWERS_EVERY = 0.05  # seconds between two looks at an answer that is on its way


class _WaitingCommit(NamedTuple):
    """A commit whose records are not acknowledged yet."""

    offsets: Mapping[TopicPartition, int]
    notes: Mapping[TopicPartition, str]
    result: Future[None]


class KafkaConsumer:
    """A ``Consumer`` on Kafka. A pattern is matched here, because librdkafka's differ from Python's.

    ``seek`` and ``pause`` of a partition that is not owned do nothing. ``commit`` of one raises
    ``RetriableError``, and so does a commit that comes too late for its generation of the group.
    """

    gapless = False  # transactions leave markers, compaction leaves nothing

    def __init__(
        self,
        settings: ClientSettings,
        cluster: Cluster,
        refresh: float,
        services: ChangelogServices,
        records: CommitRecords,
    ) -> None:
        """``refresh``: seconds between two questions for the names of all topics."""
        policy = POLICIES[str(settings.get("auto.offset.reset", "earliest"))]
        overrides = {
            "auto.offset.reset": "error",  # so that a position without a record is reported here
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
            "topic.metadata.refresh.interval.ms": int(refresh * 1000),
        }
        self._client = create_client(Client, settings | overrides, "consumer.override.")
        self._group = str(settings["group.id"])
        self._cluster = cluster
        self._refresh = refresh
        self._services = services
        self._commits = Commits(self._client, self._group)
        self._records = records
        self._waiting_commit: _WaitingCommit | None = None
        self.membership = Membership(self._client, self._group, self._drop)
        self._fetcher = Fetcher(self._client, self._group, cluster, policy, self.membership, self._commits)
        self._ends = Ends(cluster.ends)
        self._opening: dict[TopicPartition, KafkaChangelog] = {}
        self._matcher: TopicMatcher | None = None

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        """Join the group for these topics and this pattern; see ``Consumer.subscribe``."""
        try:
            compiled = None if pattern is None else re.compile(pattern)
        except re.error as error:
            what = f"group {self._group}: {pattern!r}"
            raise FatalError(f"{what} is not a regular expression: {error}") from None
        cluster = self._cluster
        self._matcher = TopicMatcher(topics, compiled, cluster.topic_names, cluster.internal, self._refresh)
        self.membership.listener = listener
        self.membership.subscribe(self._matcher.topics)

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records; see ``Consumer.poll``."""
        deadline = time.monotonic() + timeout
        while True:
            names_wanted = self._match_topics()
            self._fetcher.check_topics()
            self._commit_after_records()
            left = max(0.0, deadline - time.monotonic())
            if names_wanted or self._fetcher.waiting or self._waiting_commit is not None:
                left = min(left, _CHECK_ANSWERS_EVERY)
            records = self._fetcher.take(max_records, left)
            if records:
                return records
            if self._fetcher.error is not None:
                error, self._fetcher.error = self._fetcher.error, None
                raise error
            if time.monotonic() >= deadline:
                return []

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return nothing from these partitions until ``resume``; see ``Consumer.pause``."""
        self.membership.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Return records from these partitions again; see ``Consumer.resume``."""
        self.membership.resume(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at another offset; see ``Consumer.seek``."""
        if partition not in self.membership.owned:
            return
        self._fetcher.go_to(partition, offset)

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        timeout: float,
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commit offsets, and return when they are safe; see ``Consumer.commit``."""
        deadline = time.monotonic() + timeout
        check_notes(notes or {})
        self._replace_waiting_commit()
        self._check_commit(offsets, min(timeout, CONFIRM_TIMEOUT))
        if records:
            self._records.write(records, timeout, self._commits.what)
            timeout = max(0.1, deadline - time.monotonic())
        if offsets:
            self._commits.commit(offsets, notes or {}, timeout, in_rebalance=self.membership.rebalancing)
        self._records.confirm()

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, int],
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> Future[None]:
        """Start to commit offsets; see ``Consumer.commit_async``."""
        self._replace_waiting_commit()
        try:
            check_notes(notes or {})
            self._check_commit(offsets, CONFIRM_TIMEOUT)
            if records:
                self._records.start(records)
        except TielineError as error:
            return self._commits.refuse(error)
        if not records:
            return self._commits.start(offsets, notes or {})
        self._waiting_commit = _WaitingCommit(offsets, notes or {}, Future())
        result = self._waiting_commit.result
        self._commit_after_records()
        return result

    def committed(
        self, partitions: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, Committed]:
        """Return the group's committed offsets; see ``Consumer.committed``."""
        return self._commits.committed(partitions, timeout)

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> KafkaChangelog:
        """Take over the changelog of an owned partition; see ``Consumer.changelog``."""
        self.membership.follow_metadata()
        target = ChangelogTarget(topic, partition, lambda: self.membership.metadata)
        changelog = self._opening.setdefault(partition, KafkaChangelog(self._services, target))
        changelog.open(timeout)
        del self._opening[partition]
        return changelog

    def skipped(self) -> list[Skipped]:
        """Return the ranges that were passed over since the last call; see ``Consumer.skipped``."""
        skipped, self._fetcher.skipped = self._fetcher.skipped, []
        return skipped

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic that records were last returned of; see ``Consumer.topic_id``."""
        return self._fetcher.topic_id(topic)

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return how many offsets each owned partition is behind its end; see ``Consumer.lag``."""
        if not self.membership.assigned:
            raise RetriableError(f"group {self._group}: partitions are not assigned yet")
        owned = self.membership.owned
        fetched = {partition: self._fetcher.fetched_end(partition) for partition in owned}
        return self._fetcher.positions.lag(self._ends.look(owned), fetched)

    def close(self, timeout: float) -> None:
        """Leave the group; see ``Consumer.close``."""
        deadline = time.monotonic() + timeout
        try:
            self.membership.leave()
        finally:
            self._fetcher.positions.next.clear()
            self._records.close()
            left = max(0.1, deadline - time.monotonic())
            call_with_timeout(self._client.close, left, f"group {self._group}: leaving")

    def _match_topics(self) -> bool:
        """Join the topics that match now. Return whether the names of all topics are on their way."""
        if self._matcher is None:
            return False
        topics = self._matcher.poll()
        if topics is not None:
            self.membership.subscribe(topics)
        return self._matcher.waiting

    def _commit_after_records(self) -> None:
        """Commit the offsets whose records are acknowledged now."""
        waiting = self._waiting_commit
        if waiting is None:
            return
        try:
            if not self._records.poll(0):
                return
            self._waiting_commit = None
            self._check_commit(waiting.offsets, CONFIRM_TIMEOUT)  # partitions may have left meanwhile
        except TielineError as error:
            self._waiting_commit = None
            waiting.result.set_exception(error)
        else:
            waiting.result.add_done_callback(self._confirm_records)
            self._commits.start(waiting.offsets, waiting.notes, waiting.result)

    def _confirm_records(self, result: Future[None]) -> None:
        if result.exception() is None:
            self._records.confirm()

    def _replace_waiting_commit(self) -> None:
        """Give up a commit that waits for its records: it would set back the offsets of a later one."""
        waiting, self._waiting_commit = self._waiting_commit, None
        if waiting is not None:
            waiting.result.set_exception(
                RetriableError(f"{self._commits.what}: replaced by a later commit before it began")
            )

    def _check_commit(self, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """Raise ``RetriableError`` for a partition that is not owned, or whose topic was recreated."""
        if self.membership.listener is None:
            return
        if gone := sorted(offsets.keys() - self.membership.owned):
            raise RetriableError(f"{self._commits.what}: not owned any more, nothing committed: {gone}")
        topics = {partition.topic for partition in offsets}
        if not topics:
            return
        if recreated := self._fetcher.recreated(topics, timeout):
            names = ", ".join(recreated)
            raise RetriableError(f"{self._commits.what}: deleted and recreated, nothing committed: {names}")

    def _drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that are not owned any more."""
        self._fetcher.drop(partitions)
        for partition in partitions:
            self._opening.pop(partition, None)

    def _on_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, f"group {self._group}", Operation.METADATA)
        if isinstance(cause, FatalError):
            self._fetcher.error = cause

    def _on_commit(self, error: KafkaError | None, results: list[KafkaPartition]) -> None:
        self._commits.on_commit(error, results)
