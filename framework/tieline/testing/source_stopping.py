"""The promises of a source about its end and about outages, as tests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest

from tieline.testing.promises import NotTested
from tieline.testing.shared_contract import Outage
from tieline.testing.source_calls import Feed, Read, SourceCalls, read_of


class SourceStopping(SourceCalls):
    """Interrupts, the last records, outages."""

    def test_interrupt_ends_a_waiting_poll(self, settings: Mapping[str, str]) -> None:
        """From another thread, while ``poll`` waits for something to read."""
        with self._started(settings, interrupt=False) as task:
            waiting = task.begin("poll", 10, 60.0)
            _wait(waiting, self.soon / 5)  # it may be waiting now, or about to
            task.interrupt(self.soon + 1.0)
            self._ends(task, waiting, "poll still waits after interrupt")

    def test_interrupt_before_a_poll_is_not_lost(self, settings: Mapping[str, str]) -> None:
        """The task may be about to poll when it is asked to stop."""
        with self._started(settings, interrupt=False) as task:
            task.interrupt(self.soon + 1.0)
            self._ends(task, task.begin("poll", 10, 60.0), "poll waits although interrupt came before it")

    def test_a_task_can_be_stopped_without_a_poll(self, settings: Mapping[str, str]) -> None:
        """It was asked to stop at once."""
        with self._started(settings):
            pass

    def test_nothing_is_lost_by_a_stop_while_records_wait(
        self, settings: Mapping[str, str], feed: Feed
    ) -> None:
        """What the task already holds is returned by ``poll`` after ``interrupt``, or read again later."""
        context = self._context()
        with self._started(settings, context, interrupt=False) as task:
            feed(10)
            records = self._read(task, 1, 1)
            _pause(self.settle)
            task.interrupt(self.soon + 1.0)
            records += self._rest(task)
        self._nothing_is_lost(settings, context, records, 10)

    def test_nothing_is_lost_by_a_stop_in_the_middle_of_a_poll(
        self, settings: Mapping[str, str], feed: Feed
    ) -> None:
        """A ``poll`` that collects records returns those it has when ``interrupt`` comes."""
        context = self._context()
        with self._started(settings, context, interrupt=False) as task:
            waiting = task.begin("poll", 100, 60.0)
            feed(5)
            _wait(waiting, self.settle)
            task.interrupt(self.soon + 1.0)
            self._ends(task, waiting, "poll still waits after interrupt")
            records = [read_of(record) for record in waiting.result()]
            records += self._rest(task)
        self._nothing_is_lost(settings, context, records, 5)

    def test_an_outage_is_reported(self, outage: Mapping[str, str] | None, not_tested: NotTested) -> None:
        """``start`` or ``poll`` raises ``RetriableError``, or the task calls ``context.not_connected``."""
        if outage is None:
            not_tested("no settings of an outage; give the fixture 'outage'")
        task = self._task(outage)
        try:
            if not self._fails("start", task.start, outage):
                self._reports(task, outage)
        finally:
            self._end(task)

    def test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run(
        self,
        settings: Mapping[str, str],
        feed: Feed,
        run_outage: Outage,
    ) -> None:
        """``poll`` reports the outage in time; afterwards the same task continues where it was."""
        with self._started(settings) as task:
            feed(6)
            records = self._read(task, 2, 2)
            if not self._replayable:
                records += self._read(task, 6 - len(records))
            run_outage.begin()
            records += self._reports(task, settings)
            run_outage.end()
            records += self._after_outage(task, settings, 6 - len(records))
            feed(4)
            records += self._after_outage(task, settings, 10 - len(records))
            records += self._poll(task, 10, self.soon / 20)
            left = task.context.connections.all()
        assert not left, (
            "the outage is over, and the task never reported it: call context.connected after every success "
            f"({', '.join(map(str, left))})"
        )
        places = Counter(read.content for read in records)
        assert len(records) == len(places), (
            f"{len(records) - len(places)} records came twice after the outage"
        )
        assert len(places) == 10, f"{len(places)} records came, 10 were fed"

    def _ends(self, task: Any, waiting: Future[Any], message: str) -> None:
        if not _wait(waiting, 2 * self.soon):
            task.hung = "poll"
            pytest.fail(f"{message}: interrupt makes a waiting poll return soon, also one that begins later")

    def _nothing_is_lost(
        self, settings: Mapping[str, str], context: Any, records: list[Read], count: int
    ) -> None:
        """What did not come is read by the next task, if the source can be read again."""
        if self._replayable:
            self._save(context, records)
            with self._started(settings, context) as task:
                records = records + self._read(task, count - len(records))
                records += self._poll(task, 100, self.soon / 20)
        contents = Counter(read.content for read in records)
        assert len(contents) >= count, (
            f"{count - len(contents)} of {count} records were lost at the stop: "
            "poll returns what it still holds after interrupt"
        )
        assert len(records) == count, f"{len(records) - count} records came twice around a stop"

    def _reports(self, task: Any, settings: Mapping[str, str]) -> list[Read]:
        """Poll in an outage until it is reported; what ``poll`` still returned until then."""
        records: list[Read] = []
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            polled: list[list[Read]] = []

            def poll(into: list[list[Read]] = polled) -> None:
                into.append(self._poll(task, 10, self.soon / 10))

            if self._fails("poll", poll, settings) or task.context.connections.all():
                return records
            records += polled[0]
        pytest.fail(
            f"poll reported no outage in {self.patience} s: it swallows errors. Raise RetriableError, "
            "or call context.not_connected where the task reconnects by itself"
        )

    def _after_outage(self, task: Any, settings: Mapping[str, str], count: int) -> list[Read]:
        """Read ``count`` records from a source that may need some polls until it is connected again."""
        records: list[Read] = []
        deadline = time.monotonic() + self.patience
        while len(records) < count:
            assert time.monotonic() < deadline, (
                f"{len(records)} of {count} records came in {self.patience} s after the outage: "
                "the others are lost, or poll does not connect again"
            )
            self._fails("poll", lambda: records.extend(self._poll(task, 10, 0.1)), settings)
        return records


def _wait(call: Future[Any], seconds: float) -> bool:
    """Wait for the end of a call; return whether it came."""
    try:
        call.exception(seconds)
    except FutureTimeoutError:
        return call.done()
    return True


def _pause(seconds: float) -> None:
    """Let records arrive: a bus or a socket hands them over in its own time, and reports nothing."""
    time.sleep(seconds)
