"""A member of a consumer group on the local log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from tieline.api import FatalError, RetriableError, TielineError, TopicPartition
from tieline.broker.internal import matches
from tieline.broker.local.changelog import Changelog, ChangelogFile, ChangelogTarget
from tieline.broker.local.group import Group
from tieline.broker.local.reader import MAX_BATCH_BYTES, Bounds
from tieline.broker.local.store import Store
from tieline.broker.notes import check_notes
from tieline.broker.port import RebalanceListener
from tieline.broker.records import Committed, ConsumedRecord, ProducerRecord, Skipped

_COMMIT_TIMEOUT = 5.0  # seconds, for a commit without a time-out of its own


class LocalConsumer:
    """A ``Consumer`` on the local log. It reads from the file without a buffer of its own."""

    gapless = True

    def __init__(
        self, store: Store, name: str, group: Group, changelogs: Callable[[], ChangelogFile]
    ) -> None:
        self._store = store
        self._name = name
        self._group = group
        self._changelogs = changelogs
        self._topics: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._listener: RebalanceListener | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._ids: dict[TopicPartition, int] = {}  # of the owned partitions, inside the file
        self._paused: set[TopicPartition] = set()
        self._assigned = False
        self._skipped: list[Skipped] = []
        self._bounds: Mapping[TopicPartition, Bounds] = {}
        self._turn = 0

    def wants(self, topic: str) -> bool:
        """Return whether this consumer has subscribed to a topic; see ``group.Member``."""
        if topic in self._topics:
            return True
        return self._pattern is not None and matches(self._pattern, topic, (), ())

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        """Join the group for these topics and this pattern; see ``Consumer.subscribe``."""
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise FatalError(
                f"group {self._name}: {pattern!r} is not a regular expression: {error}"
            ) from None
        self._topics = frozenset(topics)
        self._listener = listener
        self._group.join(self)

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records; see ``Consumer.poll``."""
        deadline = time.monotonic() + timeout
        while True:
            version = self._store.version
            self._rebalance()
            records = self._take(max_records)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            self._store.wait(version, left)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return nothing from these partitions until ``resume``; see ``Consumer.pause``."""
        self._paused.update(self._positions.keys() & set(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Return records from these partitions again; see ``Consumer.resume``."""
        self._paused.difference_update(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at another offset; see ``Consumer.seek``."""
        if partition in self._positions:
            self._positions[partition] = offset

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        timeout: float,
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commit offsets, and return when they are safe; see ``Consumer.commit``."""
        check_notes(notes or {})
        if self._listener is not None:
            gone = sorted(offsets.keys() - self._positions.keys())
            if gone:
                raise RetriableError(f"group {self._name}: not owned any more, nothing committed: {gone}")
        self._store.commit(self._name, offsets, timeout, self._ids, records, notes)

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, int],
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> Future[None]:
        """Start to commit offsets; see ``Consumer.commit_async``. The future has ended when this returns."""
        done: Future[None] = Future()
        try:
            self.commit(offsets, _COMMIT_TIMEOUT, records, notes)
        except TielineError as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        return done

    def committed(
        self, partitions: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, Committed]:
        """Return the group's committed offsets; see ``Consumer.committed``."""
        stored = self._store.noted(self._name)
        return {partition: stored[partition] for partition in partitions if partition in stored}

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> Changelog:
        """Take over the changelog of an owned partition; see ``Consumer.changelog``."""
        bounds = self._store.bounds(partition.topic)
        target = ChangelogTarget(topic, partition, self._name, self._ids.get(partition, bounds[partition].id))
        changelog = self._changelogs().take_over(target, len(bounds), timeout)
        if (
            changelog.offset is not None and partition in self._positions
        ):  # a write of the previous owner was completed
            self._positions[partition] = max(self._positions[partition], changelog.offset)
        return changelog

    def skipped(self) -> list[Skipped]:
        """Return the ranges that were passed over since the last call; see ``Consumer.skipped``."""
        skipped, self._skipped = self._skipped, []
        return skipped

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic that records were last returned of; see ``Consumer.topic_id``."""
        info = self._store.topics().get(topic)
        return None if info is None else info.id

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return how many offsets each owned partition is behind its end; see ``Consumer.lag``.

        ``None``: the topic was deleted.
        """
        if not self._assigned:
            raise RetriableError(f"group {self._name}: partitions are not assigned yet")
        bounds = self._store.snapshot()
        lag: dict[TopicPartition, int | None] = {}
        for partition, position in self._positions.items():
            known = bounds.get(partition)
            if known is None:
                lag[partition] = None
                continue
            # After a restore from a backup, offsets that no record has are in between.
            lag[partition] = max(0, min(known.end - max(position, known.start), known.records))
        return lag

    def close(self, timeout: float) -> None:
        """Leave the group; see ``Consumer.close``."""
        listener, self._listener = self._listener, None
        try:
            if listener is not None and self._positions:
                listener.revoked(sorted(self._positions))
        finally:
            self._positions.clear()
            self._ids.clear()
            self._paused.clear()
            self._group.leave(self)

    def _rebalance(self) -> None:
        listener = self._listener
        if listener is None:
            return
        bounds = self._store.snapshot()
        if bounds is not self._bounds:
            recreated = self._find_recreated(bounds)
            self._bounds = bounds
            self._group.update(bounds.keys())
            if recreated:
                self._restart(recreated, listener)
        leaving = self._group.to_release(self)
        if leaving:
            self._leave(leaving, listener)
        coming = self._group.claim(self)
        if coming:
            stored = self._store.committed(self._name)
            for partition in coming:
                start = bounds[partition].start if partition in bounds else 0
                self._positions[partition] = stored.get(partition, start)
                if partition in bounds:
                    self._ids[partition] = bounds[partition].id
            listener.assigned(coming)
        self._assigned = True

    def _find_recreated(self, bounds: Mapping[TopicPartition, Bounds]) -> list[TopicPartition]:
        """Return the owned partitions whose topics were recreated, and note what of them was skipped."""
        for partition in self._positions.keys() & bounds.keys():
            self._ids.setdefault(partition, bounds[partition].id)
        recreated = sorted(
            partition
            for partition in self._ids.keys() & bounds.keys()
            if bounds[partition].id != self._ids[partition]
        )
        for partition in recreated:
            position = self._positions[partition]
            end = self._bounds[partition].end if partition in self._bounds else position
            self._skipped.append(Skipped(partition, position, end, "recreated"))
        return recreated

    def _restart(self, partitions: Collection[TopicPartition], listener: RebalanceListener) -> None:
        """Begin recreated partitions: nothing known of the old ones holds."""
        for partition in partitions:
            self._positions[partition] = 0
            self._ids[partition] = self._bounds[partition].id
            self._paused.discard(partition)
        listener.lost(partitions)
        listener.assigned(partitions)

    def _leave(self, partitions: Collection[TopicPartition], listener: RebalanceListener) -> None:
        try:
            listener.revoked(partitions)
        finally:
            for partition in partitions:
                del self._positions[partition]
                self._ids.pop(partition, None)
                self._paused.discard(partition)
            self._group.release(self, partitions)

    def _take(self, max_records: int) -> list[ConsumedRecord]:
        records: list[ConsumedRecord] = []
        room = MAX_BATCH_BYTES
        flowing = [partition for partition in self._positions if partition not in self._paused]
        self._turn += 1
        first = self._turn % len(flowing) if flowing else 0
        for partition in flowing[first:] + flowing[:first]:
            bounds = self._bounds.get(partition)
            if bounds is None or self._positions[partition] >= bounds.end:
                continue
            if self._positions[partition] < bounds.start:
                self._skipped.append(Skipped(partition, self._positions[partition], bounds.start, "expired"))
                self._positions[partition] = bounds.start
            left = max_records - len(records)
            try:
                batch = self._store.read_known(partition, bounds, self._positions[partition], left, room)
            except TielineError:
                if not records:
                    raise
                break  # the records are handed over first; the error comes again
            self._positions[partition] = batch[-1].offset + 1 if batch else bounds.end
            records += batch
            room -= sum(len(record.value or b"") for record in batch)
            if len(records) >= max_records or room <= 0:
                break
        return records
