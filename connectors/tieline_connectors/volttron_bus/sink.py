"""The VOLTTRON bus sink: publishes records on the bus as they arrive."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from tieline.api import (
    DataError,
    FatalError,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
)
from tieline_connectors.volttron_bus.messages.publishing import RefusedError
from tieline_connectors.volttron_bus.messages.records import FilteredError
from tieline_connectors.volttron_bus.publisher import (
    Publisher,
    PublishRequest,
    PublishResult,
    ReconnectingPublisher,
)
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_connectors.volttron_bus.vip.connection import ConnectionEndedError

log = logging.getLogger(__name__)

_LOG_SECONDS = 60.0
_LOGGED = {"filtered.expired": "it is older than max.age.ms"}
"""Records that are filtered although they are valid, which an operator should know."""


class _CheckedRecord(NamedTuple):
    """A record of the batch, and why it may not be published, if so."""

    number: int
    """Its index in the batch."""
    objection: RefusedError | FilteredError | None


@dataclass
class _BatchProgress:
    """What has become of a batch so far."""

    records: Sequence[SinkRecord]
    reached: dict[TopicPartition, int] = field(default_factory=dict)
    failures: dict[int, RefusedError] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    """How many records at the end of the batch exceed the rate limit."""
    failed_partitions: set[TopicPartition] = field(default_factory=set)

    def fail(self, index: int, error: RefusedError) -> None:
        """Note a failed record; its partition advances no further."""
        self.failures[index] = error
        self.failed_partitions.add(self.records[index].consumed_from)

    def finish(self, index: int, outcome: str) -> None:
        """Count a record's outcome, and advance its partition."""
        record = self.records[index]
        self.counted[outcome] += 1
        if record.consumed_from not in self.failed_partitions:
            self.reached[record.consumed_from] = record.offset + 1


class VolttronBusSinkTask(SinkTask[VolttronBusSinkConfig]):
    """Publishes at once. The router has confirmed every record of a finished ``put``, or up to ``reached``.

    The task requests a commit after each batch, so that a crash repeats only messages that were not yet
    confirmed. A lost connection, an unavailable platform and the rate limit raise ``RetriableError``.

    Counters: ``published``; ``refused.<reason>`` (``shape``, ``topic``, ``not_allowed``, ``message``,
    ``too_large``, ``by_router``); ``filtered.echo``, ``.expired``, ``.null``; ``throttled``, how often the
    rate limit was reached; ``slow_subscribers``, messages that a subscriber missed because it does not read;
    ``reconnects``.
    """

    def __init__(self, context: SinkContext, config: VolttronBusSinkConfig) -> None:
        super().__init__(context, config)
        self._stopping = threading.Event()
        self._mapper = config.message_mapper()
        self._bucket = config.token_bucket()
        self._logged_at: dict[str, float] = {}
        self._reconnect = config.reconnect_state(context.connector)
        self._connection = ReconnectingPublisher(
            self._reconnect, config.publish_timeout_ms / 1000, self._stopping, context.count
        )

    def start(self) -> None:
        """Connect. Raises ``RetriableError`` if unavailable, ``FatalError`` on unreadable keys."""
        try:
            self._reconnect.load()
        except ValueError as error:
            raise FatalError(f"volttron_bus: {error}") from error
        try:
            self._connection.connect()
        except ConnectionEndedError as ended:
            raise self._unavailable(ended, {}) from ended

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Publish the batch in its order, and return when the router has confirmed all of it."""
        if not batch:
            return
        progress = _BatchProgress(batch)
        try:
            publisher = self._connection.connect()
            for result in publisher.publish(self._requests(progress, publisher)):
                self._handle(result, progress)
            self._connection.succeeded()
        except ConnectionEndedError as ended:
            raise self._unavailable(ended, progress.reached) from ended
        finally:
            for name, number in (+progress.counted).items():
                self.context.count(name, number)
            if progress.reached:
                self.context.request_commit()
        if progress.throttled:
            raise self._throttled(progress)
        if progress.failures:
            for refused in progress.failures.values():
                self.context.count(f"refused.{refused.reason}")
            raise DataError(progress.failures)

    def interrupt(self) -> None:
        """Make a running ``put`` wait for confirmations for at most half a second more. From any thread."""
        self._stopping.set()

    def stop(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _requests(
        self, progress: _BatchProgress, publisher: Publisher
    ) -> Iterator[PublishRequest[_CheckedRecord]]:
        """Yield the batch as requests, up to the rate limit; sets ``progress.throttled``."""
        now_ms = time.time_ns() // 1_000_000
        for index, record in enumerate(progress.records):
            try:
                frames = self._mapper.frames(record, publisher.next_ident(), now_ms)
            except (RefusedError, FilteredError) as objection:
                yield PublishRequest(_CheckedRecord(index, objection))
                continue
            if self._bucket is not None and not self._bucket.take(time.monotonic()):
                progress.throttled = len(progress.records) - index
                return
            yield PublishRequest(_CheckedRecord(index, None), frames)

    def _handle(self, result: PublishResult[_CheckedRecord], progress: _BatchProgress) -> None:
        index, objection = result.item
        progress.counted["slow_subscribers"] += result.slow
        if result.refusal:
            objection = RefusedError("by_router", f"the router says {result.refusal[:200]}")
        if isinstance(objection, RefusedError) and self.config.on_refused == "stop":
            progress.fail(index, objection)
        else:
            progress.finish(index, self._outcome(progress.records[index], objection))

    def _outcome(self, record: SinkRecord, objection: RefusedError | FilteredError | None) -> str:
        """Return the counter of a record's outcome, and log why a record is not published."""
        if objection is None:
            return "published"
        kind = "refused" if isinstance(objection, RefusedError) else "filtered"
        name = f"{kind}.{objection.reason}"
        now = time.monotonic()
        if (kind == "refused" or name in _LOGGED) and now >= self._logged_at.get(name, 0.0):
            self._logged_at[name] = now + _LOG_SECONDS
            log.warning(
                "the record %s-%d@%d is not published: %s; %s counts these, this is logged once a minute",
                *record[:3],
                _LOGGED.get(name) or objection,
                name,
            )
        return name

    def _throttled(self, progress: _BatchProgress) -> RetriableError:
        self.context.count("throttled")
        after = self._bucket.until(progress.throttled, time.monotonic()) if self._bucket else 0.0
        return RetriableError(
            f"rate.limit: {self.config.rate_limit:g} messages per second",
            after=after,
            reached=progress.reached,
        )

    def _unavailable(
        self, ended: ConnectionEndedError, reached: Mapping[TopicPartition, int]
    ) -> RetriableError:
        if reached:
            self._connection.succeeded()
        after = self._connection.lost(ended)
        return RetriableError(f"the platform at {self.config.address}: {ended}", after=after, reached=reached)


class VolttronBusSink(SinkConnector[VolttronBusSinkConfig]):
    """One task, which keeps one order and one rate. Configure one connector for each platform."""

    version: ClassVar[str] = "0.1.0"
    config_type = VolttronBusSinkConfig
    task_type = VolttronBusSinkTask

    @classmethod
    def validate(cls, config: VolttronBusSinkConfig) -> list[tuple[str, str]]:
        """Return the problems of the key files."""
        return config.file_problems()

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """Return the settings of one task, whatever ``max_tasks`` is."""
        return [self.context.settings]
