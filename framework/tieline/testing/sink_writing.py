"""The promises of a sink about what it writes and when it is safe, as tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tieline.api import SinkRecord, TopicPartition, identity
from tieline.testing.promises import NotTested
from tieline.testing.sink_calls import TOPIC, SinkCalls, Written, reached, text_of
from tieline.testing.sink_context import RecordingSinkContext


class SinkWriting(SinkCalls):
    """Batches, flushes, commits, partitions, and records that come again."""

    def test_what_was_flushed_is_written_once(self, settings: Mapping[str, str], written: Written) -> None:
        """Two partitions, several batches; nothing is missing, nothing too much, each in order."""
        batches = [
            self._batch(0, 0, 8),
            self._batch(1, 100, 1),
            [*self._batch(0, 8, 3), *self._batch(1, 101, 2)],
        ]
        with self._started(settings) as task:
            for batch in batches:
                self._put(task, batch)
            self._flushed(task, batches)
            self._check(batches, written())

    def test_a_flush_is_enough_without_an_orderly_end(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """After each flush what was put is safe; the process may be killed at any time."""
        with self._started(settings) as task:
            for number in range(3):
                batch = self._batch(0, number, 1)
                self._put(task, batch)
                self._flushed(task, [batch])
                assert len(written()) == number + 1, (
                    "flush returned before everything was safe: a kill now would lose records, "
                    "whose offsets are committed"
                )

    def test_what_pre_commit_returns_is_written(self, settings: Mapping[str, str], written: Written) -> None:
        """``pre_commit`` may hold back, but what it returns counts."""
        batch = self._batch(0, 0, 5)
        with self._started(settings) as task:
            self._put(task, batch)
            offsets = reached(batch)
            safe = task.pre_commit(offsets)
            assert set(safe) <= set(offsets), "pre_commit invents partitions"
            for partition, offset in safe.items():
                assert offset <= offsets[partition], "pre_commit invents offsets"
                need = Counter(text_of(r.value) for r in batch if r.offset < offset)
                missing = need - Counter(map(text_of, written()))
                assert not missing, (
                    f"pre_commit returned offsets of {missing.total()} records that are not written: "
                    "the commit came before the write"
                )

    def test_partitions_come_and_go(self, settings: Mapping[str, str], written: Written) -> None:
        """One is lost with records that were not flushed (they come again elsewhere), another one stays."""
        lost, kept = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
        with self._started(settings) as task:
            self._put(task, self._batch(0, 0, 2))
            batch = self._batch(1, 10, 2)
            self._put(task, batch)
            task.close([lost], True)
            task.flush({kept: 12})
            self._is_there(batch, written(), "close of another partition dropped what was buffered")
            task.close([kept], False)
            task.open([lost])
            again = self._batch(0, 0, 2)
            self._put(task, again)
            self._flushed(task, [again])
            self._is_there(again, written(), "records of a partition that came back are missing")

    def test_a_partition_is_revoked_while_another_one_is_written(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A rebalance: ``pre_commit`` for what is revoked, ``close``, and the task continues."""
        revoked, kept = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
        ours, others = self._batch(0, 0, 3), self._batch(1, 10, 3)
        with self._started(settings) as task:
            self._put(task, [*ours, *others])
            safe = task.pre_commit({revoked: 3})
            done = [record for record in ours if record.offset < safe.get(revoked, 0)]
            later = self._batch(1, 13, 2)
            self._put(task, later)
            task.close([revoked], False)
            self._is_there(done, written(), "what pre_commit called safe is gone after close")
            task.flush({kept: 15})
            message = "close(lost=False) of one partition dropped what was buffered for another one"
            self._is_there([*others, *later], written(), message)

    def test_nothing_to_do_is_not_an_error(self, settings: Mapping[str, str], written: Written) -> None:
        """No batch, an empty batch, a flush without offsets."""
        with self._started(settings) as task:
            task.flush({})
            self._put(task, [])
            assert dict(task.pre_commit({})) == {}, "pre_commit invents partitions"
            assert list(written()) == [], "something was written, but no record was put"

    def test_two_tasks_do_not_disturb_each_other(self, settings: Mapping[str, str], written: Written) -> None:
        """A worker runs several tasks of one connector in one process, each with partitions of its own."""
        configs = self._task_configs(settings, 2)
        if len(configs) < 2:
            pytest.skip("this sink has one task at most")
        mine, others = self._batch(0, 0, 3), self._batch(1, 10, 3)
        with self._started(configs[0]) as task:
            with self._started(configs[1], RecordingSinkContext(task=1, data_dir=self._data_dir)) as other:
                self._put(task, mine)
                self._flushed(task, [mine])
                self._put(other, others)
                other.close([TopicPartition(TOPIC, 1)], True)
            more = self._batch(0, 3, 2)
            self._put(task, more)
            self._flushed(task, [more])
        self._is_there([*mine, *more], written(), "another task of the same connector took records along")

    def test_an_opt_out_of_idempotence_has_a_reason(self, not_tested: NotTested) -> None:
        """``idempotent = False`` needs ``not_idempotent_because``; it is listed at the end of the run."""
        if self.idempotent:
            return
        assert self.not_idempotent_because, (
            "idempotent = False needs a reason: state not_idempotent_because = '…'. "
            "Every crash writes some records twice"
        )
        not_tested(f"idempotent = False, because {self.not_idempotent_because}")

    def test_a_batch_that_comes_again_does_no_harm(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A crash after the flush and before the commit: another task is given the same records."""
        batch = self._batch(0, 0, 4)
        for _ in range(2):
            with self._started(settings) as task:
                self._put(task, batch)
                self._flushed(task, [batch])
        self._written_at_most(self._most, batch, written())

    def test_a_record_that_comes_again_to_the_same_task_does_no_harm(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A rebalance brings back records that were put and not committed."""
        batch = self._batch(0, 0, 4)
        with self._started(settings) as task:
            self._put(task, batch)
            self._put(task, batch)
            self._flushed(task, [batch])
        self._written_at_most(self._most, batch, written())

    def test_a_record_at_another_offset_is_the_same_record(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A source sends a record again after a crash: ``tieline.id`` is the same, the offset is not."""
        if not self.idempotent:
            pytest.skip("idempotent = False")
        batch = self._batch(0, 0, 4)
        again = [record._replace(offset=record.offset + 50) for record in batch]
        with self._started(settings) as task:
            for records in (batch, again):
                self._put(task, records)
                self._flushed(task, [records])
        found = Counter(map(text_of, written()))
        assert max(found.values(), default=0) <= 1, (
            "a record whose tieline.id is known was written again, because it came at another offset: "
            "make the key of the header tieline.id, not of topic, partition and offset"
        )
        self._is_there(batch, written(), "records are missing")

    def test_one_value_under_two_ids_is_two_records(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """Two equal readings are two events: ``tieline.id`` tells records apart, not the value."""
        value = self.value(0)
        digest = text_of(value).encode()
        batch = [
            self._record(0, offset, value, identity("contract", "equal", offset, digest_of=digest))
            for offset in range(2)
        ]
        with self._started(settings) as task:
            self._put(task, batch)
            self._flushed(task, [batch])
        count = len(written())
        assert count == 2, (
            f"two records with one value and two ids (tieline.id) became {count}: "
            "make the key of the id, not of the value or its digest"
        )

    def _is_there(self, records: Sequence[SinkRecord], found: Sequence[Any], message: str) -> None:
        missing = Counter(text_of(r.value) for r in records) - Counter(map(text_of, found))
        assert not missing, f"{message} ({missing.total()} records)"

    def _written_at_most(self, most: int, records: Sequence[SinkRecord], values: Sequence[Any]) -> None:
        found = Counter(map(text_of, values))
        self._is_there(records, values, "records are missing")
        assert set(found) == {text_of(r.value) for r in records}, "values were written that no record has"
        highest = max(found.values())
        assert highest <= most, (
            f"a record that came again was written {highest} times: records come again after every crash. "
            "Make the key of the header tieline.id (upsert, insert or ignore), "
            "or state idempotent = False with not_idempotent_because"
        )
