"""The command sink: execute the commands of a topic at a VOLTTRON platform, each at most once."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from tieline.api import (
    ConfigError,
    DataDirInUseError,
    DataError,
    FatalError,
    FencedError,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
    Unreadable,
)
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.counters import METRICS, CommandCounters
from tieline_connectors.command.execution.executor import Timing
from tieline_connectors.command.execution.partition import CommandPartition, ResultTopics
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.execution.scheduler import Scheduler
from tieline_connectors.command.intake import Intake
from tieline_connectors.command.model.result_records import ledger_schema
from tieline_connectors.volttron_bus.reporting import connection_reporter

log = logging.getLogger(__name__)

_RETRY_AFTER = 1.0
_RENAMED_FIX = (
    "If this connector replaces it (it was renamed), set ledger.name to that name, and the ledger continues."
    " Otherwise give it another topic"
)


class _Running(NamedTuple):
    """What a task has between ``start`` and ``stop``."""

    monitor: ConditionMonitor
    audit: AuditFile
    scheduler: Scheduler
    intake: Intake


class CommandSinkTask(SinkTask[CommandSinkConfig]):
    """Stores commands in its ledger; a scheduler on its own thread executes them.

    When ``put`` returns, each decision is durable and its offset committed, in one write per partition. From
    then on the command depends on the ledger alone.

    Counters: ``accepted``, ``repeated`` (known already: answered again, or in progress), ``refused``,
    ``malformed``, and those of `CommandCounters`.
    """

    takes_unreadable = True

    def __init__(self, context: SinkContext, config: CommandSinkConfig) -> None:
        super().__init__(context, config)
        self._topics = ResultTopics(config.results_topic, config.old_results_topic)
        self._counters = CommandCounters(context.count, context.observe)
        self._running: _Running | None = None

    @property
    def scheduler(self) -> Scheduler:
        """Return the scheduler that executes this task's commands, from ``start`` to ``stop``."""
        return self._started.scheduler

    def start(self) -> None:
        """Read the policy and open the audit log; the platform is connected when it is first needed.

        Raises ``FatalError`` if the policy, the keys or the audit log cannot be used.
        """
        self.stop()
        context, config = self.context, self.config
        try:
            monitor = ConditionMonitor(config, context.count)
            platform = Platform(
                lambda: config.endpoint_of(context.connector, context.task),
                config.rpc_timeout_ms / 1000,
                self._counters.called,
                config.device_agent,
                connection_reporter(context, config.address),
            )
            audit = AuditFile(_path_of_task(config.audit_file, context.task), context.count)
        except (ConfigError, DataDirInUseError, ValueError, OSError) as error:
            raise FatalError(f"command: {error}") from error
        if audit.repaired:
            log.warning("the audit log: %s", audit.repaired)
        timing = Timing(config.verify_delay_ms / 1000, config.retention())
        scheduler = Scheduler(platform, monitor, timing, self._counters)
        intake = Intake(config, context, monitor, self._counters)
        self._running = _Running(monitor, audit, scheduler, intake)
        scheduler.start()

    def open(self, partitions: Collection[TopicPartition]) -> None:
        """Take over the ledgers and fence their previous owners. Commands in STARTED are checked first.

        All ledgers are read before anything is decided: each of them may know this computer's clock.
        """
        running = self._ready()
        opened: list[CommandPartition] = []
        try:
            for topic_partition in partitions:
                if running.scheduler.get(topic_partition) is None:
                    opened.append(self._open_partition(topic_partition, running))
        finally:
            running.scheduler.add(opened)

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Decide about each record, and store the decisions of a partition in one write.

        Raises ``RetriableError`` for the partitions that must wait (an untrusted clock, an
        unavailable broker); none of their offsets is committed. Raises ``FencedError`` if another task owns
        a partition.
        """
        running = self._ready()
        by_partition: defaultdict[TopicPartition, list[SinkRecord]] = defaultdict(list)
        for record in batch:
            by_partition[record.consumed_from].append(record)
        # Read before the lock is taken: an unavailable broker must not block the scheduler.
        counts = {topic: self.context.partitions(topic) for topic in {tp.topic for tp in by_partition}}
        waiting: dict[TopicPartition, str] = {}
        fenced: FencedError | None = None
        with running.scheduler.lock:
            for topic_partition, records in by_partition.items():
                try:
                    partition = self._owned_partition(running.scheduler, topic_partition)
                    running.intake.take(partition, records, counts[topic_partition.topic])
                except (RetriableError, OSError) as error:
                    waiting[topic_partition] = str(error)
                except FencedError as error:
                    fenced = error
                except DataError as error:  # its indexes are those of the ledger, not of the batch
                    where = f"{topic_partition.topic}-{topic_partition.partition}"
                    raise FatalError(f"command: {where}: the broker rejected the ledger: {error}") from error
            running.scheduler.lock.notify_all()
        if fenced is not None:
            raise fenced
        if waiting:
            reasons = "; ".join(sorted(set(waiting.values())))
            raise RetriableError(reasons, after=_RETRY_AFTER, partitions=waiting)

    def handle_undecodable(self, record: SinkRecord, error: Exception) -> bool:
        """Reject a record that no converter can read, with its bytes in the result; it blocks nothing."""
        self.put([record._replace(value=Unreadable(record.value, error))])
        return True

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Start no more commands of these partitions, and wait for the one that is being written."""
        scheduler = self._ready().scheduler
        revert_time = self.config.hold_revert_on_stop_ms / 1000
        rpc_timeout = self.config.rpc_timeout_ms / 1000
        if revert_time and not lost and self.context.stopping:
            scheduler.wait_for_holds(revert_time + rpc_timeout)
        for topic_partition in partitions:
            scheduler.release(topic_partition, 0.0 if lost else rpc_timeout)

    def interrupt(self) -> None:
        """Start no more commands, and revert holds if the settings ask for it. From another thread."""
        if self._running is not None:
            self._running.scheduler.interrupt(self.config.hold_revert_on_stop_ms / 1000)

    def stop(self) -> None:
        """End the scheduler and close the audit log."""
        running, self._running = self._running, None
        if running is not None:
            running.scheduler.interrupt()
            running.scheduler.join(self.config.rpc_timeout_ms / 1000 + 1)
            running.monitor.clock.close()
            running.audit.close()

    def _open_partition(self, topic_partition: TopicPartition, running: _Running) -> CommandPartition:
        try:
            changelog = self.context.changelog(
                topic_partition, ledger_schema(), name=self.config.ledger_name, acts_on=self.config.platform
            )
            return CommandPartition(
                topic_partition, changelog, running.audit, self._topics, running.monitor.clock
            )
        except DataDirInUseError as error:
            raise FatalError(f"command: {error}. {_RENAMED_FIX}") from error
        except ValueError as error:
            where = f"{topic_partition.topic}-{topic_partition.partition}"
            raise FatalError(f"command: the ledger of {where}: {error}") from error

    def _owned_partition(self, scheduler: Scheduler, topic_partition: TopicPartition) -> CommandPartition:
        partition = scheduler.get(topic_partition)
        if partition is None:
            where = f"{topic_partition.topic}-{topic_partition.partition}"
            raise FencedError(f"this task no longer owns {where}")
        return partition

    @property
    def _started(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the command sink is not started: call start() first")
        return self._running

    def _ready(self) -> _Running:
        """Return what runs. Raises ``FatalError`` if the scheduler has failed."""
        running = self._started
        failure = running.scheduler.failure
        if failure is not None:
            raise FatalError(f"command: the scheduler ended: {failure}") from failure
        return running


class CommandSink(SinkConnector[CommandSinkConfig]):
    """Has as many tasks as ``tasks.max``, each with its own connection to the platform."""

    version: ClassVar[str] = "0.1.0"
    config_type = CommandSinkConfig
    task_type = CommandSinkTask
    metrics = METRICS
    answers_records: ClassVar[bool] = True

    @classmethod
    def validate(cls, config: CommandSinkConfig) -> list[tuple[str, str]]:
        """Return the problems of the policy and of the key files."""
        return config.file_problems()


def _path_of_task(path: Path, task: int) -> Path:
    return path if task == 0 else path.with_name(f"{path.stem}-{task}{path.suffix}")
