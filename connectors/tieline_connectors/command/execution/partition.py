"""A partition of commands that this task owns: what is decided is audited, then durable, then known here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tieline.api import Changelog, TopicPartition
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.model.clock import CLOCK_STEP, Now, Seen
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.ledger import CommandLedger, Entry, Retention, check_step
from tieline_connectors.command.model.partition_note import KEY, Note, with_times
from tieline_connectors.command.model.result_records import audit_event, audit_revert, records, taken_over
from tieline_connectors.command.rules.decisions import Situation
from tieline_connectors.command.rules.rules import deadline_of


class Topics(NamedTuple):
    """Where results are told."""

    results: str
    old_results: str


class Clock(Protocol):
    """The time that is believed; `wall_clock.WallClock` is one."""

    def now(self) -> Now:
        """The moment."""

    def recall(self, ledger: CommandLedger) -> Now:
        """The moment, after what a ledger knows of this computer's clock."""


@dataclass(eq=False)
class Unit:
    """What was decided, to be stored as one: offer the same one to `OwnedPartition.store` until it is.

    ``offset``: records before it are decided by this. ``deadlines`` of the commands accepted.
    """

    entries: Sequence[Entry]
    results: Sequence[Result]
    offset: int | None = None
    deadlines: Mapping[str, int] = field(default_factory=dict)
    audited: bool = False
    stored: bool = False


class OwnedPartition:
    """Used under the executor's lock. ``deadlines``: until when each command may run, monotonic.

    The audit log comes first, so nothing is ever stored, told or done that it does not say. What it says
    and was not stored (the worker died between the two) is told by the numbers: each write of the ledger
    has one, ``stored_at``, on its entries and on its lines; the line TAKEN_OVER of whoever comes next
    says up to which number the ledger has it.
    """

    def __init__(
        self, at: TopicPartition, changelog: Changelog, audit: AuditFile, topics: Topics, clock: Clock
    ) -> None:
        """Reads the ledger as the last owner left it. Raises ``ValueError`` on what is no entry."""
        self.at = at
        found = dict(changelog.entries)
        note = Note.from_value(found.pop(KEY, None))
        self._stored_note = note
        self.ledger = CommandLedger(map(Entry.from_value, found.values()), clock.now(), note)
        now = clock.recall(self.ledger)
        self.ledger.keep_time(now)
        waiting = (entry for entry in self.ledger if entry.state == "RECEIVED")
        self.deadlines = {entry.command_id: deadline_of(entry, now) for entry in waiting}
        self.released = False
        self._changelog = changelog
        self._first_partitions = changelog.first_partitions
        self._audit = audit
        self._topics = topics
        self._name = f"{at.topic}-{at.partition}"
        self._first = [taken_over(self._name, self.ledger.stored_at)]
        self._unheard: Unit | None = None
        self._taken = -1

    def taken(self) -> int:
        """Of records before this offset all is decided, and durable; -1: of none yet. Raises as ``store``.

        Ask before a record is decided: what ``store`` has perhaps stored is repeated first, as it was. A
        second decision could be another one, since clock, kill switch and policy go on.
        """
        self._finish()
        return self._taken

    def store(self, unit: Unit) -> None:
        """Entries, what is told of them and the offset, as one; on the audit log's disk before that.

        Raises ``Retriable`` (nobody knows whether it is stored; until it is, nothing else will be),
        ``OSError`` (the audit log cannot be written; nothing was stored), ``Fenced``.
        """
        self._finish()
        if not unit.stored:
            self._unheard = unit
            self._finish()

    def _finish(self) -> None:
        unit = self._unheard
        if unit is None:
            return
        if not unit.audited:
            self._say(unit)
        told = [record for result in unit.results for record in records(result, *self._topics)]
        self._changelog.write({e.command_id: e.to_value() for e in unit.entries}, told, unit.offset)
        for entry in unit.entries:
            self.ledger.put(entry)
            if entry.state == "ENDED":
                self.deadlines.pop(entry.command_id, None)
        self.deadlines.update(unit.deadlines)
        if unit.offset is not None:
            self._taken = unit.offset
        unit.stored, self._unheard = True, None

    def _say(self, unit: Unit) -> None:
        """Give the write its number, and let the audit log say all of it."""
        new = [entry for entry in unit.entries if entry != self.ledger.get(entry.command_id)]
        for entry in new:
            check_step(self.ledger.get(entry.command_id), entry)
        number = max([self.ledger.stored_at + 1, *(entry.newest for entry in new)]) if new else None
        if number is not None:
            ids = {entry.command_id for entry in new}
            unit.entries = [e._replace(stored_at=number) if e.command_id in ids else e for e in unit.entries]
        lines = [audit_event(result, self._name, number) for result in unit.results]
        lines += [audit_revert(e, self._name, number) for e in unit.entries if e.hold == "REVERTING"]
        at = max([result.at for result in unit.results] + [entry.newest for entry in unit.entries], default=0)
        if lines:
            self._audit.append(at, *self._first, *lines)
            self._first = []
        unit.audited = True

    def keep_head(self) -> None:
        """Let the head beside the audit log follow it, if that is due."""
        self._audit.keep_head()

    def forget(self, now: int, retention: Retention) -> int:
        """Remove what is older than the retention; how many. Raises ``Retriable``, ``Fenced``."""
        gone = self.ledger.forgettable(now, retention)[:1000]
        if gone and self._unheard is None:
            self._write_note(self.ledger.noted(gone), gone)
            self.ledger.forget(gone, now)
        return len(gone)

    def keep_time(self, now: Now) -> None:
        """Count by the time that is believed now, and write it down. Raises ``Retriable``, ``Fenced``.

        The next start knows it then; until the time before counts no more, that one is to be known.
        """
        self.ledger.keep_time(now)
        known = self.ledger.last_seen(now.boot)
        if known is None or now.doubt or now.before or abs(known.offset - now.offset) <= CLOCK_STEP // 2:
            return
        if self._unheard is None:
            seen = Seen(now.offset, now.monotonic)
            self._write_note(self.ledger.note._replace(boot=now.boot, clock=seen))

    def lay_out(self, partitions: int, situation: Situation) -> None:
        """The topic has so many partitions now. Raises ``Retriable``, ``Fenced``.

        If it had fewer, another partition's ledger may know commands that belong here from now on: what was
        issued until now is as if it were forgotten. So it is after a version that executed a command on any
        partition.
        """
        note = self.ledger.note
        if partitions == (note.partitions or 1) or self._unheard is not None:
            return
        if note.partitions or len(self.ledger) or self._first_partitions not in (0, partitions):
            now, terms = situation.now.wall, situation.terms
            span = (now - terms.max_age - terms.max_clock_skew, now + terms.max_clock_skew)
            note = note._replace(forgotten=with_times(note.forgotten, [], span))
        self._write_note(note._replace(partitions=partitions))

    def _write_note(self, note: Note, gone: Collection[str] = ()) -> None:
        """What is forgotten and that it is, as one; it counts also where nobody knows if it was written."""
        self.ledger.note = note
        changed = {} if note == self._stored_note else {KEY: note.to_value()}
        self._changelog.write({**dict.fromkeys(gone), **changed})
        self._stored_note = note
