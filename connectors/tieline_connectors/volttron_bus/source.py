"""The VOLTTRON bus source: what agents publish, as records."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import ClassVar

from tieline.api import FatalError, SourceConnector, SourceContext, SourceRecord, SourceTask
from tieline_connectors.volttron_bus.buffer import ReceiveBuffer, ReceivedMessage
from tieline_connectors.volttron_bus.messages.message import MalformedMessageError, parse_message
from tieline_connectors.volttron_bus.messages.records import FilteredError, RecordMapper
from tieline_connectors.volttron_bus.oddities import MessageDiagnostics, SilentPrefixes
from tieline_connectors.volttron_bus.receiver import Receiver
from tieline_connectors.volttron_bus.reporting import connection_reporter
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.vip.frames import pack

log = logging.getLogger(__name__)


class VolttronBusTask(SourceTask[VolttronBusConfig]):
    """Reads the bus of one platform, of either generation, for as long as it runs.

    The bus is at-most-once: what is published while nobody listens is gone, so ``replayable`` is false
    and the runtime puts a durable spool behind this task. A platform that is away at start, or later, is
    waited for in the background while ``poll`` returns nothing.

    Counters: ``dropped.buffer_full``, ``dropped.too_large``, ``filtered.echo``, ``filtered.prefix``,
    ``reconnects``, ``times.unreadable``, ``readings.without_points``; ``quarantined.<reason>`` is counted by
    the runtime.
    """

    replayable: ClassVar[bool] = False
    repeats_are_events: ClassVar[bool] = True  # the router hands each message on once

    def __init__(self, context: SourceContext, config: VolttronBusConfig) -> None:
        super().__init__(context, config)
        self._receiver: Receiver | None = None
        self._limits = config.limits()
        self._naive = config.naive_zone()
        self._oddities = MessageDiagnostics(context.count)
        self._silence = SilentPrefixes(config.expected(), time.monotonic())
        self._recorder = RecordMapper(config.platform, config.all_routes(), config.shape, config.bases())
        self._buffer = ReceiveBuffer(config.buffer_max_messages, config.buffer_max_bytes)

    def start(self) -> None:
        """Start to receive, without waiting for the platform. Raises ``FatalError`` on unreadable keys."""
        context, config = self.context, self.config
        try:
            reconnect = config.reconnect(context.connector)
        except ValueError as error:
            raise FatalError(f"volttron_bus: {error}") from error
        report = connection_reporter(context, reconnect.endpoint.address)
        self._receiver = Receiver(
            reconnect, config.subscription(), self._buffer, context.count, config.patience(), report
        )
        self._receiver.start()

    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """Return what arrived; wait for it. Raises ``FatalError`` if the receiving thread has died."""
        assert self._receiver is not None
        records = []
        for received in self._buffer.take(max_records, max_wait):
            record = self._record(received)
            if record is not None:
                records.append(record)
        self._silence.look(time.monotonic(), connected=self._receiver.is_subscribed)
        if not records and self._receiver.failure is not None:
            raise FatalError("volttron_bus: receiving ended by a bug") from self._receiver.failure
        return records

    def interrupt(self) -> None:
        """Receive no more; a waiting poll returns, and what was received can still be polled."""
        if self._receiver is not None:
            self._receiver.stop()

    def stop(self) -> None:
        """Close the connection."""
        if self._receiver is not None:
            self._receiver.stop()
            self._receiver.join()

    def _record(self, received: ReceivedMessage) -> SourceRecord | None:
        try:
            message = parse_message(received.frames, received.time, self._limits, self._naive)
            self._silence.heard(message.topic)
            record = self._recorder.record(message)
        except FilteredError as unwanted:
            self.context.count(f"filtered.{unwanted.reason}")
        except MalformedMessageError as error:
            self.context.quarantine(pack(received.frames), error.reason)
        else:
            if message.unreadable_time:
                self._oddities.unreadable_time(message)
            if self._recorder.lacks_points(message, record):
                self._oddities.without_points(message)
            return record
        return None


class VolttronBusSource(SourceConnector[VolttronBusConfig]):
    """One task, since a bus cannot be divided among readers; a connector for each platform."""

    version: ClassVar[str] = "0.1.0"
    config_type = VolttronBusConfig
    task_type = VolttronBusTask

    @classmethod
    def validate(cls, config: VolttronBusConfig) -> list[tuple[str, str]]:
        """Reads the files of keys that are named."""
        return config.file_problems()
