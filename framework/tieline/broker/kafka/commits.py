"""Committing and reading the offsets of a consumer group."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import TielineError, TopicPartition
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import call_with_timeout, to_tieline_error
from tieline.broker.kafka.partitions import to_kafka
from tieline.broker.records import Committed


class Commits:
    """Commits the offsets of one group member. Used by the thread of its consumer."""

    def __init__(self, client: Client, group: str) -> None:
        self._client = client
        self._group = group
        self.what = f"group {group}: committing"
        self._offsets: dict[TopicPartition, int] = {}
        self._result: Future[None] = Future()

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        notes: Mapping[TopicPartition, str],
        timeout: float,
        *,
        in_rebalance: bool = False,
    ) -> None:
        """Commit, and wait for the answer at most ``timeout`` seconds. Raises ``RetriableError``.

        In a rebalance the client's own ``socket.timeout.ms`` is the limit: a call from another thread would
        wait for this one for ever.
        """
        wanted = _with_notes(offsets, notes)

        def commit() -> list[KafkaPartition] | None:
            return self._client.commit(offsets=wanted, asynchronous=False)

        if not in_rebalance:
            self._raise_failures(call_with_timeout(commit, timeout, self.what, Operation.COMMIT))
            return
        try:
            self._raise_failures(commit())
        except KafkaException as error:
            raise to_tieline_error(error, self.what, Operation.COMMIT) from error

    def start(
        self,
        offsets: Mapping[TopicPartition, int],
        notes: Mapping[TopicPartition, str],
        result: Future[None] | None = None,
    ) -> Future[None]:
        """Start to commit; the future ends inside a later poll of the client. Only the last is followed.

        ``result``: the future to use.
        """
        self._result = Future() if result is None else result
        try:
            self._client.commit(offsets=_with_notes(offsets, notes))
        except KafkaException as error:
            self._result.set_exception(to_tieline_error(error, self.what, Operation.COMMIT))
        else:
            self._offsets = dict(offsets)
        return self._result

    def refuse(self, error: TielineError) -> Future[None]:
        """Return a future of a commit that was not started."""
        self._result = Future()
        self._result.set_exception(error)
        return self._result

    def reset(self, partitions: Collection[TopicPartition]) -> None:
        """Start to commit offset 0. Raises ``KafkaException``."""
        self._client.commit(offsets=[KafkaPartition(*partition, 0) for partition in partitions])

    def committed(
        self, partitions: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, Committed]:
        """Return the group's committed offsets; a partition without one is left out."""
        what = f"group {self._group}: its offsets"
        try:
            stored = self._client.committed(to_kafka(partitions), timeout=timeout) if partitions else []
        except KafkaException as error:
            raise to_tieline_error(error, what, Operation.COMMIT) from error
        for result in stored:
            if result.error is not None:
                raise to_tieline_error(result.error, what, Operation.COMMIT)
        return {
            TopicPartition(result.topic, result.partition): Committed(result.offset, result.metadata or "")
            for result in stored
            if result.offset >= 0
        }

    def on_commit(self, error: KafkaError | None, results: list[KafkaPartition]) -> None:
        """Take the answer of a commit: called by the client, inside its poll."""
        answered = {TopicPartition(r.topic, r.partition): r.offset for r in results}
        if answered != self._offsets or self._result.done():
            return  # of an earlier commit, or of one that was waited for
        try:
            if error is not None:
                raise to_tieline_error(error, self.what, Operation.COMMIT)
            self._raise_failures(results)
        except TielineError as cause:
            self._result.set_exception(cause)
        else:
            self._result.set_result(None)

    def _raise_failures(self, results: list[KafkaPartition] | None) -> None:
        for result in results or []:
            if result.error is not None:
                what = f"{self.what} {result.topic}-{result.partition}"
                raise to_tieline_error(result.error, what, Operation.COMMIT)


def _with_notes(
    offsets: Mapping[TopicPartition, int], notes: Mapping[TopicPartition, str]
) -> list[KafkaPartition]:
    return [
        KafkaPartition(*partition, offset, notes.get(partition, "")) for partition, offset in offsets.items()
    ]
