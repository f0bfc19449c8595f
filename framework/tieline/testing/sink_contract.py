"""The promises of a sink, as tests; see ``tieline.testing.contract``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from tieline.api import (
    DataError,
    RetriableError,
    SinkConnector,
    SinkRecord,
    SinkTask,
    TopicPartition,
    identity,
)
from tieline.testing.connector_contract import ConnectorContract
from tieline.testing.sink_context import RecordingSinkContext

Written = Callable[[], Sequence[Any]]


class SinkContract(ConnectorContract):
    """What ``tieline.api.SinkTask`` promises. Give ``connector``, ``settings`` and ``written``.

    ``value(n)`` may be overridden where the sink does not take just any text; ``bad_value`` where there
    is something that it can never write.
    """

    connector: ClassVar[type[SinkConnector[Any]]]
    in_order: ClassVar[bool] = True
    """Whether ``written`` gives the values of a partition in the order of their records."""
    idempotent: ClassVar[bool] = False
    """Whether a record that comes again changes nothing; if not, it may be written again."""

    @pytest.fixture
    def written(self) -> Written:
        """``written()``: the values that are safe outside now, read by other means than the sink's."""
        raise NotImplementedError("give the fixture 'written'")

    @pytest.fixture
    def bad_value(self) -> Any:
        """A value that can never be written; none: there is none."""
        return None

    def value(self, number: int) -> Any:
        """The value of record ``number``, each unlike every other; ``written`` gives equal ones."""
        return f"value {number}"

    def test_what_was_flushed_is_written_once(self, settings: Mapping[str, str], written: Written) -> None:
        """Two partitions, several batches; nothing is missing, nothing too much, each in order."""
        batches = [
            self._batch(0, 0, 4),
            self._batch(1, 10, 1),
            [*self._batch(0, 4, 3), *self._batch(1, 11, 2)],
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
                assert len(written()) == number + 1, "flush returned before everything was safe"

    def test_what_is_said_to_be_safe_is_written(self, settings: Mapping[str, str], written: Written) -> None:
        """``pre_commit`` may hold back, but what it returns counts."""
        batch = self._batch(0, 0, 5)
        with self._started(settings) as task:
            self._put(task, batch)
            reached = _reached(batch)
            safe = task.pre_commit(reached)
            assert set(safe) <= set(reached), "pre_commit invents partitions"
            for partition, offset in safe.items():
                assert offset <= reached[partition], "pre_commit invents offsets"
                need = Counter(_text(r.value) for r in batch if r.offset < offset)
                assert not need - Counter(map(_text, written())), "what is not written was called safe"

    def test_a_batch_that_comes_again_does_no_harm(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A crash after the flush and before the commit: another task is given the same records."""
        batch = self._batch(0, 0, 4)
        for _ in range(2):
            with self._started(settings) as task:
                self._put(task, batch)
                self._flushed(task, [batch])
        found = Counter(map(_text, written()))
        assert set(found) == {_text(record.value) for record in batch}
        most = 1 if self.idempotent else 2
        assert max(found.values()) <= most, f"a record was written {max(found.values())} times"

    def test_a_bad_record_is_named_and_all_others_are_written(
        self, settings: Mapping[str, str], written: Written, bad_value: Any
    ) -> None:
        """``DataError`` names the index; what it does not name counts as handled."""
        if bad_value is None:
            pytest.skip("there is no value that cannot be written")
        good = self._batch(0, 0, 3)
        batch = [good[0], good[1]._replace(value=bad_value), good[2]]
        with self._started(settings) as task:
            failed = self._failures(task, batch)
            assert failed == [1], f"record 1 is bad, but the data error names {failed or 'none'}"
            task.flush(_reached(batch))
            self._check([[good[0], good[2]]], written())

    def test_partitions_come_and_go(self, settings: Mapping[str, str], written: Written) -> None:
        """One is lost with records that were not flushed (they come again elsewhere), another one stays."""
        lost, kept = TopicPartition("t", 0), TopicPartition("t", 1)
        with self._started(settings) as task:
            self._put(task, self._batch(0, 0, 2))
            batch = self._batch(1, 10, 2)
            self._put(task, batch)
            task.close([lost], lost=True)
            task.flush({kept: 12})
            assert not Counter(_text(r.value) for r in batch) - Counter(map(_text, written()))
            task.close([kept], lost=False)
            task.open([lost])
            again = self._batch(0, 0, 2)
            self._put(task, again)
            self._flushed(task, [again])
            assert not Counter(_text(r.value) for r in again) - Counter(map(_text, written()))

    def test_nothing_to_do_is_no_error(self, settings: Mapping[str, str], written: Written) -> None:
        """No batch, an empty batch, a flush without offsets."""
        with self._started(settings) as task:
            task.flush({})
            self._put(task, [])
            assert dict(task.pre_commit({})) == {}
            assert list(written()) == []

    def test_a_null_value_is_written_passed_over_or_a_data_error(self, settings: Mapping[str, str]) -> None:
        """A tombstone is no bug."""
        (record,) = self._batch(0, 0, 1)
        with self._started(settings) as task:
            assert self._failures(task, [record._replace(value=None)]) in ([], [0])

    def test_a_task_that_never_started_can_be_interrupted_and_stopped(
        self, settings: Mapping[str, str]
    ) -> None:
        """The worker was asked to stop before ``start`` succeeded."""
        task = self._task(settings)
        task.interrupt()
        task.stop()

    def test_a_start_in_an_outage_can_be_repeated(self, outage: Mapping[str, str] | None) -> None:
        """It may succeed, or raise ``RetriableError`` each time; then the task is interrupted and stopped."""
        if outage is None:
            pytest.skip("no settings of an outage are given")
        task = self._task(outage)
        for _ in range(2):
            try:
                task.start()
                break
            except RetriableError:
                continue
        task.interrupt()
        task.stop()

    def _task(
        self, settings: Mapping[str, str], context: RecordingSinkContext | None = None
    ) -> SinkTask[Any]:
        return self.connector.task_type(context or RecordingSinkContext(), self._config(settings))

    @contextmanager
    def _started(self, settings: Mapping[str, str]) -> Iterator[SinkTask[Any]]:
        context = RecordingSinkContext()
        task = self._task(settings, context)
        try:
            task.start()
            context.assignment = frozenset(TopicPartition("consumed", number) for number in (0, 1))
            task.open(context.assignment)
            yield task
        finally:
            task.interrupt()
            task.stop()

    def _batch(self, partition: int, first: int, count: int) -> list[SinkRecord]:
        """Records whose offset is their number, so that values differ; in different partitions too.

        A transform has renamed their topic: offsets are those of the topic that was consumed.
        """
        return [
            SinkRecord(
                "t",
                partition,
                number,
                self.value(number),
                headers=identity("contract", partition, number, digest_of=_text(self.value(number)).encode()),
                timestamp=1_700_000_000_000 + number,
                original_topic="consumed",
            )
            for number in range(first, first + count)
        ]

    def _put(self, task: SinkTask[Any], batch: Sequence[SinkRecord]) -> None:
        begun = time.monotonic()
        try:
            task.put(batch)
        finally:
            took = time.monotonic() - begun
            assert took <= self.soon, (
                f"put took {took:.1f} s; it never sleeps or retries, it raises RetriableError"
            )

    def _failures(self, task: SinkTask[Any], batch: Sequence[SinkRecord]) -> list[int]:
        """The indexes that a data error of put or flush names."""
        try:
            self._put(task, batch)
            task.flush(_reached(batch))
        except DataError as error:
            return sorted(error.failures)
        return []

    def _flushed(self, task: SinkTask[Any], batches: Sequence[Sequence[SinkRecord]]) -> None:
        task.flush(_reached([record for batch in batches for record in batch]))

    def _check(self, batches: Sequence[Sequence[SinkRecord]], found: Sequence[Any]) -> None:
        records = [record for batch in batches for record in batch]
        expected, texts = Counter(_text(r.value) for r in records), [_text(value) for value in found]
        assert not expected - Counter(texts), f"{(expected - Counter(texts)).total()} records are missing"
        assert not Counter(texts) - expected, f"{(Counter(texts) - expected).total()} values too many"
        if self.in_order:
            for partition in {record.partition for record in records}:
                mine = [_text(record.value) for record in records if record.partition == partition]
                assert [text for text in texts if text in mine] == mine, (
                    f"partition {partition} is out of order"
                )


def _reached(batch: Sequence[SinkRecord]) -> dict[TopicPartition, int]:
    reached: dict[TopicPartition, int] = {}
    for record in batch:
        reached[record.consumed_from] = record.offset + 1
    return reached


def _text(value: Any) -> str:
    """Values that need not be hashable, as something that can be counted."""
    return value if isinstance(value, str) else repr(value)
