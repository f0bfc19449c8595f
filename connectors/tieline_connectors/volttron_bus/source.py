"""The VOLTTRON bus source: turns the messages that agents publish into records."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import ClassVar

from tieline.api import FatalError, SourceConnector, SourceContext, SourceRecord, SourceTask
from tieline_connectors.volttron_bus.backfill.backfill import Backfill
from tieline_connectors.volttron_bus.backfill.historian import Historian
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

    If ``backfill.historian`` is set, what was missed is fetched from the platform's historian.

    Counters: ``dropped.buffer_full``, ``dropped.too_large``, ``filtered.echo``, ``filtered.prefix``,
    ``reconnects``, ``times.unreadable``, ``readings.without_points``, ``backfill.*``. The
    runtime counts ``quarantined.<reason>``.
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
        self._stopping = False
        self._backfill: Backfill | None = None
        if config.backfill_historian:
            self._backfill = Backfill(
                context,
                Historian(
                    config.historian_reconnect(context.connector),
                    config.backfill_historian,
                    lambda: self._stopping,
                ),
                config.backfill_limits(),
                self._to_recovered,
                f"the historian {config.backfill_historian} of the platform at {config.address}",
                self._buffer.wake,
            )

    def start(self) -> None:
        """Start to receive, without waiting for the platform. Raises ``FatalError`` on unreadable keys."""
        try:
            self._reconnect.load()
        except ValueError as error:
            raise FatalError(f"volttron_bus: {error}") from error
        if self._backfill is not None:
            self._backfill.start()
        self._receiver.start()

    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """Return what has arrived, or wait for it. Raises ``FatalError`` if the receiving thread failed."""
        if self._receiver.is_stopping:
            self._receiver.join()  # it still moves what has arrived to the buffer
        records = []
        backfill = self._backfill
        if backfill is not None:
            backfill.batch_kept(*self._receiver.session)
            max_wait = 0.0 if backfill.has_ready else max_wait
        for received in self._buffer.take(max_records, max_wait):
            record = self._to_record(received)
            if record is not None:
                records.append(record)
        if backfill is not None:
            records += backfill.take(max_records - len(records))
        self._silent_prefixes.check(time.monotonic(), connected=self._receiver.is_subscribed)
        if not records:
            self._check_threads()
        return records

    def interrupt(self) -> None:
        """Stop receiving and end a waiting poll. What was received before can still be polled."""
        self._receiver.stop()
        self._stopping = True
        if self._backfill is not None:
            self._backfill.interrupt()

    def stop(self) -> None:
        """Close the connection."""
        self._receiver.stop()
        self._receiver.join()
        if self._backfill is not None:
            self._backfill.stop()

    def _check_threads(self) -> None:
        """Raise ``FatalError`` if a thread of this task has ended."""
        if self._receiver.failure is not None:
            raise FatalError("volttron_bus: the receiver failed because of a bug") from self._receiver.failure
        if self._backfill is not None and self._backfill.failure is not None:
            raise FatalError("volttron_bus: back-fill failed because of a bug") from self._backfill.failure

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
            if self._backfill is not None:
                self._backfill.received(received.session, message, record)
            return record
        return None

    def _to_recovered(self, frames: Sequence[bytes]) -> SourceRecord | None:
        """Return the record of a message from the historian. The thread of back-fill calls it."""
        try:
            message = parse_message(frames, time.time_ns() // 1000, self._parse_limits, self._naive_zone)
            return self._mapper.record(message)
        except FilteredError as filtered:
            self.context.count(f"filtered.{filtered.reason}")
        except MalformedMessageError:
            self.context.count("backfill.invalid")
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
