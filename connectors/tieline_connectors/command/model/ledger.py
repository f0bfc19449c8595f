"""The entries of one partition of commands in memory, indexed for the questions of rules and policy; pure.

`entry` has the entry of one command and its legal steps.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tieline_connectors.command.model.clock import CLOCK_STEP, BelievedClock, Now
from tieline_connectors.command.model.command import Value
from tieline_connectors.command.model.entry import RESTORED, LedgerEntry, check_step
from tieline_connectors.command.model.partition_note import PartitionNote, add_times
from tieline_connectors.command.model.point import key_of
from tieline_connectors.command.model.streaks import Streak, Streaks

_DAY = 86_400_000_000


class Retention(NamedTuple):
    """How long entries are kept, in microseconds.

    ``unauthorized``: those rejected because no rule allows them. They are kept for as long as the same
    command could still be executed if a rule came that allows it; after that it is EXPIRED in any case.
    """

    commands: int
    unauthorized: int


class PastWrite(NamedTuple):
    """A point was, or may have been, written. ``value`` is ``None`` if the point was reverted."""

    at: int
    command_id: str
    value: Value
    previous: Value = None


class CommandLedger:
    """The entries of one partition of commands. Used by one thread.

    It compares times of entries that were written by different clocks. Times written since the computer was
    started count by the time that is believed now (`update_clock`), the others unchanged.

    ``latest_time``: the latest time of all entries; ``stored_at``: the number of the latest write.
    ``unauthorized``: how many entries are rejections of issuers without any right. ``waiting``: how many
    commands of each issuer have arrived and not started.
    """

    def __init__(
        self, entries: Iterable[LedgerEntry] = (), now: Now | None = None, note: PartitionNote | None = None
    ) -> None:
        """``entries``: what the durable ledger holds, the latest of each command."""
        self.note = note or PartitionNote()
        self._boot, self._offset = (now.boot, now.offset) if now is not None else ("", 0)
        self._confirmed_at: int | None = None
        self.latest_time = self.stored_at = self.unauthorized = 0
        self.streaks = Streaks()
        self.waiting: Counter[str] = Counter()
        self._entries: dict[str, LedgerEntry] = {}
        self._clocks: dict[str, BelievedClock] = {}
        self._due: list[tuple[int, str]] = []
        self._unfinished: dict[str, None] = {}
        self._events: dict[str, list[tuple[int, str, bool]]] = {}
        self._starts: dict[tuple[str, str], list[int]] = {}
        for entry in entries:
            self._add(entry)

    def update_clock(self, now: Now) -> None:
        """Count the times of all entries again if the believed time was set, or has been confirmed."""
        ahead = now.confirmed and self.latest_time > now.wall + CLOCK_STEP
        was_set = (self._boot, True) != (now.boot, abs(self._offset - now.offset) <= CLOCK_STEP // 4)
        if was_set or ahead:
            self._boot, self._offset = now.boot, now.offset
            self._confirmed_at = now.wall if now.confirmed else None
            self._rebuild()

    def time_shift(self, entry: LedgerEntry) -> int:
        """Return what to add to the times of an entry, so that they can be compared with the time now.

        An entry of an earlier boot, or of another computer, that is ahead of a confirmed time was written by
        a wrong clock.
        """
        if entry.clock is not None and entry.boot and entry.boot == self._boot:
            return self._offset - entry.clock
        return 0 if self._confirmed_at is None else min(0, self._confirmed_at - entry.latest_time)

    def last_clock(self, boot: str) -> BelievedClock | None:
        """Return the clock that was last believed within this boot, as far as the ledger knows.

        The note has it if this version owned the partition within that boot. Entries of earlier versions have
        it, too.
        """
        if boot and self.note.boot == boot and self.note.clock is not None:
            return self.note.clock
        clock = self._clocks.get(boot)
        # An entry that was received before the boot and started after it has a time from before the boot.
        return clock if clock is not None and clock.at >= 0 else None

    def note_with_clock(self, now: Now) -> PartitionNote:
        """Return the note to store so that the next owner knows this clock: the same one if it has it."""
        clock, noted = now.clock_to_store, self.note.clock
        is_noted = (
            self.note.boot == now.boot
            and noted is not None
            and abs(noted.offset - clock.offset) <= CLOCK_STEP // 2
        )
        return self.note if is_noted or not now.boot else self.note._replace(boot=now.boot, clock=clock)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(self._entries.values())

    def get(self, command_id: str) -> LedgerEntry | None:
        """Return the entry of a command, ``None`` if there is none."""
        return self._entries.get(command_id)

    def put(self, entry: LedgerEntry) -> None:
        """Add an entry that is durable now. Raises `IllegalStepError`."""
        before = self._entries.get(entry.command_id)
        if entry != before:
            check_step(before, entry)
            self._add(entry)

    def due(self, now: int) -> list[LedgerEntry]:
        """Return what has to be started, expired or reverted by now, the longest due first."""
        until = bisect.bisect_right(self._due, (now, "\U0010ffff"))
        return [self._entries[id_] for _, id_ in self._due[:until]]

    def next_due(self) -> int | None:
        """Return when the next entry is due; ``None`` if nothing waits."""
        return self._due[0][0] if self._due else None

    def unfinished(self) -> list[LedgerEntry]:
        """Return those in STARTED or REVERTING: after a restart it is unknown whether they were executed."""
        return [self._entries[id_] for id_ in self._unfinished]

    def held(self) -> list[LedgerEntry]:
        """Return those whose hold has not ended, the ones that are being reverted first."""
        reverting = [entry for entry in self.unfinished() if entry.hold == "REVERTING"]
        waiting = (self._entries[id_] for _, id_ in self._due)
        return reverting + [entry for entry in waiting if entry.hold == "HELD"]

    def writes(self, point: str, since: int) -> list[PastWrite]:
        """Return the known and possible writes of a point, newest first.

        These are all writes since then, and the one before, whose value was in force then.
        """
        writes: list[PastWrite] = []
        for written_at, command_id, is_revert in reversed(self._events.get(key_of(point), [])):
            write = self._past_write(written_at, command_id, is_revert, key_of(point))
            if write is not None:
                writes.append(write)
                if written_at < since:
                    break
        return writes

    def written_after(self, entry: LedgerEntry, point: str) -> bool:
        """Return whether a later command wrote the point, or may have; reverts of holds do not count."""
        key, since = key_of(point), (entry.started_at or 0) + self.time_shift(entry)
        events = self._events.get(key, [])
        later = events[bisect.bisect_right(events, (since, "\U0010ffff", True)) :]
        return any(
            not is_revert and self._past_write(written_at, id_, False, key)
            for written_at, id_, is_revert in later
        )

    def count_starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """Return how many commands were started after then: in all, of an issuer, or on a device."""
        key = ("device", key_of(device)) if device else ("issuer", issuer)
        times = self._starts.get(key, [])
        return len(times) - bisect.bisect_right(times, since)

    def streak(self, device: str) -> Streak:
        """Return how many of the last commands of a device have failed."""
        return self.streaks.get(device)

    def removable(self, now: int, retention: Retention) -> list[str]:
        """Return the commands whose entries may be removed: finished for longer than the retention.

        The retention is longer than ``max.age``. An entry stays if it wrote, after an older command, a point
        that the older one still holds: because of it that hold ends without a revert.
        """
        before, before_unauthorized = now - retention.commands, now - retention.unauthorized
        held: dict[str, int] = {}
        for entry in self.held():
            for write in entry.command.writes:
                since = (entry.started_at or 0) + self.time_shift(entry)
                held[key_of(write.point)] = min(since, held.get(key_of(write.point), since))
        return [
            entry.command_id
            for entry in self
            if entry.is_finished
            and entry.latest_time + self.time_shift(entry)
            <= (before_unauthorized if entry.is_unauthorized else before)
            and not (held and self._may_have_written_after(entry, held))
        ]

    def note_after_removal(self, command_ids: Iterable[str]) -> PartitionNote:
        """Return the note to store with the removal of these entries.

        An unauthorized command was never started; its issue time must not block other commands.
        """
        removed = (self._entries[id_] for id_ in command_ids)
        times = [entry.command.issued_at for entry in removed if not entry.is_unauthorized]
        return self.note._replace(forgotten=add_times(self.note.forgotten, times))

    def remove(self, command_ids: Iterable[str], now: int) -> None:
        """Remove these entries, which the durable ledger no longer has."""
        removed = {id_ for id_ in command_ids if self._entries[id_].is_finished}
        self.unauthorized -= sum(self._entries[id_].is_unauthorized for id_ in removed)
        for id_ in removed:
            del self._entries[id_]
        self.streaks.remove(removed)
        for point, events in list(self._events.items()):
            self._events[point] = [event for event in events if event[1] not in removed]
            if not self._events[point]:
                del self._events[point]
        for key, times in list(self._starts.items()):
            del times[: bisect.bisect_right(times, now - _DAY)]
            if not times:
                del self._starts[key]

    def _rebuild(self) -> None:
        entries = list(self._entries.values())
        self.latest_time = self.stored_at = self.unauthorized = 0
        self.streaks = Streaks()
        for index in (
            *(self.waiting, self._entries, self._clocks, self._due),
            *(self._unfinished, self._events, self._starts),
        ):
            index.clear()
        for entry in entries:
            self._add(entry)

    def _add(self, entry: LedgerEntry) -> None:
        before = self._entries.get(entry.command_id)
        self._entries[entry.command_id] = entry
        self.unauthorized += entry.is_unauthorized - (before is not None and before.is_unauthorized)
        self._add_times(entry)
        if entry.clock is not None and entry.boot:
            clock = BelievedClock(entry.clock, entry.received_at - entry.clock)
            known = self._clocks.setdefault(entry.boot, clock)
            self._clocks[entry.boot] = max(known, clock, key=lambda candidate: candidate.at)
        self._add_due(before, entry)
        self._unfinished.pop(entry.command_id, None)
        if entry.state == "STARTED" or entry.hold == "REVERTING":
            self._unfinished[entry.command_id] = None
        self._add_history(before, entry)

    def _add_times(self, entry: LedgerEntry) -> None:
        shift = self.time_shift(entry)
        newest = entry._replace(ended_at=None).latest_time + shift
        self.latest_time = max(self.latest_time, newest, self._ended_at(entry) or 0)
        self.stored_at = max(self.stored_at, entry.stored_at)

    def _ended_at(self, entry: LedgerEntry) -> int | None:
        """``ended_at`` is by the clock that was believed then, perhaps a later one: never beyond that."""
        return None if entry.ended_at is None else entry.ended_at + min(self.time_shift(entry), 0)

    def _add_due(self, before: LedgerEntry | None, entry: LedgerEntry) -> None:
        if before is not None and before.due_at is not None:
            due_at = before.due_at + self.time_shift(before)
            del self._due[bisect.bisect_left(self._due, (due_at, before.command_id))]
        if entry.due_at is not None:
            bisect.insort(self._due, (entry.due_at + self.time_shift(entry), entry.command_id))
        if before is not None and before.state == "RECEIVED":
            self.waiting[before.command.issuer] -= 1
        if entry.state == "RECEIVED":
            self.waiting[entry.command.issuer] += 1

    def _add_history(self, before: LedgerEntry | None, entry: LedgerEntry) -> None:
        shift = self.time_shift(entry)
        if entry.started_at is not None:
            started_at = entry.started_at + shift
            if before is None or before.started_at is None:
                self._add_event(entry, started_at, is_revert=False)
                self._add_start(entry, started_at)
            if entry.result is not None and (before is None or before.result is None):
                self.streaks.add(entry.result, self._ended_at(entry) or started_at)
        if entry.reverting_at is not None and (before is None or before.reverting_at is None):
            self._add_event(entry, entry.reverting_at + shift, is_revert=True)

    def _add_start(self, entry: LedgerEntry, started_at: int) -> None:
        for key in (("issuer", ""), ("issuer", entry.command.issuer)):
            bisect.insort(self._starts.setdefault(key, []), started_at)
        for device in entry.command.devices:
            bisect.insort(self._starts.setdefault(("device", device), []), started_at)

    def _add_event(self, entry: LedgerEntry, written_at: int, *, is_revert: bool) -> None:
        for write in entry.command.writes:
            events = self._events.setdefault(key_of(write.point), [])
            bisect.insort(events, (written_at, entry.command_id, is_revert))

    def _may_have_written_after(self, entry: LedgerEntry, since: Mapping[str, int]) -> bool:
        """Return whether a command may have written one of these points after that moment."""
        if entry.started_at is None:
            return False
        started_at = entry.started_at + self.time_shift(entry)
        points = (key_of(write.point) for write in entry.command.writes)
        return any(started_at >= since[point] for point in points if point in since)

    def _past_write(self, written_at: int, command_id: str, is_revert: bool, point: str) -> PastWrite | None:
        entry = self._entries[command_id]
        if entry.result is None:
            value = next(w.value for w in entry.command.writes if key_of(w.point) == point)
            return PastWrite(written_at, command_id, value)
        if entry.result.reason_code == RESTORED and not is_revert:
            return None  # when it was written, if ever, is unknown
        for write in entry.result.writes:
            if key_of(write.point) == point and write.maybe_written:
                value = None if is_revert else write.requested
                return PastWrite(written_at, command_id, value, write.previous)
        return None
