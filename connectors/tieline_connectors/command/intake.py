"""Decide about the records of a partition, and store the decisions of a batch together."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from tieline.api import ID_HEADER, RetriableError, SinkContext, SinkRecord, Unreadable, header
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.counters import CommandCounters
from tieline_connectors.command.execution.partition import CommandPartition, LedgerWrite
from tieline_connectors.command.model import parsing
from tieline_connectors.command.model.command import Command, Result
from tieline_connectors.command.model.entry import PendingEntries
from tieline_connectors.command.model.parsing import MalformedCommandError
from tieline_connectors.command.rules import arrival
from tieline_connectors.command.rules.decisions import Accept, Answer, Conditions, End, InProgress, Wait
from tieline_connectors.command.rules.results import reject

log = logging.getLogger(__name__)

_MAX_RESULTS = 500
"""Results in one write: a transaction is bounded, and a stop need not wait for a whole batch."""
_MAX_RAW = 1 << 16


class _Decisions:
    """The decisions about the records before ``offset`` that the next write will store."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.pending = PendingEntries()
        self.results: list[Result] = []
        self.deadlines: dict[str, int] = {}
        self.waiting: Counter[str] = Counter()

    def add(self, decision: InProgress | Answer | End | Accept) -> None:
        if isinstance(decision, InProgress):
            return
        self.results.append(decision.result)
        if isinstance(decision, (Accept, End)):
            self.pending.put(decision.entry)
        if isinstance(decision, Accept):
            self.deadlines[decision.entry.command_id] = decision.deadline
            self.waiting[decision.entry.command.issuer] += 1

    def to_write(self) -> LedgerWrite:
        return LedgerWrite(list(self.pending.entries.values()), self.results, self.offset, self.deadlines)


class Intake:
    """Decides about records. Used by the task's thread, under the scheduler's lock."""

    def __init__(
        self,
        config: CommandSinkConfig,
        context: SinkContext,
        monitor: ConditionMonitor,
        counters: CommandCounters,
    ) -> None:
        self._config = config
        self._context = context
        self._monitor = monitor
        self._counters = counters
        self._warned_topics: set[str] = set()

    def take(self, partition: CommandPartition, records: Sequence[SinkRecord], partitions: int) -> None:
        """Decide about each record in order, and store the decisions.

        If a record must wait, the decisions about the records before it are stored. ``partitions``: how many
        the topic has. Raises ``RetriableError``, ``OSError`` (the audit log cannot be written),
        ``FencedError`` and ``DataError``.
        """
        start = partition.stored_offset()
        conditions = self._monitor.current()
        partition.note_restore(conditions)
        partition.note_partition_count(partitions, conditions)
        decisions = _Decisions(start)
        must_wait = None
        for record in records:
            if record.offset < start:
                continue
            if self._is_own_result(partition, record):
                decisions.offset = record.offset + 1
                self._context.count("results.read")
                continue
            decision = self._decide(partition, record, decisions, conditions, partitions)
            if isinstance(decision, Wait):
                must_wait = decision
                break
            decisions.offset = record.offset + 1
            decisions.add(decision)
            self._count(decision)
            if len(decisions.results) >= _MAX_RESULTS:
                partition.store(decisions.to_write())
                decisions = _Decisions(decisions.offset)
                if self._context.stopping:
                    raise RetriableError("the task stops; the remaining records will be read again")
        if decisions.offset > start:
            partition.store(decisions.to_write())
        if must_wait is not None:
            log.error("commands are not accepted: %s: %s", must_wait.code, must_wait.reason)
            raise RetriableError(f"{must_wait.code}: {must_wait.reason}")

    def _count(self, decision: InProgress | Answer | End | Accept) -> None:
        counter = _counter_of(decision)
        self._context.count(counter)
        if counter == "refused":
            assert not isinstance(decision, InProgress)
            self._counters.ended(decision.result.state)

    def _is_own_result(self, partition: CommandPartition, record: SinkRecord) -> bool:
        """Return whether a record is a result of a command sink: answering it would create an endless loop.

        On the result topics of this sink, this includes what cannot be decoded: the converter is for
        commands.
        """
        config, topic = self._config, partition.topic_partition.topic
        is_result_topic = topic in (config.results_topic, config.old_results_topic)
        is_result = parsing.is_result(record.value) or (
            is_result_topic and isinstance(record.value, Unreadable)
        )
        if is_result and topic not in self._warned_topics:
            self._warned_topics.add(topic)
            log.error(
                "%s holds results of commands: they are skipped, and counted as results.read."
                " Give results.topic another topic, or topics.regex one that does not match it",
                topic,
            )
        return is_result

    def _decide(
        self,
        partition: CommandPartition,
        record: SinkRecord,
        decisions: _Decisions,
        conditions: Conditions,
        partitions: int,
    ) -> Wait | InProgress | Answer | End | Accept:
        record_at = max(record.timestamp or 0, 0) * 1000
        raw = None
        misdirected = None
        try:
            if isinstance(record.value, Unreadable):
                raw = record.value.value
                raise MalformedCommandError(f"it cannot be decoded: {record.value.error}")
            command = self._parse(record, record_at)
        except MalformedCommandError as error:
            name = _record_id(record)[: parsing.MAX_ID]
            start_of_raw = None if raw is None else raw[:_MAX_RAW]
            return arrival.reject_malformed(error, name, start_of_raw, conditions.now.wall)
        if not parsing.is_old(record.value):  # each record in the old form is a separate command
            misdirected = arrival.check_destination(
                command, partition.topic_partition, partitions, self._config.platform
            )
        decision = arrival.decide_arrival(
            command, record_at or None, partition.ledger, conditions, misdirected, decisions.pending
        )
        if isinstance(decision, Accept):
            waiting = partition.ledger.waiting + decisions.waiting
            rejection = arrival.check_queue(decision.entry, waiting, self._config.max_waiting)
            if rejection is not None:
                return reject(decision.entry, rejection, conditions.now.wall)
        return decision

    def _parse(self, record: SinkRecord, record_at: int) -> Command:
        config = self._config
        if not parsing.is_old(record.value):
            return parsing.from_value(record.value, config.defaults())
        if not config.old_issuer:
            raise MalformedCommandError(
                "the old form is not accepted; set old.issuer, or send command.Command"
            )
        return parsing.from_old(
            record.value,
            command_id=_record_id(record),
            issuer=config.old_issuer,
            at=record_at,
            max_age=config.max_age_ms * 1000,
            defaults=config.defaults(),
        )


def _record_id(record: SinkRecord) -> str:
    """Return the permanent id of a record: of foreign producers the topic's id, partition and offset."""
    return (header(record, ID_HEADER) or b"").decode("ascii", "replace")


def _counter_of(decision: InProgress | Answer | End | Accept) -> str:
    if isinstance(decision, Accept):
        return "accepted"
    if isinstance(decision, InProgress) or (isinstance(decision, Answer) and decision.known):
        return "repeated"
    return "malformed" if decision.result.reason_code == "MALFORMED" else "refused"
