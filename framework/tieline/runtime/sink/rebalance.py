"""What a sink task does when its group assigns or revokes partitions."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from tieline.api import RetriableError, SinkTask, TopicPartition
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.sink.changelog import TakenOverError
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.committer import OffsetCommitter
from tieline.runtime.sink.context import SinkInputs
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.environment import TaskEnvironment

log = logging.getLogger(__name__)


class PartitionHandover:
    """Opens and closes the partitions of a sink task in a rebalance, and commits what it has finished.

    It is a ``RebalanceListener``: ``Consumer.poll`` and ``close`` call it, on the task's thread.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        task: SinkTask[Any],
        inputs: SinkInputs,
        held: RecordsToRetry,
        tracker: CommitTracker,
        committer: OffsetCommitter,
    ) -> None:
        self._environment = environment
        self._task = task
        self._inputs = inputs
        self._held = held
        self._tracker = tracker
        self._committer = committer

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Open new partitions. Raises ``TaskFailedError``, ``StopRequested``."""
        self._inputs.conversion.identities.drop_topics()
        log.info("partitions assigned", extra={"partitions": _names(partitions)})
        self._held.assign(partitions)
        self._environment.activity.partitions = len(self._held.owned)
        self._environment.retry(Stage.START, lambda: self._committer.load(partitions))
        self._environment.retry(Stage.START, lambda: self._task.open(partitions))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Flush within the time there is, commit only what is confirmed, and close the partitions."""
        log.info("partitions revoked", extra={"partitions": _names(partitions)})
        try:
            self._committer.commit_and_wait(partitions)
        except TakenOverError as error:
            log.warning("%s; records in flight will be read again", error)
        finally:
            fenced = self._inputs.changelogs.fenced() & set(partitions)
            self._close(fenced, lost=True)
            self._close([p for p in partitions if p not in fenced], lost=False)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Close partitions that another task may own already; commit nothing."""
        names = {"partitions": _names(partitions)}
        log.warning("partitions lost; records in flight will be read again", extra=names)
        self._close(partitions, lost=True)

    def _close(self, partitions: Collection[TopicPartition], *, lost: bool) -> None:
        if not partitions:
            return
        self._held.unassign(partitions)
        self._environment.activity.partitions = len(self._held.owned)
        try:
            self._task.close(partitions, lost)
        except RetriableError as error:  # what the sink has not confirmed will be read again
            log.warning("the sink could not close partitions: %s", error)
        finally:
            self._tracker.settle({})  # what the task wrote in its changelogs until now
            self._tracker.drop(partitions)
            self._inputs.changelogs.close(partitions)


def _names(partitions: Collection[TopicPartition]) -> list[str]:
    return sorted(f"{topic}-{partition}" for topic, partition in partitions)
