"""The VOLTTRON bus sink: records of Kafka, published on the bus as they arrive."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import zmq

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
from tieline_connectors.volttron_bus.publisher import Publisher, PublishRequest
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_connectors.volttron_bus.vip.connection import ConnectionEndedError

log = logging.getLogger(__name__)

_TELL_EVERY = 60.0
_TOLD = {"filtered.expired": "it is older than max.age.ms"}
"""What is filtered for no fault of the record, and yet somebody should know."""


class _Seen(NamedTuple):
    """A record of the batch after the rules; ``objection`` none: it may be published."""

    at: int
    objection: RefusedError | FilteredError | None


class VolttronBusSinkTask(SinkTask[VolttronBusSinkConfig]):
    """Publishes at once: what ``put`` has returned from, or says was reached, the router has confirmed.

    It asks for a commit after each batch, so that a crash doubles no more than what was under way. A lost
    connection, a platform that is away and the rate limit are ``RetriableError``.

    Counters: ``published``; ``refused.<reason>`` (``shape``, ``topic``, ``not_allowed``, ``message``,
    ``too_large``, ``by_router``); ``filtered.echo``, ``.expired``, ``.null``; ``throttled``, how often the
    rate limit was met; ``slow_subscribers``, messages that a subscriber did not get since it does not
    read; ``reconnects``.
    """

    def __init__(self, context: SinkContext, config: VolttronBusSinkConfig) -> None:
        super().__init__(context, config)
        self._stopping = threading.Event()
        self._rules = config.publishing()
        self._bucket = config.bucket()
        self._was_connected = False
        self._told: dict[str, float] = {}
        self._publisher: Publisher | None = None
        self._zmq: zmq.Context[zmq.Socket[bytes]] | None = None

    def start(self) -> None:
        """Connect. Raises ``RetriableError`` if unavailable, ``FatalError`` on unreadable keys."""
        if self._zmq is None:
            try:
                self._reconnect = self.config.reconnect(self.context.connector)
            except ValueError as error:
                raise FatalError(f"volttron_bus_sink: {error}") from error
            self._zmq = zmq.Context()
        try:
            self._connected()
        except ConnectionEndedError as ended:
            raise self._away(ended, {}) from ended

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Publish the batch in its order, and return when the router has confirmed all of it."""
        if not batch:
            return
        reached: dict[TopicPartition, int] = {}
        failures: dict[int, RefusedError] = {}
        stopped: set[TopicPartition] = set()
        counted: Counter[str] = Counter()
        try:
            publisher = self._connected()
            for (index, objection), refusal, slow in publisher.publish(self._steps(batch, publisher)):
                partition = batch[index].consumed_from
                counted["slow_subscribers"] += slow
                if refusal:
                    objection = RefusedError("by_router", f"the router says {refusal[:200]}")
                if isinstance(objection, RefusedError) and self.config.on_refused == "stop":
                    failures[index] = objection
                    stopped.add(partition)
                    continue
                counted[self._outcome(batch[index], objection)] += 1
                if partition not in stopped:
                    reached[partition] = batch[index].offset + 1
            self._reconnect.succeeded()
        except ConnectionEndedError as ended:
            raise self._away(ended, reached) from ended
        finally:
            for name, number in (+counted).items():
                self.context.count(name, number)
            if reached:
                self.context.request_commit()
        if self._short:
            self.context.count("throttled")
            after = self._bucket.until(self._short, time.monotonic()) if self._bucket else 0.0
            raise RetriableError(
                f"rate.limit: {self.config.rate_limit:g} messages a second", after=after, reached=reached
            )
        if failures:
            for refused in failures.values():
                self.context.count(f"refused.{refused.reason}")
            raise DataError(failures)

    def interrupt(self) -> None:
        """Wait no longer than half a second more for a confirmation. From another thread."""
        self._stopping.set()

    def stop(self) -> None:
        """Close the connection."""
        self._disconnect()
        if self._zmq is not None:
            self._zmq.term()
            self._zmq = None

    def _steps(self, batch: Sequence[SinkRecord], publisher: Publisher) -> Iterator[PublishRequest[_Seen]]:
        """The batch for the publisher, up to where the rate limit ends it: ``_short``, how many are left."""
        now_ms = time.time_ns() // 1_000_000
        self._short = 0
        for index, record in enumerate(batch):
            try:
                frames = self._rules.frames(record, publisher.ident(), now_ms)
            except (RefusedError, FilteredError) as objection:
                yield PublishRequest(_Seen(index, objection))
                continue
            if self._bucket is not None and not self._bucket.take(time.monotonic()):
                self._short = len(batch) - index
                return
            yield PublishRequest(_Seen(index, None), frames)

    def _outcome(self, record: SinkRecord, objection: RefusedError | FilteredError | None) -> str:
        """The counter of a record's end; what was not published is told."""
        if objection is None:
            return "published"
        kind = "refused" if isinstance(objection, RefusedError) else "filtered"
        name = f"{kind}.{objection.reason}"
        now = time.monotonic()
        if (kind == "refused" or name in _TOLD) and now >= self._told.get(name, 0.0):
            self._told[name] = now + _TELL_EVERY
            log.warning(
                "the record %s-%d@%d is not published: %s; %s counts them, this is told once a minute",
                *record[:3],
                _TOLD.get(name) or objection,
                name,
            )
        return name

    def _connected(self) -> Publisher:
        """The connection, made anew where it was lost. Raises ``ConnectionEndedError``."""
        if self._publisher is not None and self._publisher.is_over():
            self._disconnect()
        if self._publisher is None:
            assert self._zmq is not None
            timeout = self.config.publish_timeout_ms / 1000
            endpoint = self._reconnect.endpoint
            self._publisher = Publisher(self._zmq, endpoint, timeout, self._reconnect.hello, self._stopping)
            if self._was_connected:
                self.context.count("reconnects")
            self._was_connected = True
            log.info("publishing", extra={"address": endpoint.address, "identity": endpoint.identity})
        return self._publisher

    def _away(self, ended: ConnectionEndedError, reached: Mapping[TopicPartition, int]) -> RetriableError:
        self._disconnect()
        if reached:
            self._reconnect.succeeded()
        after = self._reconnect.failed(ended)
        address = self._reconnect.endpoint.address
        return RetriableError(f"the platform at {address}: {ended}", after=after, reached=reached)

    def _disconnect(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()


class VolttronBusSink(SinkConnector[VolttronBusSinkConfig]):
    """One task, which keeps one order and one rate; a connector for each platform."""

    version: ClassVar[str] = "0.1.0"
    config_type = VolttronBusSinkConfig
    task_type = VolttronBusSinkTask

    @classmethod
    def validate(cls, config: VolttronBusSinkConfig) -> list[tuple[str, str]]:
        """Reads the files of keys that are named."""
        return config.file_problems()

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """One, however many are allowed."""
        return [self.context.settings]
