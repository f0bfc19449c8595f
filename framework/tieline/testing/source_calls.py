"""Fixtures and calls of the source's contract: what its tests are written with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from tieline.api import ID_HEADER, RetriableError, SourceConnector, SourceRecord, SourceTask, header
from tieline.testing.shared_contract import ConnectorContract
from tieline.testing.source_context import RecordingSourceContext

Feed = Callable[[int], None]


class Read(NamedTuple):
    """A record with its position as it was when ``poll`` returned it: a task might change the map later."""

    record: SourceRecord
    partition: str
    offset: str
    value: str
    """Key, value and time, which distinguish the records that were fed."""
    content: str
    """Everything that must be the same when the record is read again."""

    @property
    def id(self) -> bytes | None:
        """Its ``tieline.id``, if it has one."""
        return header(self.record, ID_HEADER)


class SourceCalls(ConnectorContract):
    """Starts source tasks and polls them within time limits."""

    connector: ClassVar[type[SourceConnector[Any] | SourceTask[Any]]]
    settle: ClassVar[float] = 0.3
    """Seconds in which records that were fed reach a task that does not poll."""

    _data_dir = Path("tieline-data")  # of a test that is called without pytest's fixtures
    """``context.data_dir`` of every task of a test."""

    @pytest.fixture(autouse=True)
    def _give_data_dir(self, tmp_path: Path) -> None:
        self._data_dir = tmp_path / "data"

    @pytest.fixture
    def feed(self) -> Feed:
        """``feed(count)``: make so many more records readable, each unlike every other. Required.

        A replayable source finds them whenever it reads; for another one (``replayable = False``) feed is
        called after the task has started, and hands over to a running task.
        """
        raise NotImplementedError("give the fixture 'feed': feed(count) makes that many records readable")

    @pytest.fixture
    def work(self, feed: Feed) -> Callable[[Any], None]:
        """``work(task)``: feed three records and read them."""

        def work(task: Any) -> None:
            feed(3)
            self._read(task, 3)

        return work

    @property
    def _replayable(self) -> bool:
        return bool(self._connector.task_type.replayable)

    def _context(self) -> RecordingSourceContext:
        return RecordingSourceContext(data_dir=self._data_dir)

    def _poll(self, task: Any, most: int, wait: float) -> list[Read]:
        started = time.monotonic()
        try:
            records = task.poll(most, wait)
        except RetriableError:
            took = time.monotonic() - started
            assert took <= wait + self.soon, (
                f"poll took {took:.1f} s to report an outage, {wait} s were allowed (max_wait): "
                "give each connection and each request a time limit"
            )
            raise
        took = time.monotonic() - started
        assert isinstance(records, (list, tuple)), (
            f"poll returned a {type(records).__name__}: return a list of records, [] if there are none"
        )
        assert len(records) <= most, (
            f"poll returned {len(records)} records, {most} were asked for (max_records): keep the others"
        )
        assert took <= wait + self.soon, f"poll took {took:.1f} s, {wait} s were allowed (max_wait)"
        return [read_of(record) for record in records]

    def _read(self, task: Any, count: int, most: int = 100) -> list[Read]:
        records: list[Read] = []
        deadline = time.monotonic() + self.patience
        while len(records) < count:
            assert time.monotonic() < deadline, (
                f"{len(records)} of {count} records came in {self.patience} s: records are lost, "
                "or an error is swallowed in poll"
            )
            records += self._poll(task, most, 0.1)
        return records

    def _read_some(self, task: Any, count: int) -> list[Read]:
        """Read up to ``count`` records, as far as they come in time."""
        records: list[Read] = []
        deadline = time.monotonic() + self.patience
        while len(records) < count and time.monotonic() < deadline:
            records += self._poll(task, 100, 0.1)
        return records

    def _rest(self, task: Any) -> list[Read]:
        """Return what ``poll`` still holds after ``interrupt``: the runtime polls until nothing comes."""
        records: list[Read] = []
        while rest := self._poll(task, 3, 0.0):
            records += rest
        return records

    def _save(self, context: RecordingSourceContext, records: list[Read]) -> None:
        """Save the offsets that these records reach, as the runtime does."""
        context.save(
            read.record._replace(
                source_partition=json.loads(read.partition), source_offset=json.loads(read.offset)
            )
            for read in records
        )


def read_of(record: SourceRecord) -> Read:
    """Return a record with its position as it is now."""
    assert isinstance(record, SourceRecord), f"poll returned a {type(record).__name__}, not a SourceRecord"
    partition, offset = as_json(record.source_partition), as_json(record.source_offset)
    where = f"{record.topic} {partition} {offset}"
    value = f"{record.key!r} {record.value!r} {record.timestamp!r}"
    return Read(
        record, partition, offset, value, f"{where} {record.key!r} {record.value!r} {record.headers!r}"
    )


def as_json(position: Any) -> str:
    """Return a position as the runtime saves it."""
    try:
        return json.dumps(dict(position), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the position {position!r} is not a map of JSON primitives: {error}") from error
