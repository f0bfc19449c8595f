"""A partition of commands that this task owns: a decision is audited, then durable, then in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tieline.api import Changelog, TopicPartition
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.model.clock import Now
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.entry import LedgerEntry, check_step
from tieline_connectors.command.model.ledger import CommandLedger, Retention
from tieline_connectors.command.model.partition_note import KEY, PartitionNote, add_times
from tieline_connectors.command.model.result_records import (
    audit_event,
    audit_reverting,
    audit_takeover,
    to_records,
)
from tieline_connectors.command.rules import restored
from tieline_connectors.command.rules.checks import monotonic_deadline
from tieline_connectors.command.rules.decisions import Conditions

_MAX_REMOVED = 1000


class ResultTopics(NamedTuple):
    """The topics that results are written to; an empty name: no such topic."""

    results: str
    old_results: str


class Clock(Protocol):
    """The believed time; `wall_clock.WallClock` implements it."""

    def now(self) -> Now:
        """Return the moment."""

    def restore(self, ledger: CommandLedger) -> Now:
        """Return the moment, after learning what a ledger knows of this computer's clock."""


@dataclass(eq=False)
class LedgerWrite:
    """Decisions to store together: pass the same object to `CommandPartition.store` until it is stored.

    ``offset``: all records before it are decided once this is stored. ``deadlines``: those of the commands
    that it accepts. ``note``: the ledger's note at the first attempt, ``None`` if it is stored already.
    """

    entries: Sequence[LedgerEntry]
    results: Sequence[Result]
    offset: int | None = None
    deadlines: Mapping[str, int] = field(default_factory=dict)
    note: PartitionNote | None = None
    audited: bool = False
    stored: bool = False


class CommandPartition:
    """Audits and stores decisions. Used under the scheduler's lock.

    ``deadlines``: until when each command may run, by the monotonic clock.

    The audit log is written first, so that nothing is stored, reported or done without being audited. A
    worker may die between the audit line and the ledger's write. The numbers show this: each write has a
    ``stored_at``, on its entries and on its audit lines, and the next owner's line TAKEN_OVER names the last
    one that the ledger has.
    """

    def __init__(
        self,
        topic_partition: TopicPartition,
        changelog: Changelog,
        audit: AuditFile,
        topics: ResultTopics,
        clock: Clock,
    ) -> None:
        """Read the ledger as the last owner left it. Raises ``ValueError`` if a value is not an entry."""
        self.topic_partition = topic_partition
        values = dict(changelog.entries)
        note = PartitionNote.from_value(values.pop(KEY, None))
        self._stored_note = note
        self.ledger = CommandLedger(map(LedgerEntry.from_value, values.values()), clock.now(), note)
        now = clock.restore(self.ledger)
        self.ledger.update_clock(now)
        received = (entry for entry in self.ledger if entry.state == "RECEIVED")
        self.deadlines = {entry.command_id: monotonic_deadline(entry, now) for entry in received}
        self.released = False
        self._changelog = changelog
        self._first_partitions = changelog.first_partitions
        self._restored_at = changelog.restored_at
        if self._is_restored():  # before anything is executed; the note is stored later
            self.ledger.note = restored.mark_uncertain(self.ledger)
        self._audit = audit
        self._topics = topics
        self._name = f"{topic_partition.topic}-{topic_partition.partition}"
        self._takeover_lines = [audit_takeover(self._name, self.ledger.stored_at)]
        self._unconfirmed: LedgerWrite | None = None
        self._stored_offset = -1

    def stored_offset(self) -> int:
        """Return the offset before which every record is decided and stored; -1 before the first.

        Call it before a record is decided: a write whose outcome is unknown is first repeated unchanged. A
        second decision could differ, since clock, kill switch and policy may have changed. Raises as `store`.
        """
        self._finish_write()
        return self._stored_offset

    def store(self, write: LedgerWrite) -> None:
        """Store entries, results and offset together, after the audit log has them on disk.

        Raises ``RetriableError`` if it is unknown whether they are stored; until they are, nothing else is
        stored. Raises ``OSError`` if the audit log cannot be written; then nothing was stored. Raises
        ``FencedError`` if another task owns the partition.
        """
        self._finish_write()
        if not write.stored:
            self._unconfirmed = write
            self._finish_write()

    def _finish_write(self) -> None:
        write = self._unconfirmed
        if write is None:
            return
        if not write.audited:
            self._audit_write(write)
            write.note = self.ledger.note if self.ledger.note != self._stored_note else None
        results = [record for result in write.results for record in to_records(result, *self._topics)]
        entries = {entry.command_id: entry.to_value() for entry in write.entries}
        if write.note is not None:
            entries[KEY] = write.note.to_value()
        self._changelog.write(entries, results, write.offset)
        self._stored_note = write.note or self._stored_note
        for entry in write.entries:
            self.ledger.put(entry)
            if entry.state == "ENDED":
                self.deadlines.pop(entry.command_id, None)
        self.deadlines.update(write.deadlines)
        if write.offset is not None:
            self._stored_offset = write.offset
        write.stored, self._unconfirmed = True, None

    def _audit_write(self, write: LedgerWrite) -> None:
        """Number the write, and append all of it to the audit log."""
        new = [entry for entry in write.entries if entry != self.ledger.get(entry.command_id)]
        for entry in new:
            check_step(self.ledger.get(entry.command_id), entry)
        number = max([self.ledger.stored_at + 1, *(entry.latest_time for entry in new)]) if new else None
        if number is not None:
            ids = {entry.command_id for entry in new}
            write.entries = [
                entry._replace(stored_at=number) if entry.command_id in ids else entry
                for entry in write.entries
            ]
        lines = [audit_event(result, self._name, number) for result in write.results]
        lines += [audit_reverting(e, self._name, number) for e in write.entries if e.hold == "REVERTING"]
        times = [result.at for result in write.results] + [entry.latest_time for entry in write.entries]
        if lines:
            self._audit.append(max(times, default=0), *self._takeover_lines, *lines)
            self._takeover_lines = []
        write.audited = True

    def update_head(self) -> None:
        """Update the head file beside the audit log, if that is due."""
        self._audit.update_head()

    def remove_old(self, now: int, retention: Retention) -> int:
        """Remove entries older than the retention; return how many.

        Raises ``RetriableError`` and ``FencedError``.
        """
        removed = self.ledger.removable(now, retention)[:_MAX_REMOVED]
        if removed and self._unconfirmed is None:
            self._write_note(self.ledger.note_after_removal(removed), removed)
            self.ledger.remove(removed, now)
        return len(removed)

    def update_clock(self, now: Now) -> None:
        """Count times by the clock that is believed now, and store that clock if it is not stored.

        Call it before the first decision after a takeover: the next owner then starts from this clock, even
        if the wall clock is set in between. If this write fails, the next one includes the clock, so that no
        step of a command is durable without the clock that decided it. Raises ``RetriableError`` and
        ``FencedError``.
        """
        self.ledger.update_clock(now)
        self.ledger.note = self.ledger.note_with_clock(now)
        if self.ledger.note != self._stored_note and self._unconfirmed is None:
            self._write_note(self.ledger.note)

    def note_restore(self, conditions: Conditions) -> None:
        """If the ledger was restored from a backup, let commands issued until now count as forgotten.

        Call it before the first decision. In doubt about the clock it does nothing; nothing is decided then
        either. Raises ``RetriableError`` and ``FencedError``.
        """
        if self._is_restored() and self._unconfirmed is None:
            note = restored.note_restore(self.ledger, self._restored_at, conditions)
            if isinstance(note, PartitionNote):
                self._write_note(note)

    def _is_restored(self) -> bool:
        return self._restored_at not in (0, self.ledger.note.restored_at)

    def note_partition_count(self, partitions: int, conditions: Conditions) -> None:
        """Note how many partitions the topic has. Raises ``RetriableError`` and ``FencedError``.

        If it had another number before, another partition's ledger may know commands that belong here from
        now on. Commands issued until now then count as forgotten. The same holds after a version that
        executed a command on any partition.
        """
        note = self.ledger.note
        if partitions == (note.partitions or 1) or self._unconfirmed is not None:
            return
        if note.partitions or len(self.ledger) or self._first_partitions not in (0, partitions):
            now, settings = conditions.now.wall, conditions.settings
            span = (now - settings.max_age - settings.max_clock_skew, now + settings.max_clock_skew)
            note = note._replace(forgotten=add_times(note.forgotten, [], span))
        self._write_note(note._replace(partitions=partitions))

    def _write_note(self, note: PartitionNote, removed: Collection[str] = ()) -> None:
        """Store the removals and the note together.

        The note counts from now on, also if it is unknown whether it was stored.
        """
        self.ledger.note = note
        changed = {} if note == self._stored_note else {KEY: note.to_value()}
        self._changelog.write({**dict.fromkeys(removed), **changed})
        self._stored_note = note
