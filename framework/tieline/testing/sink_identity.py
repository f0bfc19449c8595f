"""The promises of a sink about records that come again, and about records that look alike, as tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tieline.api import SinkRecord, identity
from tieline.testing.promises import NotTested
from tieline.testing.sink_calls import SinkCalls, Written, text_of


class SinkIdentity(SinkCalls):
    """Idempotence."""

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
        counts = Counter(map(text_of, written()))
        assert max(counts.values(), default=0) <= 1, (
            "a record whose tieline.id is known was written again, because it came at another offset: "
            "make the key of the header tieline.id, not of topic, partition and offset"
        )
        self._is_there(batch, written(), "records are missing")

    def test_one_value_under_two_ids_is_two_records(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """Two equal readings are two events: ``tieline.id`` distinguishes records, not value, key or time."""
        value = self.value(0)
        digest = text_of(value).encode()
        batch = [
            self._record(0, offset, value, identity("contract", "equal", offset, digest_of=digest))._replace(
                timestamp=1_700_000_000_000
            )
            for offset in range(2)
        ]
        with self._started(settings) as task:
            self._put(task, batch)
            self._flushed(task, [batch])
        count = len(written())
        assert count == 2, (
            f"two records with one value and two ids (tieline.id) became {count}: "
            "make the key of the id, not of the value, its digest or its time"
        )

    def _written_at_most(self, most: int, records: Sequence[SinkRecord], values: Sequence[Any]) -> None:
        counts = Counter(map(text_of, values))
        self._is_there(records, values, "records are missing")
        assert set(counts) == {text_of(r.value) for r in records}, "values were written that no record has"
        highest = max(counts.values())
        assert highest <= most, (
            f"a record that came again was written {highest} times: records come again after every crash. "
            "Make the key of the header tieline.id (upsert, insert or ignore), "
            "or state idempotent = False with not_idempotent_because"
        )
