"""From the records of a partition to what is decided about them: all of a batch is stored as one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from tieline.api import ID_HEADER, RetriableError, SinkContext, SinkRecord, Unreadable, header
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.conditions import Surroundings
from tieline_connectors.command.execution.counters import Measures
from tieline_connectors.command.execution.partition import OwnedPartition, Unit
from tieline_connectors.command.model import parsing as reading
from tieline_connectors.command.model.command import Command, Result
from tieline_connectors.command.model.ledger import Pending
from tieline_connectors.command.model.parsing import Malformed
from tieline_connectors.command.rules import rules
from tieline_connectors.command.rules.decisions import Accept, Answer, End, Known, Situation, Wait
from tieline_connectors.command.rules.results import refused

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Results in a write: a transaction is bounded, and a stop need not wait for a whole batch."""
_MOST_RAW = 1 << 16


class _Decided:
    """What a write will store of the records before ``offset``."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.pending = Pending()
        self.results: list[Result] = []
        self.deadlines: dict[str, int] = {}
        self.waiting: Counter[str] = Counter()

    def add(self, decision: Known | Answer | End | Accept) -> None:
        if isinstance(decision, Known):
            return
        self.results.append(decision.result)
        if isinstance(decision, (Accept, End)):
            self.pending.put(decision.entry)
        if isinstance(decision, Accept):
            self.deadlines[decision.entry.command_id] = decision.deadline
            self.waiting[decision.entry.command.issuer] += 1

    def unit(self) -> Unit:
        return Unit(list(self.pending.entries.values()), self.results, self.offset, self.deadlines)


class Intake:
    """Used by the task's thread, under the executor's lock."""

    def __init__(
        self, config: CommandSinkConfig, context: SinkContext, surroundings: Surroundings, measures: Measures
    ) -> None:
        self._config = config
        self._context = context
        self._surroundings = surroundings
        self._measures = measures
        self._told: set[str] = set()

    def take(self, owned: OwnedPartition, records: Sequence[SinkRecord], partitions: int) -> None:
        """Decide about each, in order, and store it. Those before one that must wait are stored.

        ``partitions``: how many the topic has.
        Raises ``RetriableError``, ``OSError`` (the audit log cannot be written), ``Fenced``, ``DataError``.
        """
        taken = owned.taken()
        situation = self._surroundings.situation()
        owned.lay_out(partitions, situation)
        decided = _Decided(taken)
        must_wait = None
        for record in records:
            if record.offset < taken:
                continue
            if self._is_answer(owned, record):
                decided.offset = record.offset + 1
                self._context.count("results.read")
                continue
            decision = self._decide(owned, record, decided, situation, partitions)
            if isinstance(decision, Wait):
                must_wait = decision
                break
            decided.offset = record.offset + 1
            decided.add(decision)
            counter = _counter(decision)
            self._context.count(counter)
            if counter == "refused":
                assert not isinstance(decision, Known)
                self._measures.ended(decision.result.state)
            if len(decided.results) >= _AT_ONCE:
                owned.store(decided.unit())
                decided = _Decided(decided.offset)
                if self._context.stopping:
                    raise RetriableError("the task stops; what is left comes again")
        if decided.offset > taken:
            owned.store(decided.unit())
        if must_wait is not None:
            log.error("no command is taken: %s: %s", must_wait.code, must_wait.sentence)
            raise RetriableError(f"{must_wait.code}: {must_wait.sentence}")

    def _is_answer(self, owned: OwnedPartition, record: SinkRecord) -> bool:
        """Whether it is what a command sink has answered: an answer to that would be answered, and so on.

        On our own topics of results that is also what cannot be decoded: the converter is for commands.
        """
        config = self._config
        own = owned.at.topic in (config.results_topic, config.old_results_topic)
        found = reading.is_result(record.value) or (own and isinstance(record.value, Unreadable))
        if found and owned.at.topic not in self._told:
            self._told.add(owned.at.topic)
            log.error(
                "%s holds results of commands: they are passed over, and counted as results.read."
                " Give results.topic another topic, or topics.regex one that does not match it",
                owned.at.topic,
            )
        return found

    def _decide(
        self,
        owned: OwnedPartition,
        record: SinkRecord,
        decided: _Decided,
        situation: Situation,
        partitions: int,
    ) -> Wait | Known | Answer | End | Accept:
        at_broker = max(record.timestamp or 0, 0) * 1000
        raw = None
        elsewhere = None
        try:
            if isinstance(record.value, Unreadable):
                raw = record.value.value
                raise Malformed(f"it cannot be decoded: {record.value.error}")
            command = self._command(record, at_broker)
        except Malformed as error:
            name = _id(record)[: reading.MAX_ID]
            return rules.malformed(error, name, None if raw is None else raw[:_MOST_RAW], situation.now.wall)
        if not reading.is_old(record.value):  # in the old form each record is a command of its own
            elsewhere = rules.misplaced(command, owned.at, partitions, self._config.platform)
        decision = rules.arrived(
            command, at_broker or None, owned.ledger, situation, elsewhere, decided.pending
        )
        if isinstance(decision, Accept):
            waiting = owned.ledger.waiting + decided.waiting
            refusal = rules.too_many(decision.entry, waiting, self._config.max_waiting)
            if refusal is not None:
                return refused(decision.entry, refusal, situation.now.wall)
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


def _id(record: SinkRecord) -> str:
    """What names a record for ever: of others' producers the topic's own id, partition and offset."""
    return (header(record, ID_HEADER) or b"").decode("ascii", "replace")


def _counter(decision: Known | Answer | End | Accept) -> str:
    if isinstance(decision, Accept):
        return "accepted"
    if isinstance(decision, Known) or (isinstance(decision, Answer) and decision.known):
        return "repeated"
    return "malformed" if decision.result.reason_code == "MALFORMED" else "refused"
