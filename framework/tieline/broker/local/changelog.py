"""Changelogs on the local log: a file of their own, and an outbox in it that makes two files one.

``ledger.db`` has its own fsync, so that no entry waits for telemetry. Results and the group's offset
belong into the main log. A write is therefore

1. one transaction of the ledger: the entries, and an *outbox* of records and offset;
2. one transaction of the main log: what the outbox holds, and its number as a mark;
3. removed from the outbox by the next write's first step.

Whoever takes a partition over delivers an outbox that is still there again, unless the main log has its
mark. The ledger keeps the latest record of each key only: what it replaces is deleted with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from tieline.api import DataError, FencedError, RetriableError, TielineError, TopicPartition
from tieline.broker.local.codec import encode_headers
from tieline.broker.local.layout import LEGAL_TOPIC
from tieline.broker.local.reader import MAX_BATCH_BYTES
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.port import ConsumedRecord, ProducerRecord

T = TypeVar("T")
log = logging.getLogger(__name__)


_LARGEST_OUTBOX = 1 << 29  # a value of SQLite has a limit of 1 GB


class Place(NamedTuple):
    """Whose changelog: its topic, the consumed partition and its id inside the log, and the group."""

    topic: str
    partition: TopicPartition
    group: str
    id: int


class ChangelogFile:
    """The file of all changelogs of a local log. Raises ``AlreadyOwned``: one process has it."""

    def __init__(self, main: Store) -> None:
        self.main = main
        self.store = Store(main.path.with_name("ledger.db"))
        self.id = self.store.cluster_id
        self.main_id = main.cluster_id
        self.owners: dict[TopicPartition, Changelog] = {}  # the ledger's writer thread alone

    def take_over(self, place: Place, partitions: int, timeout: float) -> Changelog:
        """See ``Consumer.changelog``; ``partitions``: how many the consumed topic has."""
        deadline = time.monotonic() + timeout
        changelog = Changelog(self, place)

        def own(tables: Tables) -> None:
            # An outbox is all that one write has for the main log, which looks at each record's size itself.
            of_outbox = {"cleanup.policy": "compact", "max.message.bytes": str(_LARGEST_OUTBOX)}
            for topic, config in (
                (place.topic, {"cleanup.policy": "compact"}),
                (changelog.outbox.topic, of_outbox),
            ):
                tables.create_topic(topic, partitions, config)
                tables.add_partitions(topic, partitions)
            self.owners[changelog.at] = changelog  # from here on every write of an earlier owner is refused

        _answer(self.store.submit(own), deadline, place.topic)
        changelog.read(deadline)
        return changelog

    def records(self, at: TopicPartition) -> Iterator[ConsumedRecord]:
        """All of a partition of the ledger."""
        bounds = self.store.bounds(at.topic)[at]
        position = bounds.start
        while batch := self.store.read_known(at, bounds, position, 1_000, MAX_BATCH_BYTES):
            yield from batch
            position = batch[-1].offset + 1


@dataclass(frozen=True)
class _Write:
    """What a call of ``write`` asks for; equal to the same asked again."""

    entries: Mapping[bytes, bytes | None]
    records: Sequence[ProducerRecord]
    offset: int | None


class _Outbox(NamedTuple):
    """What the main log is still to be given; ``number`` grows with each of a partition."""

    number: int
    id: int
    records: Sequence[ProducerRecord]
    offset: int | None


class _Entered(NamedTuple):
    """The end of step 1: where each key's entry is now, and the outbox."""

    places: dict[bytes, int]
    outbox: _Outbox | None


@dataclass
class _Begun:
    """A write that has no answer yet."""

    wanted: _Write
    entering: Future[_Entered]
    delivering: Future[None] | None = None


class Changelog:
    """See ``PartitionWriter``. Made by ``ChangelogFile.take_over``."""

    def __init__(self, ledger: ChangelogFile, place: Place) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.offset: int | None = None
        """The group's offset that a write of the owner before has moved just now."""
        self.at = TopicPartition(place.topic, place.partition.partition)
        self.outbox = TopicPartition(f"{place.topic}-outbox", place.partition.partition)
        self._ledger = ledger
        self._place = place
        self._lock = threading.Lock()
        self._places: dict[bytes, int] = {}
        self._outboxes: list[int] = []  # in the ledger, and delivered: the next write removes them
        self._begun: _Begun | None = None

    def read(self, deadline: float) -> None:
        """Read what there is, and deliver what the owner before has left in the outbox."""
        for record in self._ledger.records(self.at):
            key, value = record.key or b"", record.value or b""
            self.entries[key], self._places[key] = value, record.offset
        for record in self._ledger.records(self.outbox):
            outbox, log_id = _unpacked(record)
            self._outboxes.append(record.offset)
            if log_id not in (None, self._ledger.main_id):
                log.warning(
                    "%s: what was left for another log.db is not given to this one; the entries stay",
                    self._what,
                )
                continue
            if outbox.id == self._place.id:
                self.offset = outbox.offset if outbox.offset is not None else self.offset
            _answer(self._ledger.main.submit(partial(self._deliver, outbox)), deadline, self._what)

    def write(
        self,
        entries: Mapping[bytes, bytes | None],
        records: Sequence[ProducerRecord],
        offset: int | None,
        timeout: float,
    ) -> None:
        """See ``PartitionWriter.write``."""
        wanted = _Write(dict(entries), list(records), offset)
        deadline = time.monotonic() + timeout
        with self._locked(timeout):
            try:
                if self._finish(deadline) == wanted:
                    return  # an earlier call had no answer
            except DataError:
                pass  # the earlier one's, of which nothing was written
            self._check(wanted)
            self._begun = _Begun(wanted, self._ledger.store.submit(partial(self._enter, wanted)))
            self._finish(deadline)

    def close(self, timeout: float) -> None:
        """See ``PartitionWriter.close``."""

        def disown(tables: Tables) -> None:
            if self._ledger.owners.get(self.at) is self:
                del self._ledger.owners[self.at]

        _answer(self._ledger.store.submit(disown), time.monotonic() + timeout, self._what)

    @property
    def _what(self) -> str:
        return f"the changelog {self.at.topic}-{self.at.partition}"

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=timeout):
            raise RetriableError(f"{self._what}: an earlier write has not ended within {timeout} s")
        try:
            yield
        finally:
            self._lock.release()

    def _finish(self, deadline: float) -> _Write | None:
        """Bring the begun write to its end, and say which it was. ``RetriableError``: it still has none, or
        nothing of it was written.
        """
        begun = self._begun
        if begun is None:
            return None
        entered = self._entered(begun, deadline)
        if entered.outbox is not None:
            if begun.delivering is None:
                begun.delivering = self._ledger.main.submit(partial(self._deliver, entered.outbox))
            try:
                _answer(begun.delivering, deadline, self._what)
            except TielineError:
                if (
                    begun.delivering.done()
                ):  # it failed, as on a full disk: it is in the outbox, and goes again
                    begun.delivering = None
                raise
        self._begun = None
        for key in begun.wanted.entries:
            self._places.pop(key, None)
        self._places.update(entered.places)
        self._outboxes = [] if entered.outbox is None else [entered.outbox.number]
        return begun.wanted

    def _entered(self, begun: _Begun, deadline: float) -> _Entered:
        try:
            return _answer(begun.entering, deadline, self._what)
        except BaseException:
            if begun.entering.done():
                self._begun = None  # nothing was written
            raise

    def _enter(self, wanted: _Write, tables: Tables) -> _Entered:
        """Step 1, in the ledger's writer thread."""
        if self._ledger.owners.get(self.at) is not self:
            raise FencedError(
                f"{self._what}: somebody else has taken the partition over; nothing was written"
            )
        tables.delete(self.at, [self._places[key] for key in wanted.entries if key in self._places])
        tables.delete(self.outbox, self._outboxes)
        kept = {key: value for key, value in wanted.entries.items() if value is not None}
        topic, number = self.at
        appended = tables.append([ProducerRecord(topic, v, k, partition=number) for k, v in kept.items()])
        if appended.failures:
            failed = list(kept)
            index = {key: index for index, key in enumerate(wanted.entries)}
            raise DataError({index[failed[at]]: cause for at, cause in appended.failures.items()})
        places = {
            key: put.offset for key, put in zip(kept, appended.metadata, strict=True) if put is not None
        }
        if not wanted.records and wanted.offset is None:
            return _Entered(places, None)
        log_id = self._ledger.main_id
        packed = msgspec.msgpack.encode((self._place.id, wanted.records, wanted.offset, log_id))
        appended = tables.append([ProducerRecord(self.outbox.topic, packed, partition=number)])
        if appended.failures:
            raise DataError({len(wanted.entries): appended.failures[0]})
        (put,) = appended.metadata
        assert put is not None
        return _Entered(places, _Outbox(put.offset, self._place.id, wanted.records, wanted.offset))

    def _deliver(self, outbox: _Outbox, tables: Tables) -> None:
        """Step 2, in the main log's writer thread. What it has had already it is not given twice."""
        topic, partition, group, _ = self._place
        mark = tables.source_offset(self.at.topic, str(self.at.partition)) or ""
        file, _, number = mark.partition(" ")
        if file == self._ledger.id and int(number) >= outbox.number:
            return
        for cause in tables.append(outbox.records).failures.values():  # it was checked, so the topic changed
            log.error("a record that was promised cannot be written: %s", cause, extra={"changelog": topic})
        if outbox.offset is not None:
            tables.commit_group(group, {partition: outbox.offset}, {partition: outbox.id})
        mark = f"{self._ledger.id} {outbox.number}"
        tables.save_source_offsets(self.at.topic, {str(self.at.partition): mark})

    def _check(self, wanted: _Write) -> None:
        """Refuse what the main log would, before anything is entered. Raises ``DataError``."""
        settings = self._ledger.main.settings
        failures: dict[int, Exception] = {}
        for index, (topic, value, key, headers, timestamp, number) in enumerate(
            wanted.records, len(wanted.entries)
        ):
            config, partitions = self._ledger.main.described(topic) or ({}, settings.default_partitions)
            try:
                limit = int(config.get("max.message.bytes", settings.max_message_bytes))
                size = len(value or b"") + len(key or b"") + len(encode_headers(headers) if headers else b"")
                if not LEGAL_TOPIC.match(topic):
                    raise ValueError(f"{topic[:260]!r} is no legal topic name")
                if size > limit:
                    raise ValueError(
                        f"topic {topic}: a record of {size} bytes; its max.message.bytes is {limit}"
                    )
                if timestamp is not None and not 0 <= timestamp < 1 << 63:
                    raise ValueError(f"topic {topic}: the timestamp {timestamp} is not possible")
                if number is not None and not 0 <= number < partitions:
                    raise ValueError(f"topic {topic} has no partition {number}, only {partitions}")
            except (ValueError, TypeError, AttributeError) as cause:
                failures[index] = cause
        if failures:
            raise DataError(failures)


def _unpacked(record: ConsumedRecord) -> tuple[_Outbox, str | None]:
    """The outbox, and the id of the main log that it is for; none: of a version that did not say so."""
    found: Any = msgspec.msgpack.decode(record.value or b"")
    partition_id, records, offset, *log_id = found
    made = [
        ProducerRecord(topic, value, key, tuple((name, content) for name, content in headers), *rest)
        for topic, value, key, headers, *rest in records
    ]
    return _Outbox(record.offset, partition_id, made, offset), log_id[0] if log_id else None


def _answer(future: Future[T], deadline: float, what: str) -> T:
    """What a change of a file came to; it goes on when the time is over."""
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        if future.done():
            raise
        raise RetriableError(f"{what}: the disk did not answer in time") from None
