"""The promises of a sink about what it writes and when it is safe, as tests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from tieline.api import RetriableError
from tieline.testing.sink_calls import SinkCalls, Written, reached, text_of


class SinkWriting(SinkCalls):
    """Batches, flushes, commits, restarts and stops."""

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

    def test_many_records_before_a_flush_are_written(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A flush may be a minute later; what waits has no fixed size."""
        batches = [self._batch(0, first, 10) for first in range(0, 600, 10)]
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

    def test_what_is_written_is_committed(self, settings: Mapping[str, str], written: Written) -> None:
        """After a flush ``pre_commit`` returns its offsets; else everything comes again at each start."""
        batch = self._batch(0, 0, 5)
        offsets = reached(batch)
        with self._started(settings) as task:
            self._put(task, batch)
            task.flush(offsets)
            deadline = time.monotonic() + self.patience
            while (safe := dict(task.pre_commit(offsets))) != offsets and time.monotonic() < deadline:
                time.sleep(0.05)
            if not safe and task.context.changelogs.writes:
                return  # Changelog.write commits
            assert safe == offsets, (
                f"everything is flushed, and pre_commit returns {sorted(safe.values())} of "
                f"{sorted(offsets.values())}: an offset is the position after the last record that is safe"
            )

    def test_a_stop_loses_nothing(self, settings: Mapping[str, str], written: Written) -> None:
        """``interrupt`` may come before the last batch; ``pre_commit``, ``close`` and ``stop`` follow."""
        before, last = self._batch(0, 0, 3), self._batch(0, 3, 2)
        batch = [*before, *last]
        with self._started(settings, interrupt=False) as task:
            self._put(task, before)
            task.context.stopping = True
            task.interrupt(self.soon + 1.0)
            try:
                self._put(task, last)
                safe = task.pre_commit(reached(batch))
            except RetriableError as error:
                raise AssertionError(
                    f"put or pre_commit failed after interrupt ({error}): at each stop everything since the "
                    "last commit would come again. interrupt only wakes a call that waits"
                ) from error
            task.close(task.context.assignment, False)
        done = [record for record in batch if record.offset < safe.get(record.consumed_from, 0)]
        self._is_there(done, written(), "pre_commit after interrupt returned offsets of records not written")

    def test_a_restart_keeps_what_was_written(self, settings: Mapping[str, str], written: Written) -> None:
        """The next task adds to what is outside; it does not begin with an empty file or table."""
        batches = [self._batch(0, 0, 3), self._batch(0, 3, 3)]
        for batch in batches:
            with self._started(settings) as task:
                self._put(task, batch)
                self._flushed(task, [batch])
        self._is_there(
            [*batches[0], *batches[1]], written(), "a start removed what an earlier task had written"
        )

    def test_nothing_to_do_is_not_an_error(self, settings: Mapping[str, str], written: Written) -> None:
        """No batch, an empty batch, a flush without offsets."""
        with self._started(settings) as task:
            task.flush({})
            self._put(task, [])
            assert dict(task.pre_commit({})) == {}, "pre_commit invents partitions"
            assert list(written()) == [], "something was written, but no record was put"
