"""The command sink: commands of a topic, done at a VOLTTRON platform at most once, results to a topic."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

from tieline.api import (
    ID_HEADER,
    AlreadyOwned,
    ConfigError,
    DataError,
    Fatal,
    Fenced,
    Retriable,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
    header,
)
from tieline_connectors.command import reading, rules
from tieline_connectors.command.audit_file import AuditFile
from tieline_connectors.command.command import Command, Result
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.decisions import Accept, Answer, End, Known, Wait
from tieline_connectors.command.execution import Pace
from tieline_connectors.command.executor import Executor
from tieline_connectors.command.ledger import Entry
from tieline_connectors.command.measures import Measures
from tieline_connectors.command.owned import OwnedPartition, Topics, Unit
from tieline_connectors.command.platform import Platform
from tieline_connectors.command.reading import Malformed
from tieline_connectors.command.surroundings import Surroundings
from tieline_connectors.command.telling import ledger_schema

log = logging.getLogger(__name__)

_AGAIN = 1.0
_MOST_RAW = 1 << 16


class CommandSinkTask(SinkTask[CommandSinkConfig]):
    """Takes commands into its ledger; an executor beside it runs them.

    What ``put`` has returned from is durable and its offset committed, in one write a partition; from
    then on the command's fate is the ledger's affair.

    Counters: ``accepted``, ``repeated`` (known already: told again, or on their way), ``refused``,
    ``malformed``, and those of `Measures`.
    """

    _executor: Executor | None = None
    _audit: AuditFile | None = None

    def start(self, context: SinkContext, config: CommandSinkConfig) -> None:
        """Read the policy, open the audit log; the platform is looked for when it is first needed.

        Raises ``Fatal`` on a policy, keys or an audit log that cannot be used.
        """
        self.shutdown()
        self._context = context
        self._config = config
        self._topics = Topics(config.results_topic, config.old_results_topic)
        try:
            self._surroundings = Surroundings(config)
            self._surroundings.count = context.count
            endpoint = config.endpoint_of(context.connector, context.task)
            self._audit = AuditFile(_of_task(config.audit_file, context.task))
            self._audit.count = context.count
        except (ConfigError, AlreadyOwned, ValueError, OSError) as error:
            raise Fatal(f"command: {error}") from error
        if self._audit.healed:
            log.warning("the audit log: %s", self._audit.healed)
        self._measures = Measures(context.count)
        timeout = config.rpc_timeout_ms / 1000
        platform = Platform(endpoint, timeout, self._measures.called, config.device_agent)
        pace = Pace(config.verify_delay_ms / 1000, config.retention())
        self._executor = Executor(platform, self._surroundings, pace, self._measures)
        self._executor.start()

    def open(self, partitions: Collection[TopicPartition]) -> None:
        """Take over the ledgers; whoever had them is fenced. What was begun there is looked into first."""
        executor, audit = self._ready()
        for at in partitions:
            if executor.owned(at) is None:
                changelog = self._context.changelog(at, ledger_schema())
                try:
                    owned = OwnedPartition(at, changelog, audit, self._topics, self._surroundings.clock)
                except ValueError as error:
                    raise Fatal(f"command: the ledger of {at.topic}-{at.partition}: {error}") from error
                executor.own(owned)

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Decide about each, and store all of a partition as one.

        Raises ``Retriable`` for the partitions that must wait (an untrusted clock, a broker that is away,
        too many waiting); of those nothing is committed. ``Fenced`` where somebody else owns one.
        """
        executor, _ = self._ready()
        by_partition: defaultdict[TopicPartition, list[SinkRecord]] = defaultdict(list)
        for record in batch:
            by_partition[record.consumed_from].append(record)
        waiting: dict[TopicPartition, str] = {}
        fenced: Fenced | None = None
        with executor.lock:
            for at, records in by_partition.items():
                try:
                    self._take(executor, at, records)
                except (Retriable, OSError) as error:
                    waiting[at] = str(error)
                except Fenced as error:
                    fenced = error
                except DataError as error:  # its indexes are those of the ledger, not of the batch
                    raise Fatal(f"command: {at.topic}-{at.partition}: the broker refuses: {error}") from error
            executor.lock.notify_all()
        if fenced is not None:
            raise fenced
        if waiting:
            told = "; ".join(sorted(set(waiting.values())))
            raise Retriable(told, after=_AGAIN, partitions=waiting)

    def refuse(self, record: SinkRecord, error: Exception) -> bool:
        """What no converter can read is answered with its bytes, and blocks nothing."""
        executor, _ = self._ready()
        at = record.consumed_from
        raw = record.value[:_MOST_RAW] if isinstance(record.value, bytes) else None
        with executor.lock:
            owned = self._partition(executor, at)
            now = self._surroundings.now().wall
            told = Malformed(f"it cannot be decoded: {error}")
            answer = rules.malformed(told, _id(record)[: reading.MAX_ID], raw, now)
            try:
                if record.offset >= owned.taken():
                    owned.store(Unit([], [answer.result], record.offset + 1))
            except OSError as full:
                raise Retriable(f"the audit log cannot be written: {full}", after=_AGAIN) from full
        self._context.count("malformed")
        return True

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Begin nothing of these any more; a command that is being written is waited for."""
        executor, _ = self._ready()
        give_back = self._config.hold_revert_on_stop_ms / 1000
        if give_back and not lost and self._context.stopping:
            executor.wait_for_the_holds(give_back + self._config.rpc_timeout_ms / 1000)
        for at in partitions:
            executor.release(at, 0.0 if lost else self._config.rpc_timeout_ms / 1000)

    def stop(self) -> None:
        """Begin nothing any more, but give back what is held if that is wished. From another thread."""
        if self._executor is not None:
            self._executor.ask_to_stop(self._config.hold_revert_on_stop_ms / 1000)

    def shutdown(self) -> None:
        """End the executor and let the files go."""
        if self._executor is not None:
            self._executor.ask_to_stop()
            self._executor.join(self._config.rpc_timeout_ms / 1000 + 1)
            self._executor = None
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    def _take(self, executor: Executor, at: TopicPartition, records: Sequence[SinkRecord]) -> None:
        """One partition's records, under the lock. Those before one that must wait are stored."""
        owned = self._partition(executor, at)
        taken = owned.taken()
        entries: dict[str, Entry] = {}
        results: list[Result] = []
        deadlines: dict[str, int] = {}
        must_wait = None
        offset = taken
        for record in records:
            if record.offset < taken:
                continue
            at_broker = (record.timestamp or 0) * 1000
            decision = self._decide(owned, record, at_broker)
            if isinstance(decision, Wait):
                must_wait = decision
                break
            if not isinstance(decision, Known) and decision.result.command_id in entries:
                # the same id twice in one batch: the first must be in the ledger before the second is judged
                owned.store(Unit(list(entries.values()), results, offset, deadlines))
                entries, results, deadlines = {}, [], {}
                decision = self._decide(owned, record, at_broker)
                assert not isinstance(decision, Wait)
            offset = record.offset + 1
            self._context.count(_counter(decision))
            if isinstance(decision, Known):
                continue
            results.append(decision.result)
            if _counter(decision) == "refused":
                self._measures.ended(decision.result.state)
            if isinstance(decision, (Accept, End)):
                entries[decision.entry.command_id] = decision.entry
            if isinstance(decision, Accept):
                deadlines[decision.entry.command_id] = decision.deadline
        if offset > taken:
            owned.store(Unit(list(entries.values()), results, offset, deadlines))
        if must_wait is not None:
            log.error("no command is taken: %s: %s", must_wait.code, must_wait.sentence)
            raise Retriable(f"{must_wait.code}: {must_wait.sentence}")

    def _decide(
        self, owned: OwnedPartition, record: SinkRecord, at_broker: int
    ) -> Wait | Known | Answer | End | Accept:
        situation = self._surroundings.situation()
        try:
            command = self._command(record, at_broker)
        except Malformed as error:
            return rules.malformed(error, _id(record)[: reading.MAX_ID], None, situation.now.wall)
        decision = rules.arrived(command, at_broker or None, owned.ledger, situation)
        if isinstance(decision, Accept) and len(owned.deadlines) >= self._config.max_waiting:
            return Wait("TOO_MANY_WAIT", f"{len(owned.deadlines)} commands wait already (max.waiting)")
        return decision

    def _command(self, record: SinkRecord, at_broker: int) -> Command:
        config = self._config
        if not reading.is_old(record.value):
            return reading.from_value(record.value, config.defaults())
        if not config.old_issuer:
            raise Malformed("the old form is not taken; set old.issuer, or send command.Command")
        return reading.from_old(
            record.value,
            command_id=_id(record),
            issuer=config.old_issuer,
            at=at_broker,
            max_age=config.max_age_ms * 1000,
            defaults=config.defaults(),
        )

    def _partition(self, executor: Executor, at: TopicPartition) -> OwnedPartition:
        owned = executor.owned(at)
        if owned is None:
            raise Fenced(f"{at.topic}-{at.partition} is not ours any more")
        return owned

    def _ready(self) -> tuple[Executor, AuditFile]:
        assert self._executor is not None
        assert self._audit is not None
        if self._executor.failure is not None:
            raise Fatal(f"command: the executor ended: {self._executor.failure}") from self._executor.failure
        return self._executor, self._audit


class CommandSink(SinkConnector[CommandSinkConfig]):
    """As many tasks as ``tasks.max``, each with a connection to the platform of its own."""

    version: ClassVar[str] = "0.1.0"
    config_type = CommandSinkConfig
    task_type = CommandSinkTask

    def validate(self, config: CommandSinkConfig) -> list[tuple[str, str]]:
        """Reads the policy and the files of keys that are named."""
        return config.file_mistakes()


def _id(record: SinkRecord) -> str:
    """What names a record for ever: of others' producers the topic's own id, partition and offset."""
    return (header(record, ID_HEADER) or b"").decode("ascii", "replace")


def _counter(decision: Known | Answer | End | Accept) -> str:
    if isinstance(decision, Accept):
        return "accepted"
    if isinstance(decision, Known) or (isinstance(decision, Answer) and decision.known):
        return "repeated"
    return "malformed" if decision.result.reason_code == "MALFORMED" else "refused"


def _of_task(path: Path, task: int) -> Path:
    return path if task == 0 else path.with_name(f"{path.stem}-{task}{path.suffix}")
