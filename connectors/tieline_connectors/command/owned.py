"""A partition of commands that this task owns: its ledger, durable first, then in memory, then audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tieline.api import Changelog, TopicPartition
from tieline_connectors.command.audit_file import AuditFile
from tieline_connectors.command.command import Result
from tieline_connectors.command.decisions import Now
from tieline_connectors.command.ledger import Entry, Ledger, check_step
from tieline_connectors.command.rules import deadline_of
from tieline_connectors.command.telling import audit_event, records


class Topics(NamedTuple):
    """Where results are told."""

    results: str
    old_results: str


class Decided(NamedTuple):
    """What was decided about records before this offset; ``deadlines`` of the commands accepted."""

    entries: Sequence[Entry]
    results: Sequence[Result]
    offset: int
    deadlines: Mapping[str, int] = {}


class OwnedPartition:
    """Used under the executor's lock. ``deadlines``: until when each command may run, monotonic."""

    def __init__(
        self, at: TopicPartition, changelog: Changelog, audit: AuditFile, topics: Topics, now: Now
    ) -> None:
        """Reads the ledger as the last owner left it. Raises ``ValueError`` on what is no entry."""
        self.at = at
        self.ledger = Ledger(Entry.from_value(value) for value in changelog.entries.values())
        waiting = (entry for entry in self.ledger if entry.state == "RECEIVED")
        self.deadlines = {entry.command_id: deadline_of(entry, now) for entry in waiting}
        self.released = False
        self._changelog = changelog
        self._audit = audit
        self._topics = topics
        self._unaudited: list[Result] = []
        self._unheard: Decided | None = None
        self._taken = -1

    def take(self, decided: Decided) -> None:
        """What ``store`` does, and its errors. After ``Retriable`` nobody knows whether it was told."""
        self._unheard = decided
        self.taken()

    def taken(self) -> int:
        """Of records before this offset all is decided, and durable; -1: of none yet. Raises as ``store``.

        Ask before a record is decided: what ``take`` has perhaps told is repeated first, as it was. A
        second decision could be another one, since clock, kill switch and policy go on.
        """
        if self._unheard is not None:
            entries, results, offset, deadlines = self._unheard
            self._write(entries, results, offset)
            self.deadlines.update(deadlines)
            self._unheard, self._taken = None, offset
        self.audit()
        return self._taken

    def store(self, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        """Entries and what is told of them, as one; then audited, always.

        Raises ``Retriable`` (call again with the same), ``Fenced``, ``OSError`` (the audit log cannot be
        written: the rest is safe, and ``audit`` is to be called before anything else is done).
        """
        self._write(entries, results, None)
        self.audit()

    def _write(self, entries: Sequence[Entry], results: Sequence[Result], offset: int | None) -> None:
        for entry in entries:
            before = self.ledger.get(entry.command_id)
            if before != entry:
                check_step(before, entry)
        told = [record for result in results for record in records(result, *self._topics)]
        self._changelog.write({e.command_id: e.to_value() for e in entries}, told, offset)
        for entry in entries:
            self.ledger.put(entry)
            if entry.state == "ENDED":
                self.deadlines.pop(entry.command_id, None)
        self._unaudited += results

    def audit(self) -> None:
        """Write into the audit log what is not there yet. Raises ``OSError``."""
        if self._unaudited:
            self._audit.append(self._unaudited[-1].at, *map(audit_event, self._unaudited))
            self._unaudited = []

    def forget(self, now: int, retention: int) -> int:
        """Remove what is older than the retention; how many. Raises ``Retriable``, ``Fenced``."""
        gone = self.ledger.forgettable(now, retention)[:1000]
        if gone:
            self._changelog.write(dict.fromkeys(gone))
            self.ledger.forget(gone, now)
        return len(gone)
