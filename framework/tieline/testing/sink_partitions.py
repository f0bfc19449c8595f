"""The promises of a sink about partitions that come and go, as tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from tieline.api import TopicPartition, identity
from tieline.testing.sink_calls import TOPIC, SinkCalls, Written, text_of
from tieline.testing.sink_context import RecordingSinkContext


class SinkPartitions(SinkCalls):
    """Rebalances, and several tasks."""

    def test_partitions_come_and_go(self, settings: Mapping[str, str], written: Written) -> None:
        """One is lost with records that were not flushed (they come again elsewhere), another one stays."""
        lost, kept = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
        with self._started(settings) as task:
            self._put(task, self._batch(0, 0, 2))
            batch = self._batch(1, 10, 2)
            self._put(task, batch)
            task.close([lost], True)
            before = Counter(map(text_of, written()))
            task.flush({kept: 12})
            zombies = (Counter(map(text_of, written())) - before).keys() & {
                text_of(self.value(n)) for n in (0, 1)
            }
            assert not zombies, (
                f"{len(zombies)} records of a partition were written after close(lost=True): its next owner "
                "writes them too, and newer ones. close drops what waits of these partitions"
            )
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
        of_revoked, of_kept = self._batch(0, 0, 3), self._batch(1, 10, 3)
        with self._started(settings) as task:
            self._put(task, [*of_revoked, *of_kept])
            safe = task.pre_commit({revoked: 3})
            done = [record for record in of_revoked if record.offset < safe.get(revoked, 0)]
            later = self._batch(1, 13, 2)
            self._put(task, later)
            task.close([revoked], False)
            self._is_there(done, written(), "what pre_commit called safe is gone after close")
            task.flush({kept: 15})
            message = "close(lost=False) of one partition dropped what was buffered for another one"
            self._is_there([*of_kept, *later], written(), message)

    def test_a_partition_that_comes_leaves_the_others_alone(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """``open`` is called again with what is assigned in addition."""
        new, kept = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
        waiting, later, first = self._batch(1, 10, 3), self._batch(1, 13, 2), self._batch(0, 0, 2)
        with self._started(settings) as task:
            task.close([new], False)
            task.context.assignment = frozenset({kept})
            self._put(task, waiting)
            task.context.assignment = frozenset({kept, new})
            task.open([new])
            self._put(task, [*later, *first])
            self._flushed(task, [waiting, later, first])
        self._is_there(
            [*waiting, *later, *first], written(), "open of one partition dropped records of another one"
        )

    def test_a_partition_without_records_can_be_closed(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """Most partitions that are revoked have nothing that waits."""
        batch = self._batch(1, 10, 2)
        with self._started(settings) as task:
            self._put(task, batch)
            task.close([TopicPartition(TOPIC, 0)], True)
            self._flushed(task, [batch])
            task.close([TopicPartition(TOPIC, 1)], False)
        self._is_there(batch, written(), "close of a partition without records dropped others")

    def test_partitions_of_two_topics_are_not_one(
        self, settings: Mapping[str, str], written: Written
    ) -> None:
        """A partition is a topic and a number; offsets of two topics have nothing to do with each other."""
        other = TopicPartition("another topic", 0)
        mine = self._batch(0, 0, 3)
        others = [
            self._record(
                0, r.offset, self.value(20 + r.offset), identity("contract", other.topic, r.offset)
            )._replace(original_topic=other.topic)
            for r in mine
        ]
        with self._started(settings) as task:
            task.context.assignment |= {other}
            task.open([other])
            self._put(task, [record for pair in zip(mine, others, strict=True) for record in pair])
            task.close([TopicPartition(TOPIC, 0)], True)
            task.flush({other: 3})
            self._is_there(others, written(), "close of a partition dropped that of another topic")
            task.open([TopicPartition(TOPIC, 0)])
            self._put(task, mine)
            self._flushed(task, [mine, others])
        message = "records of one topic are missing, as those of another one have the same offsets"
        self._is_there([*mine, *others], written(), message)

    def test_two_tasks_do_not_disturb_each_other(self, settings: Mapping[str, str], written: Written) -> None:
        """A worker runs several tasks of one connector in one process, each with partitions of its own."""
        configs = self._task_configs(settings, 2)
        if len(configs) < 2:
            pytest.skip("this sink has one task at most")
        first, second = self._batch(0, 0, 3), self._batch(1, 10, 3)
        with self._started(configs[0]) as task:
            with self._started(configs[1], RecordingSinkContext(task=1, data_dir=self._data_dir)) as other:
                self._put(task, first)
                self._flushed(task, [first])
                self._put(other, second)
                other.close([TopicPartition(TOPIC, 1)], True)
            later = self._batch(0, 3, 2)
            self._put(task, later)
            self._flushed(task, [later])
        self._is_there([*first, *later], written(), "another task of the same connector took records along")
