"""The promises of a source about its records, their positions and their identity, as tests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from tieline.api import Position, RecordMetadata, SourceRecord
from tieline.testing.promises import NotTested
from tieline.testing.source_calls import Feed, Read, SourceCalls, as_json, read_of
from tieline.testing.source_context import RecordingSourceContext

_EARLIEST, _LATEST = 100_000_000_000, 10_000_000_000_000  # 1973 and 2286 in ms; 5138 in seconds


class SourceReading(SourceCalls):
    """Reading, resuming, acknowledgement."""

    def test_every_record_is_read_once_and_no_other(self, settings: Mapping[str, str], feed: Feed) -> None:
        """Counted exactly, over more polls than are needed."""
        with self._started(settings) as task:
            feed(10)
            records = self._read(task, 10)
            feed(5)
            records += self._read(task, 5)
            surplus = [record for _ in range(3) for record in self._poll(task, 10, self.soon / 20)]
        assert surplus == [], f"{len(surplus)} records too many: records are read twice"
        places = Counter(read.content for read in records)
        assert len(places) == 15, (
            f"15 records have {len(places)} different positions and contents: "
            "a record was returned twice, and another one was lost"
        )
        values = {read.value for read in records}
        assert len(values) == 15, (
            f"15 records were fed, each unlike every other, and {len(values)} different values came: "
            "create a value for each record, and return each record once (and give a feed without repeats)"
        )

    def test_a_batch_does_not_change_after_poll(self, settings: Mapping[str, str], feed: Feed) -> None:
        """The runtime still has it while ``poll`` is called again."""
        with self._started(settings) as task:
            feed(5)
            deadline = time.monotonic() + self.patience
            batch: Sequence[SourceRecord] = ()
            while not batch and time.monotonic() < deadline:
                batch = task.poll(3, 0.1)
            before = [read_of(record).content for record in batch]
            self._read(task, 5 - len(batch))
            after = [read_of(record).content for record in batch]
        assert after == before, (
            "the batch that poll returned changed when poll was called again: "
            "create a list for each batch, and a value for each record"
        )

    @pytest.mark.parametrize("most", [1, 3])
    def test_a_poll_returns_at_most_what_was_asked_for(
        self, settings: Mapping[str, str], feed: Feed, most: int
    ) -> None:
        """``max_records`` is what fits now."""
        with self._started(settings) as task:
            feed(7)
            records = self._read(task, 7, most)
            assert len(records) == len({read.content for read in records}) == 7, (
                "poll cuts its batch to max_records and loses or repeats the rest"
            )

    def test_a_poll_with_nothing_to_read_ends_in_time(self, settings: Mapping[str, str]) -> None:
        """After ``max_wait`` at the latest, with nothing."""
        with self._started(settings) as task:
            for wait in (0.0, self.soon / 5):
                assert self._poll(task, 10, wait) == [], "poll returned records before anything was fed"

    def test_a_poll_with_nothing_to_read_waits(self, settings: Mapping[str, str]) -> None:
        """A ``poll`` that returns at once is called again at once, and keeps a core of the machine busy."""
        with self._started(settings) as task:
            polls, until = 0, time.monotonic() + self.soon / 2
            while time.monotonic() < until:
                self._poll(task, 10, self.soon / 2)
                polls += 1
        assert polls <= 100, (
            f"{polls} polls in {self.soon / 2} s: wait for up to max_wait if nothing is there"
        )

    def test_a_record_has_what_the_runtime_needs(self, settings: Mapping[str, str], feed: Feed) -> None:
        """A topic, positions of JSON primitives, headers of bytes, a time in milliseconds."""
        with self._started(settings) as task:
            feed(3)
            for read in self._read(task, 3):
                record = read.record
                assert record.topic, "a record without a topic"
                for name, value, schema in (
                    ("key", record.key, record.key_schema),
                    ("value", record.value, record.value_schema),
                ):
                    if schema is None:
                        _check_plain(value, name)
                _check_position(record.source_partition)
                _check_position(record.source_offset)
                if self._replayable:
                    assert record.source_partition, "source_partition is empty: it names what is read"
                    assert record.source_offset, "source_offset is empty: reading could not be resumed"
                assert isinstance(record.headers, tuple), (
                    f"headers are a {type(record.headers).__name__}: give a tuple of (name, bytes)"
                )
                for key, value in record.headers:
                    assert isinstance(key, str), f"the header key {key!r} is not text"
                    assert value is None or isinstance(value, bytes), f"the header {key} is not bytes"
                _check_time(record.timestamp)

    def test_each_record_has_its_own_offset(self, settings: Mapping[str, str], feed: Feed) -> None:
        """The offset of a record does not change after ``poll`` has returned it."""
        if not self._replayable:
            pytest.skip("the source is not replayable: the runtime ignores its offsets")
        with self._started(settings) as task:
            feed(5)
            records = self._read(task, 5)
            feed(5)
            records += self._read(task, 5)
        for read in records:
            now = read.record.source_offset
            assert _same(read.offset, now), (
                f"the offset of a record was {read.offset} and became {now}: records share one map. "
                "Create a map for each record"
            )
        places = {(read.partition, read.offset) for read in records}
        assert len(places) == 10, (
            f"10 records have {len(places)} different offsets: each record carries where to resume after it, "
            "in a map of its own"
        )

    def test_acknowledgements_are_taken(self, settings: Mapping[str, str], feed: Feed) -> None:
        """``commit_record`` for each record (``None``: filtered), then ``commit``."""
        with self._started(settings) as task:
            feed(4)
            for number, read in enumerate(self._read(task, 4)):
                stored = RecordMetadata(read.record.topic, 0, number)
                task.commit_record(read.record, stored if number % 2 else None)
            task.commit()

    def test_a_commit_releases_only_what_was_acknowledged(
        self, settings: Mapping[str, str], feed: Feed
    ) -> None:
        """10 records were read, 4 of them acknowledged and saved; the process is killed: 6 come again."""
        if not self._replayable:
            pytest.skip("the source is not replayable: its promise ends at the spool")
        context = self._context()
        with self._started(settings, context) as task:
            feed(10)
            first = self._read(task, 10)
            for number, read in enumerate(first[:4]):
                task.commit_record(read.record, RecordMetadata(read.record.topic, 0, number))
            self._save(context, first[:4])
            task.commit()
        with self._started(settings, context) as task:
            again = self._read_some(task, 6)
        missing = Counter(read.content for read in first[4:]) - Counter(read.content for read in again)
        assert not missing, (
            f"{missing.total()} records that were read and not acknowledged are gone after commit: "
            "release in the external system only what commit_record was called for"
        )

    def test_tasks_divide_the_work(self, settings: Mapping[str, str], feed: Feed) -> None:
        """Each record is read by one of the tasks that ``task_configs`` returns."""
        configs = self._task_configs(settings, 3)
        if len(configs) < 2:
            pytest.skip("this source has one task at most")
        with ExitStack() as stack:
            tasks = [
                stack.enter_context(
                    self._started(config, RecordingSourceContext(task=number, data_dir=self._data_dir))
                )
                for number, config in enumerate(configs)
            ]
            feed(12)
            records: list[Read] = []
            deadline = time.monotonic() + self.patience
            while len(records) < 12 and time.monotonic() < deadline:
                for task in tasks:
                    records += self._poll(task, 100, 0.05)
            for task in tasks:
                records += self._poll(task, 100, self.soon / 20)
        different = {read.value for read in records}
        assert len(different) == 12, f"{len(tasks)} tasks read {len(different)} of 12 records"
        assert len(records) == 12, (
            f"{len(tasks)} tasks read 12 records {len(records)} times: "
            "task_configs gives each task a part of the work of its own"
        )

    def test_no_secret_is_in_a_record(self, settings: Mapping[str, str], feed: Feed) -> None:
        """Topics and saved offsets are read by others."""
        secrets = self._secrets(settings)
        with self._started(settings) as task:
            feed(3)
            for read in self._read(task, 3):
                for key, text in secrets.items():
                    assert text not in read.partition + read.offset, (
                        f"the position of a record shows the secret {key}: it is stored with the offsets"
                    )
                    assert text not in read.content, f"a record shows the secret {key}"

    @pytest.mark.parametrize("saved", [0, 1, 5, 9, 10])
    def test_reading_resumes_after_the_saved_offsets(
        self, settings: Mapping[str, str], feed: Feed, saved: int
    ) -> None:
        """Read 10, save after some of them, start again: the others come, equal to the first time."""
        if not self._replayable:
            pytest.skip("the source is not replayable: the runtime ignores its offsets")
        context = self._context()
        with self._started(settings, context) as task:
            feed(10)
            first = self._read(task, 10)
        self._save(context, first[:saved])
        with self._started(settings, context) as task:
            again = self._read(task, 10 - saved)
            again += self._poll(task, 10, self.soon / 20)
        expected = Counter(read.content for read in first[saved:])
        read_again = Counter(read.content for read in again)
        done = read_again & Counter(read.content for read in first[:saved])
        assert not done, (
            f"{done.total()} records came again although their offset was saved: "
            "start ignores context.offset, or a record carries the offset before it"
        )
        skipped = expected - read_again
        assert not skipped, f"{skipped.total()} records were skipped, or came otherwise"
        unknown = read_again - expected
        assert not unknown, f"{unknown.total()} records came that were never read before"

    def test_each_record_has_an_id_of_its_own(
        self, settings: Mapping[str, str], feed: Feed, not_tested: NotTested
    ) -> None:
        """Two records with one ``tieline.id`` are one record to every store."""
        with self._started(settings) as task:
            feed(10)
            records = self._read(task, 10)
        ids = [read.id for read in records if read.id is not None]
        if not ids and not self._replayable:
            pytest.skip("the spool gives these records their ids")
        if not ids:
            not_tested(
                "records carry no tieline.id, so a store keeps a record twice that was sent twice; "
                "add headers=identity(...)"
            )
        assert len(ids) == 10, f"{10 - len(ids)} of 10 records carry no tieline.id, the others do"
        assert len(set(ids)) == 10, (
            f"10 records have {len(set(ids))} different ids (tieline.id): a store would keep only these. "
            "Make the id of what distinguishes records"
        )


def _check_position(position: Position) -> None:
    for key, value in position.items():
        assert isinstance(key, str), f"the key {key!r} of a position is not text"
        assert value is None or isinstance(value, (str, int, float, bool)), f"{key}: not a JSON primitive"


def _check_plain(value: Any, name: str) -> None:
    """Check that a value is what converters take without a schema."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert isinstance(key, str), f"the key {key!r} in the {name} of a record is not text"
            _check_plain(item, name)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(item, name)
    else:
        assert value is None or isinstance(value, (str, bytes, int, float, bool)), (
            f"the {name} of a record has a {type(value).__name__}, and no schema: no converter takes it. "
            "Use plain data (None, bool, int, float, str, bytes, list, dict)"
        )


def _check_time(timestamp: int | None) -> None:
    if timestamp is None:
        return
    assert type(timestamp) is int, f"the timestamp {timestamp!r} is not an int: milliseconds since 1970"
    assert _EARLIEST <= timestamp <= _LATEST, (
        f"the timestamp {timestamp} is not in milliseconds since 1970 (seconds? microseconds?)"
    )


def _same(before: str, now: Position) -> bool:
    return as_json(now) == before
