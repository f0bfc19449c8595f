"""Fixtures and calls of the sink's contract: what its tests are written with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tieline.api import (
    DataError,
    FatalError,
    Headers,
    RetriableError,
    SinkConnector,
    SinkRecord,
    SinkTask,
    TopicPartition,
    identity,
)
from tieline.testing.driven_task import UnexpectedError
from tieline.testing.promises import NotTested
from tieline.testing.shared_contract import ConnectorContract
from tieline.testing.sink_context import RecordingSinkContext

Written = Callable[[], Sequence[Any]]
TOPIC = "consumed"


class SinkCalls(ConnectorContract):
    """Starts sink tasks and puts batches within time limits."""

    connector: ClassVar[type[SinkConnector[Any] | SinkTask[Any]]]
    in_order: ClassVar[bool] = True
    """Whether ``written`` returns the values of a partition in the order of their records."""
    idempotent: ClassVar[bool] = True
    """Whether a record that comes again changes nothing. Records come again after every crash.

    With ``False``, ``not_idempotent_because`` says why: duplicates are then no failure, and are listed.
    """
    not_idempotent_because: ClassVar[str] = ""
    """The reason for ``idempotent = False``, such as "a text file has no keys"."""

    _data_dir = Path("tieline-data")  # of a test that is called without pytest's fixtures
    """``context.data_dir`` of every task of a test."""

    @pytest.fixture(autouse=True)
    def _give_data_dir(self, tmp_path: Path) -> None:
        self._data_dir = tmp_path / "data"

    @pytest.fixture
    def written(self) -> Written:
        """``written()``: the values that are safe outside now, read by other means than the sink's. Required.

        Values are returned as ``value`` made them, one for each row, document or message.
        """
        raise NotImplementedError("give the fixture 'written': written() returns the values that are safe")

    @pytest.fixture
    def bad_value(self) -> Any:
        """A value that can never be written. ``None``: the promises about data errors are not tested."""
        return None

    @pytest.fixture
    def break_after(self) -> Callable[[int], None] | None:
        """``break_after(count)``: the external system takes so many more values, then it is unavailable.

        ``heal_it`` ends that. ``None``: an outage in the middle of a batch is not tested.
        """
        return None

    @pytest.fixture
    def work(self) -> Callable[[Any], None]:
        """``work(task)``: put four records, and flush them."""

        def work(task: Any) -> None:
            batch = self._batch(0, 0, 4)
            self._put(task, batch)
            self._flushed(task, [batch])

        return work

    def value(self, number: int) -> Any:
        """Return the value of record ``number``, each unlike every other.

        Override it if the sink does not take any text. ``written`` returns equal values.
        """
        return f"value {number}: it's 21 °C"

    @property
    def _most(self) -> int:
        """How often a record that came twice may be written."""
        return 1 if self.idempotent else 2

    def _context(self) -> RecordingSinkContext:
        return RecordingSinkContext(data_dir=self._data_dir)

    def _opened(self, task: Any) -> None:
        task.context.assignment = frozenset(TopicPartition(TOPIC, number) for number in (0, 1))
        task.open(task.context.assignment)

    def _batch(self, partition: int, first: int, count: int) -> list[SinkRecord]:
        """Return records whose offset is their number, so that values differ; in different partitions too.

        A transform has renamed their topic: offsets are those of the topic that was consumed.
        """
        return [self._record(partition, number, self.value(number)) for number in range(first, first + count)]

    def _record(self, partition: int, offset: int, value: Any, headers: Headers | None = None) -> SinkRecord:
        if headers is None:
            headers = identity("contract", partition, offset, digest_of=text_of(value).encode())
        timestamp = 1_700_000_000_000 + offset
        return SinkRecord(
            "t", partition, offset, value, headers=headers, timestamp=timestamp, original_topic=TOPIC
        )

    def _put(self, task: Any, batch: Sequence[SinkRecord]) -> None:
        handed, before = list(batch), [text_of(record.value) for record in batch]
        started = time.monotonic()
        try:
            task.put(handed)
        finally:
            took = time.monotonic() - started
            assert took <= self.soon, (
                f"put took {took:.1f} s; it never sleeps or retries, it raises RetriableError"
            )
        same = len(handed) == len(batch) and all(a is b for a, b in zip(handed, batch, strict=True))
        same = same and before == [text_of(record.value) for record in batch]
        assert same, "put changed the batch or a value in it: copy what you change, others use it too"

    def _failures(
        self, task: Any, batch: Sequence[SinkRecord], what: str = "that can never be written"
    ) -> list[int]:
        """Return the indexes that a data error of put or flush names, or that the task reports.

        ``what``: what is bad about one.
        """
        task.context.dead_letters = True
        before = len(task.context.reported)
        named: set[int] = set()
        try:
            self._put(task, batch)
            task.flush(reached(batch))
        except DataError as error:
            named = set(error.failures)
        except RetriableError as error:
            raise AssertionError(
                f"the sink raised RetriableError for a record {what} ({error}): it would be offered again "
                "for ever, and nothing behind it. Raise DataError with its index"
            ) from error
        except (FatalError, UnexpectedError) as error:
            raise AssertionError(
                f"the sink raised {type(error).__name__} for a record {what} ({error}): the task would stop. "
                "Write all others, then raise DataError with its index"
            ) from error
        finally:
            task.context.dead_letters = False
        places = {(*record.consumed_from, record.offset): index for index, record in enumerate(batch)}
        reported = {
            places.get((*record.consumed_from, record.offset), -1)
            for record, _, _ in task.context.reported[before:]
        }
        return sorted(named | reported)

    def _flushed(self, task: Any, batches: Iterable[Sequence[SinkRecord]]) -> None:
        task.flush(reached([record for batch in batches for record in batch]))

    def _is_there(self, records: Sequence[SinkRecord], values: Sequence[Any], message: str) -> None:
        missing = Counter(text_of(r.value) for r in records) - Counter(map(text_of, values))
        assert not missing, f"{message} ({missing.total()} records)"

    def _check(self, batches: Iterable[Sequence[SinkRecord]], values: Sequence[Any], most: int = 1) -> None:
        """Check that each value of these records is outside, in order, at most ``most`` times."""
        records = [record for batch in batches for record in batch]
        expected, texts = Counter(text_of(r.value) for r in records), [text_of(value) for value in values]
        counted = Counter(texts)
        missing, other = expected - counted, Counter(set(texts)) - expected
        assert not missing, f"{missing.total()} records are missing, although flush returned"
        assert not other, f"{other.total()} values were written that are not those of the records"
        if most == 1:
            surplus = counted - expected
            assert not surplus, f"{surplus.total()} values too many: records were written twice"
        if self.in_order and most == 1:
            self._check_order(records, texts)

    def _check_order(self, records: Sequence[SinkRecord], texts: Sequence[str]) -> None:
        for partition in {record.partition for record in records}:
            expected = [text_of(record.value) for record in records if record.partition == partition]
            written = [text for text in texts if text in set(expected)]
            assert written == expected, (
                f"the records of partition {partition} are out of order; keep the order of a partition, "
                "or state in_order = False if the store has none"
            )

    def _offered(
        self, task: Any, batch: Sequence[SinkRecord], settings: Mapping[str, str]
    ) -> list[SinkRecord]:
        """Put a batch in an outage; return the records that the runtime will offer again."""
        error = self._fails("put", lambda: self._put(task, batch), settings)
        return [] if error is None else to_offer_again(batch, error)

    def _need(self, not_tested: NotTested, fixtures: Mapping[str, Any]) -> None:
        """Skip the test if one of these fixtures is ``None``."""
        if missing := [f"'{name}'" for name, value in fixtures.items() if value is None]:
            plural = "s" if len(missing) > 1 else ""
            not_tested(f"give the fixture{plural} {' and '.join(missing)}")


def reached(batch: Sequence[SinkRecord]) -> dict[TopicPartition, int]:
    """Return the offset that each partition reaches with a batch."""
    offsets: dict[TopicPartition, int] = {}
    for record in batch:
        offsets[record.consumed_from] = max(record.offset + 1, offsets.get(record.consumed_from, 0))
    return offsets


def text_of(value: Any) -> str:
    """Return a value, which need not be hashable, as something that can be counted."""
    return value if isinstance(value, str) else repr(value)


def to_offer_again(batch: Sequence[SinkRecord], error: RetriableError) -> list[SinkRecord]:
    """Return what a ``RetriableError`` of ``put`` says was not written."""
    return [
        record
        for record in batch
        if (error.partitions is None or record.consumed_from in error.partitions)
        and record.offset >= error.reached.get(record.consumed_from, 0)
    ]
