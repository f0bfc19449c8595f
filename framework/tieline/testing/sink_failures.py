"""The promises of a sink about bad records and about outages, as tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tieline.api import DataError, RetriableError, SinkRecord
from tieline.testing.promises import NotTested
from tieline.testing.shared_contract import Call, Outage
from tieline.testing.sink_calls import SinkCalls, Written, reached, to_offer_again


class SinkFailures(SinkCalls):
    """Data errors by their index; outages without loss."""

    @pytest.mark.parametrize("bad", [0, 4, 107])
    def test_a_bad_record_is_named_and_all_others_are_written(
        self,
        settings: Mapping[str, str],
        written: Written,
        bad_value: Any,
        bad: int,
        not_tested: NotTested,
    ) -> None:
        """``DataError`` names the index in the batch; what it does not name counts as handled.

        A sink may give the record to ``context.report`` instead.
        """
        self._need(not_tested, {"bad_value": bad_value})
        batch = self._two_partitions(110 if bad > 100 else 7)
        batch[bad] = batch[bad]._replace(value=bad_value)
        with self._started(settings) as task:
            failed = self._failures(task, batch)
            assert failed == [bad], (
                f"record {bad} of the batch is bad, but the data error names {failed or 'no record'}: "
                "name its index in the batch that put was given, after all others are written"
            )
            task.flush(reached(batch))
            self._check([batch[:bad] + batch[bad + 1 :]], written())

    def test_all_bad_records_of_a_batch_are_named(
        self, settings: Mapping[str, str], written: Written, bad_value: Any, not_tested: NotTested
    ) -> None:
        """One data error names them all: the runtime does not offer the batch again."""
        self._need(not_tested, {"bad_value": bad_value})
        batch = self._two_partitions(6)
        bad = [1, 2, 5]
        for index in bad:
            batch[index] = batch[index]._replace(value=bad_value)
        with self._started(settings) as task:
            failed = self._failures(task, batch)
            assert failed == bad, f"the records {bad} of a batch are bad, the data error names {failed}"
            task.flush(reached(batch))
            self._check([[batch[index] for index in (0, 3, 4)]], written())

    def test_a_null_value_is_written_passed_over_or_a_data_error(self, settings: Mapping[str, str]) -> None:
        """A tombstone is not a bug."""
        (record,) = self._batch(0, 0, 1)
        with self._started(settings) as task:
            failed = self._failures(task, [record._replace(value=None)], "without a value, a tombstone")
            assert failed in ([], [0]), f"the data error names record {failed}, the batch has one"

    def test_an_outage_is_reported(self, outage: Mapping[str, str] | None, not_tested: NotTested) -> None:
        """``start``, ``put`` or ``flush`` raises ``RetriableError``: nothing counts as written."""
        self._need(not_tested, {"outage": outage})
        assert outage is not None
        task = self._task(outage)
        try:
            if not self._fails("start", task.start, outage):
                self._opened(task)
                self._refuses(task, self._batch(0, 0, 3), outage)
        finally:
            self._end(task)

    def test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run(
        self,
        settings: Mapping[str, str],
        written: Written,
        run_outage: Outage,
    ) -> None:
        """``put`` or ``flush`` raises ``RetriableError`` in time; offered again, everything is written."""
        before, during, after = self._batch(0, 0, 3), self._batch(0, 3, 4), self._batch(0, 7, 2)
        with self._started(settings) as task:
            self._put(task, before)
            self._flushed(task, [before])
            run_outage.begin()
            left = self._refuses(task, during, settings)
            left = self._offered(task, left, settings) if left else []
            run_outage.end()
            self._accepted(task, left, settings)
            self._accepted(task, after, settings)
            self._healed(task, [*before, *during, *after], settings)
            self._check([before, during, after], written())

    def test_records_that_are_buffered_outlive_an_outage(
        self,
        settings: Mapping[str, str],
        written: Written,
        run_outage: Outage,
    ) -> None:
        """They were put before the outage; ``flush`` fails during it, and is called again afterwards."""
        batch = self._batch(0, 0, 5)
        with self._started(settings) as task:
            self._put(task, batch)
            run_outage.begin()
            for _ in range(2):
                self._fails("flush", lambda: task.flush(reached(batch)), settings)
            run_outage.end()
            self._healed(task, batch, settings)
            self._check([batch], written())

    def test_an_outage_in_the_middle_of_a_batch_doubles_nothing(
        self,
        settings: Mapping[str, str],
        written: Written,
        break_after: Callable[[int], None] | None,
        heal_it: Call | None,
        not_tested: NotTested,
    ) -> None:
        """``RetriableError`` says in ``reached`` what was written; without it nothing of the batch was."""
        self._need(not_tested, {"break_after": break_after, "heal_it": heal_it})
        assert break_after is not None
        assert heal_it is not None
        batch = self._batch(0, 0, 6)
        with self._started(settings) as task:
            break_after(2)
            left = self._refuses(task, batch, settings)
            heal_it()
            self._accepted(task, left, settings)
            self._healed(task, batch, settings)
            self._check([batch], written())

    def test_a_bad_record_before_an_outage_is_not_forgotten(
        self,
        settings: Mapping[str, str],
        written: Written,
        bad_value: Any,
        break_after: Callable[[int], None] | None,
        heal_it: Call | None,
        not_tested: NotTested,
    ) -> None:
        """``reached`` ends before a bad record: what lies before it counts as written."""
        self._need(not_tested, {"bad_value": bad_value, "break_after": break_after, "heal_it": heal_it})
        assert break_after is not None
        assert heal_it is not None
        batch = self._batch(0, 0, 6)
        batch[1] = batch[1]._replace(value=bad_value)
        with self._started(settings) as task:
            break_after(3)
            try:
                self._put(task, batch)
                left = list(batch)  # the bad record is named by flush
            except RetriableError as error:
                left = to_offer_again(batch, error)
            except DataError as error:
                left = [] if sorted(error.failures) == [1] else list(batch)
            if left:
                heal_it()
                assert batch[1] in left, (
                    "put met a bad record and then an outage, and reached lies behind the bad record: "
                    "it would never be reported. Raise RetriableError with reached up to the first bad record"
                )
                failed = self._failures(task, left)
                assert [left[index] for index in failed] == [batch[1]], "the bad record is not named"
            else:
                self._fails("flush", lambda: task.flush(reached(batch)), settings)
                heal_it()
            self._healed(task, batch, settings)
            self._check([[batch[0], *batch[2:]]], written(), self._most)

    def _two_partitions(self, count: int) -> list[SinkRecord]:
        """Return a batch in which the records of two partitions alternate."""
        halves = (self._batch(0, 0, count), self._batch(1, 1000, count))
        return [halves[number % 2][number] for number in range(count)]

    def _refuses(
        self, task: Any, batch: Sequence[SinkRecord], settings: Mapping[str, str]
    ) -> list[SinkRecord]:
        """Put and flush in an outage; return what the runtime will offer again. One of them must fail."""
        error = self._fails("put", lambda: self._put(task, batch), settings)
        if error is not None:
            return to_offer_again(batch, error)
        assert self._fails("flush", lambda: task.flush(reached(batch)), settings), (
            "neither put nor flush raised an error in an outage: errors are swallowed, "
            "and the offsets of records that are not written would be committed. Raise RetriableError"
        )
        return []

    def _accepted(self, task: Any, batch: Sequence[SinkRecord], settings: Mapping[str, str]) -> None:
        """Offer a batch after an outage until the task takes it, as the runtime does."""
        deadline = time.monotonic() + self.patience
        while batch:
            assert time.monotonic() < deadline, (
                f"put still raises RetriableError {self.patience} s after the outage: connect again in put"
            )
            batch = self._offered(task, batch, settings)
            time.sleep(0.02 if batch else 0)

    def _healed(self, task: Any, batch: Sequence[SinkRecord], settings: Mapping[str, str]) -> None:
        deadline = time.monotonic() + self.patience
        while self._fails("flush", lambda: task.flush(reached(batch)), settings):
            assert time.monotonic() < deadline, (
                f"flush still raises RetriableError {self.patience} s after the outage: connect again in it"
            )
            time.sleep(0.02)
