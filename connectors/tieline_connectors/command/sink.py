"""The command sink: commands of a topic, done at a VOLTTRON platform at most once, results to a topic."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

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
from tieline_connectors.command.execution.conditions import Surroundings
from tieline_connectors.command.execution.counters import Measures
from tieline_connectors.command.execution.execution import Pace
from tieline_connectors.command.execution.partition import OwnedPartition, Topics
from tieline_connectors.command.execution.platform import Platform
from tieline_connectors.command.execution.scheduler import Executor
from tieline_connectors.command.intake import Intake
from tieline_connectors.command.model.result_records import ledger_schema
from tieline_connectors.volttron_bus.reporting import connection_reporter

log = logging.getLogger(__name__)

_AGAIN = 1.0
_WAY_OUT = (
    "If this connector is to take its place (it was renamed), set ledger.name to that name, and the ledger"
    " goes on; else give it another topic"
)


class CommandSinkTask(SinkTask[CommandSinkConfig]):
    """Takes commands into its ledger; an executor beside it runs them.

    What ``put`` has returned from is durable and its offset committed, in one write a partition; from
    then on the command's fate is the ledger's affair.

    Counters: ``accepted``, ``repeated`` (known already: told again, or on their way), ``refused``,
    ``malformed``, and those of `Measures`.
    """

    takes_unreadable = True

    def __init__(self, context: SinkContext, config: CommandSinkConfig) -> None:
        super().__init__(context, config)
        self._topics = Topics(config.results_topic, config.old_results_topic)
        self._measures = Measures(context.count)
        self._executor: Executor | None = None
        self._audit: AuditFile | None = None

    def start(self) -> None:
        """Read the policy, open the audit log; the platform is looked for when it is first needed.

        Raises ``FatalError`` on a policy, keys or an audit log that cannot be used.
        """
        self.stop()
        context, config = self.context, self.config
        try:
            self._surroundings = Surroundings(config)
            self._surroundings.count = context.count
            timeout = config.rpc_timeout_ms / 1000
            platform = Platform(
                lambda: config.endpoint_of(context.connector, context.task),
                timeout,
                self._measures.called,
                config.device_agent,
            )
            platform.report = connection_reporter(context, config.address)
            self._audit = AuditFile(_of_task(config.audit_file, context.task))
            self._audit.count = context.count
        except (ConfigError, DataDirInUseError, ValueError, OSError) as error:
            raise FatalError(f"command: {error}") from error
        if self._audit.healed:
            log.warning("the audit log: %s", self._audit.healed)
        pace = Pace(config.verify_delay_ms / 1000, config.retention())
        self._executor = Executor(platform, self._surroundings, pace, self._measures)
        self._executor.start()
        self._intake = Intake(config, context, self._surroundings, self._measures)

    def open(self, partitions: Collection[TopicPartition]) -> None:
        """Take over the ledgers; whoever had them is fenced. What was begun there is looked into first."""
        executor, audit = self._ready()
        for at in partitions:
            if executor.owned(at) is None:
                try:
                    changelog = self.context.changelog(
                        at, ledger_schema(), name=self.config.ledger_name, acts_on=self.config.platform
                    )
                    owned = OwnedPartition(at, changelog, audit, self._topics, self._surroundings.clock)
                except DataDirInUseError as error:
                    raise FatalError(f"command: {error}. {_WAY_OUT}") from error
                except ValueError as error:
                    raise FatalError(f"command: the ledger of {at.topic}-{at.partition}: {error}") from error
                executor.own(owned)

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Decide about each, and store all of a partition as one.

        Raises ``RetriableError`` for the partitions that must wait (an untrusted clock, an
        unavailable broker, too many waiting); none of their offsets is committed. Raises ``FencedError`` if
        another task owns one.
        """
        executor, _ = self._ready()
        by_partition: defaultdict[TopicPartition, list[SinkRecord]] = defaultdict(list)
        for record in batch:
            by_partition[record.consumed_from].append(record)
        # Asked before the lock is taken: a broker that is unavailable must not hold up the executor.
        partitions = {at.topic: self.context.partitions(at.topic) for at in by_partition}
        waiting: dict[TopicPartition, str] = {}
        fenced: FencedError | None = None
        with executor.lock:
            for at, records in by_partition.items():
                try:
                    self._intake.take(self._partition(executor, at), records, partitions[at.topic])
                except (RetriableError, OSError) as error:
                    waiting[at] = str(error)
                except FencedError as error:
                    fenced = error
                except DataError as error:  # its indexes are those of the ledger, not of the batch
                    raise FatalError(
                        f"command: {at.topic}-{at.partition}: the broker refuses: {error}"
                    ) from error
            executor.lock.notify_all()
        if fenced is not None:
            raise fenced
        if waiting:
            told = "; ".join(sorted(set(waiting.values())))
            raise RetriableError(told, after=_AGAIN, partitions=waiting)

    def handle_undecodable(self, record: SinkRecord, error: Exception) -> bool:
        """Answer what no converter can read with its bytes; it blocks nothing."""
        self.put([record._replace(value=Unreadable(record.value, error))])
        return True

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Begin nothing of these any more; a command that is being written is waited for."""
        executor, _ = self._ready()
        give_back = self.config.hold_revert_on_stop_ms / 1000
        if give_back and not lost and self.context.stopping:
            executor.wait_for_the_holds(give_back + self.config.rpc_timeout_ms / 1000)
        for at in partitions:
            executor.release(at, 0.0 if lost else self.config.rpc_timeout_ms / 1000)

    def interrupt(self) -> None:
        """Begin nothing any more, but give back what is held if that is wished. From another thread."""
        if self._executor is not None:
            self._executor.interrupt(self.config.hold_revert_on_stop_ms / 1000)

    def stop(self) -> None:
        """End the executor and close the files."""
        if self._executor is not None:
            self._executor.interrupt()
            self._executor.join(self.config.rpc_timeout_ms / 1000 + 1)
            self._executor = None
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    def _partition(self, executor: Executor, at: TopicPartition) -> OwnedPartition:
        owned = executor.owned(at)
        if owned is None:
            raise FencedError(f"{at.topic}-{at.partition} is not ours any more")
        return owned

    def _ready(self) -> tuple[Executor, AuditFile]:
        assert self._executor is not None
        assert self._audit is not None
        if self._executor.failure is not None:
            raise FatalError(
                f"command: the executor ended: {self._executor.failure}"
            ) from self._executor.failure
        return self._executor, self._audit


class CommandSink(SinkConnector[CommandSinkConfig]):
    """As many tasks as ``tasks.max``, each with a connection to the platform of its own."""

    version: ClassVar[str] = "0.1.0"
    config_type = CommandSinkConfig
    task_type = CommandSinkTask

    @classmethod
    def validate(cls, config: CommandSinkConfig) -> list[tuple[str, str]]:
        """Reads the policy and the files of keys that are named."""
        return config.file_problems()


def _of_task(path: Path, task: int) -> Path:
    return path if task == 0 else path.with_name(f"{path.stem}-{task}{path.suffix}")
