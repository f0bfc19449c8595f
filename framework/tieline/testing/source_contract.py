"""The promises of a source, as tests; see ``tieline.testing.contract``."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from tieline.api import Position, RetriableError, SourceConnector, SourceRecord, SourceTask
from tieline.testing.connector_contract import ConnectorContract
from tieline.testing.source_context import RecordingSourceContext

Feed = Callable[[int], None]


class SourceContract(ConnectorContract):
    """What ``tieline.api.SourceTask`` promises. Give ``connector``, ``settings`` and ``feed``."""

    connector: ClassVar[type[SourceConnector[Any]]]
    patience: ClassVar[float] = 10.0
    """Seconds after which a record that was fed will not come any more."""

    @pytest.fixture
    def feed(self) -> Feed:
        """``feed(count)``: make so many more records readable, each unlike every other."""
        raise NotImplementedError("give the fixture 'feed'")

    def test_every_record_is_read_once_and_no_other(self, settings: Mapping[str, str], feed: Feed) -> None:
        """Counted exactly, over more polls than are needed."""
        with self._started(settings) as task:
            feed(10)
            records = self._read(task, 10)
            feed(5)
            records += self._read(task, 5)
            more = [record for _ in range(3) for record in self._poll(task, 10, self.soon / 20)]
        assert more == [], f"{len(more)} records too many"
        places = Counter(_place(record) for record in records)
        assert len(places) == 15, f"15 records have {len(places)} different places and contents"

    @pytest.mark.parametrize("most", [1, 3])
    def test_a_poll_returns_at_most_what_was_asked_for(
        self, settings: Mapping[str, str], feed: Feed, most: int
    ) -> None:
        """``max_records`` is what fits now."""
        with self._started(settings) as task:
            feed(7)
            assert len(self._read(task, 7, most)) == 7

    def test_a_poll_with_nothing_to_read_ends_in_time(self, settings: Mapping[str, str]) -> None:
        """After ``max_wait`` at the latest, with nothing."""
        with self._started(settings) as task:
            for wait in (0.0, self.soon / 5):
                assert self._poll(task, 10, wait) == []

    def test_interrupt_ends_a_waiting_poll(self, settings: Mapping[str, str]) -> None:
        """From another thread, while ``poll`` waits for something to read."""
        with self._started(settings, interrupt=False) as task:
            waiting = _Called(lambda: task.poll(10, 60.0))
            waiting.begun.wait(self.patience)
            task.interrupt()
            assert waiting.ended_within(2 * self.soon), "poll still waits after interrupt"

    def test_interrupt_before_a_poll_is_not_lost(self, settings: Mapping[str, str]) -> None:
        """The task may be about to poll when it is asked to stop."""
        with self._started(settings, interrupt=False) as task:
            task.interrupt()
            assert _Called(lambda: task.poll(10, 60.0)).ended_within(2 * self.soon), (
                "poll waits after interrupt"
            )

    def test_a_task_can_be_stopped_without_a_poll(self, settings: Mapping[str, str]) -> None:
        """It was asked to stop at once."""
        with self._started(settings):
            pass

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

    def test_a_record_has_what_the_runtime_needs(self, settings: Mapping[str, str], feed: Feed) -> None:
        """A topic, positions of JSON primitives, headers of bytes, a time in milliseconds."""
        with self._started(settings) as task:
            feed(3)
            for record in self._read(task, 3):
                assert isinstance(record, SourceRecord)
                assert record.topic, "a record without a topic"
                _check_position(record.source_partition)
                _check_position(record.source_offset)
                for key, value in record.headers:
                    assert isinstance(key, str), f"the header key {key!r} is no text"
                    assert value is None or isinstance(value, bytes), f"the header {key} is no bytes"
                assert record.timestamp is None or type(record.timestamp) is int, (
                    "a timestamp is an int, in ms"
                )

    def test_acknowledgements_are_taken(self, settings: Mapping[str, str], feed: Feed) -> None:
        """``commit_record`` for each record (none: filtered), then ``commit``."""
        with self._started(settings) as task:
            feed(3)
            for record in self._read(task, 3):
                task.commit_record(record, None)
            task.commit()

    @pytest.mark.parametrize("saved", [0, 1, 5, 9, 10])
    def test_reading_goes_on_after_the_saved_offsets(
        self, settings: Mapping[str, str], feed: Feed, saved: int
    ) -> None:
        """Read 10, save after some of them, open again: the others come, equal to the first time."""
        if not self.connector.task_type.replayable:
            pytest.skip("records that cannot be asked for again")
        context = RecordingSourceContext()
        with self._started(settings, context) as task:
            feed(10)
            first = self._read(task, 10)
        context.save(first[:saved])
        with self._started(settings, context) as task:
            again = self._read(task, 10 - saved)
            again += self._poll(task, 10, self.soon / 20)
        expected = Counter(_place(record) for record in first[saved:])
        found = Counter(_place(record) for record in again)
        assert not expected - found, f"{(expected - found).total()} records were skipped"
        assert not found - expected, (
            f"{(found - expected).total()} records came that were done, or are others"
        )

    def _task(
        self, settings: Mapping[str, str], context: RecordingSourceContext | None = None
    ) -> SourceTask[Any]:
        return self.connector.task_type(context or RecordingSourceContext(), self._config(settings))

    @contextmanager
    def _started(
        self,
        settings: Mapping[str, str],
        context: RecordingSourceContext | None = None,
        interrupt: bool = True,
    ) -> Iterator[SourceTask[Any]]:
        task = self._task(settings, context)
        try:
            task.start()
            yield task
        finally:
            if interrupt:
                task.interrupt()
            task.stop()

    def _poll(self, task: SourceTask[Any], most: int, wait: float) -> list[SourceRecord]:
        begun = time.monotonic()
        records = list(task.poll(most, wait))
        took = time.monotonic() - begun
        assert len(records) <= most, f"poll returned {len(records)} records, {most} were asked for"
        assert took <= wait + self.soon, f"poll took {took:.1f} s, {wait} s were allowed"
        return records

    def _read(self, task: SourceTask[Any], count: int, most: int = 100) -> list[SourceRecord]:
        records: list[SourceRecord] = []
        deadline = time.monotonic() + self.patience
        while len(records) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} records came in {self.patience} s"
            records += self._poll(task, most, 0.1)
        return records


def _place(record: SourceRecord) -> str:
    """Everything that must be the same when the record is read again."""
    where = json.dumps([record.source_partition, record.source_offset], sort_keys=True)
    return f"{record.topic} {where} {record.key!r} {record.value!r} {record.headers!r}"


def _check_position(position: Position) -> None:
    for key, value in position.items():
        assert isinstance(key, str), f"the key {key!r} of a position is no text"
        assert value is None or isinstance(value, (str, int, float, bool)), f"{key}: no JSON primitive"


class _Called:
    """A call in a thread of its own, which may never end."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.begun = threading.Event()
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.begun.set()
        self._call()
