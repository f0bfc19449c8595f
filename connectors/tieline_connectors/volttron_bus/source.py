"""The VOLTTRON bus source: turns the messages that agents publish into records."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import ClassVar

from tieline.api import FatalError, SourceConnector, SourceContext, SourceRecord, SourceTask
from tieline_connectors.volttron_bus.buffer import ReceiveBuffer, ReceivedMessage
from tieline_connectors.volttron_bus.diagnostics import MessageDiagnostics, SilentPrefixes
from tieline_connectors.volttron_bus.messages.message import MalformedMessageError, parse_message
from tieline_connectors.volttron_bus.messages.records import FilteredError, RecordMapper
from tieline_connectors.volttron_bus.receiver import Receiver
from tieline_connectors.volttron_bus.reporting import connection_reporter
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.vip.frames import pack

log = logging.getLogger(__name__)


class VolttronBusTask(SourceTask[VolttronBusConfig]):
    """Reads the bus of one platform, of VOLTTRON 2.x or 8 to 10.

    The bus is at-most-once: a message that is published without a listener is lost. ``replayable`` is
    therefore false, and the runtime puts a durable spool behind this task. If the platform is unavailable, at
    the start or later, a thread waits for it while ``poll`` returns nothing.

    Counters: ``dropped.buffer_full``, ``dropped.too_large``, ``filtered.echo``, ``filtered.prefix``,
    ``reconnects``, ``times.unreadable``, ``readings.without_points``. The runtime counts
    ``quarantined.<reason>``.
    """

    replayable: ClassVar[bool] = False
    repeats_are_events: ClassVar[bool] = True  # the router delivers each message once

    def __init__(self, context: SourceContext, config: VolttronBusConfig) -> None:
        super().__init__(context, config)
        self._parse_limits = config.parse_limits()
        self._naive_zone = config.naive_zone()
        self._diagnostics = MessageDiagnostics(context.count)
        self._silent_prefixes = SilentPrefixes(config.expected_prefixes(), time.monotonic())
        self._mapper = RecordMapper(config.platform, config.all_routes(), config.shape, config.topic_bases())
        self._buffer = ReceiveBuffer(config.buffer_max_messages, config.buffer_max_bytes)
        self._reconnect = config.reconnect_state(context.connector)
        self._receiver = Receiver(
            self._reconnect,
            config.subscription(),
            self._buffer,
            context.count,
            config.ping_timing(),
            connection_reporter(context, config.address),
        )

    def start(self) -> None:
        """Start to receive, without waiting for the platform. Raises ``FatalError`` on unreadable keys."""
        try:
            self._reconnect.load()
        except ValueError as error:
            raise FatalError(f"volttron_bus: {error}") from error
        self._receiver.start()

    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """Return what has arrived, or wait for it. Raises ``FatalError`` if the receiving thread failed."""
        if self._receiver.is_stopping:
            self._receiver.join()  # it still moves what has arrived to the buffer
        records = []
        for received in self._buffer.take(max_records, max_wait):
            record = self._to_record(received)
            if record is not None:
                records.append(record)
        self._silent_prefixes.check(time.monotonic(), connected=self._receiver.is_subscribed)
        if not records and self._receiver.failure is not None:
            raise FatalError("volttron_bus: the receiver failed because of a bug") from self._receiver.failure
        return records

    def interrupt(self) -> None:
        """Stop receiving and end a waiting poll. What was received before can still be polled."""
        self._receiver.stop()

    def stop(self) -> None:
        """Close the connection."""
        self._receiver.stop()
        self._receiver.join()

    def _to_record(self, received: ReceivedMessage) -> SourceRecord | None:
        """Return the record of a message, or ``None`` if the message is filtered or quarantined."""
        try:
            message = parse_message(received.frames, received.time, self._parse_limits, self._naive_zone)
            self._silent_prefixes.heard(message.topic)
            record = self._mapper.record(message)
        except FilteredError as filtered:
            self.context.count(f"filtered.{filtered.reason}")
        except MalformedMessageError as error:
            self.context.quarantine(pack(received.frames), error.reason)
        else:
            if message.unreadable_time:
                self._diagnostics.unreadable_time(message)
            if self._mapper.lacks_points(message, record):
                self._diagnostics.without_points(message)
            return record
        return None


class VolttronBusSource(SourceConnector[VolttronBusConfig]):
    """One task, since readers cannot share a bus. Configure one connector for each platform."""

    version: ClassVar[str] = "0.1.0"
    config_type = VolttronBusConfig
    task_type = VolttronBusTask

    @classmethod
    def validate(cls, config: VolttronBusConfig) -> list[tuple[str, str]]:
        """Return the problems of the key files."""
        return config.file_problems()
