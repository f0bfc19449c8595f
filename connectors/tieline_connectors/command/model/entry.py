"""What the sink knows of one command, and which steps are legal; pure.

    RECEIVED ──► STARTED ──► ENDED          a rejection goes to ENDED at once
    (nothing     (it may     (the result
     written)     have been)  is final)

    hold:  NONE ──► HELD ◄─► REVERTING ──► ENDED
                      └──────────┴───────► SKIPPED  (a later command wrote every point)

A hold that could not be reverted is HELD again, with a time for the next try. FAILED exists only in entries
of earlier versions, which gave up.

Each step is durable **before** the action that it announces: STARTED before the write, REVERTING before the
revert. So an entry in STARTED or REVERTING after a crash means "perhaps", and `rules` reads the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from tieline_connectors.command.model.clock import Now
from tieline_connectors.command.model.command import Command, Result

EntryState: TypeAlias = Literal["RECEIVED", "STARTED", "ENDED"]
Hold: TypeAlias = Literal["NONE", "HELD", "REVERTING", "ENDED", "SKIPPED", "FAILED"]

_STEPS: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"RECEIVED", "STARTED", "ENDED"}),
    "RECEIVED": frozenset({"STARTED", "ENDED"}),
    "STARTED": frozenset({"ENDED"}),
    "ENDED": frozenset(),
}
_HOLD_STEPS: Mapping[str, frozenset[str]] = {
    "NONE": frozenset(),  # a hold begins with ENDED, or never
    "HELD": frozenset({"HELD", "REVERTING", "SKIPPED"}),
    "REVERTING": frozenset({"HELD", "ENDED", "SKIPPED"}),
    "ENDED": frozenset(),
    "SKIPPED": frozenset(),
    "FAILED": frozenset(),
}

UNAUTHORIZED_CODES = frozenset({"NOT_ALLOWED", "POLICY_DENIED"})
"""Rejections of issuers without any right, which a rule decides before it requires a signature."""

RESTORED = "RESTORED"
"""The reason of a command that may have been executed after the backup from which its ledger was restored."""


class IllegalStepError(ValueError):
    """A step that the ledger does not allow: a bug in the program, never in a command."""


class LedgerEntry(NamedTuple):
    """What is known of one command; the fields of ``command.LedgerEntry``, with its texts parsed.

    ``deadline``: the command is never executed at this moment or later. It is the earliest of its expiry, its
    issue time plus ``max.age`` and its record's timestamp plus ``max.age``, fixed on arrival. ``stored_at``:
    the number of the ledger's write that stored this step; numbers increase. ``boot``, ``clock``: the clock
    of all its times, which are ``Now.boot`` and ``Now.offset`` on arrival; `clock_time` is the time by that
    clock. ``agent``: the identity of the agent that the write went through. ``hold_tries``: how often its
    points could not be reverted, ``hold_again_at``: when the next try is due, ``hold_paid``: its points that
    are settled.
    """

    command: Command
    digest: str
    state: EntryState
    received_at: int
    deadline: int
    started_at: int | None = None
    ended_at: int | None = None
    result: Result | None = None
    hold: Hold = "NONE"
    hold_until: int | None = None
    reverting_at: int | None = None
    stored_at: int = 0
    agent: str = ""
    hold_tries: int = 0
    hold_again_at: int | None = None
    hold_paid: tuple[str, ...] = ()
    boot: str | None = None
    clock: int | None = None

    def clock_time(self, now: Now) -> int:
        """Return the time now by the clock of its other times, even if the wall clock was set since."""
        if self.clock is not None and self.boot == now.boot:
            return now.monotonic + self.clock
        return now.wall

    @property
    def command_id(self) -> str:
        """The key."""
        return self.command.command_id

    @property
    def is_finished(self) -> bool:
        """Whether the command has ended, and so has its hold."""
        return self.state == "ENDED" and self.hold not in ("HELD", "REVERTING")

    @property
    def is_unauthorized(self) -> bool:
        """Whether it was rejected because no rule allows it, or a rule denies it."""
        return (
            self.started_at is None
            and self.result is not None
            and self.result.reason_code in UNAUTHORIZED_CODES
        )

    @property
    def due_at(self) -> int | None:
        """When it is to be started, expired or reverted; ``None`` if nothing is due."""
        if self.state == "RECEIVED":
            return min(self.deadline, self.command.not_before or self.received_at)
        if self.hold != "HELD":
            return None
        return self.hold_until if self.hold_again_at is None else self.hold_again_at

    @property
    def latest_time(self) -> int:
        """The latest of its times that a worker's clock has set."""
        return max(filter(None, (self.received_at, self.started_at, self.ended_at, self.reverting_at)))

    def to_value(self) -> dict[str, Any]:
        """Return data for the schema ``command.LedgerEntry``."""
        return {
            **self._asdict(),
            "hold_paid": list(self.hold_paid),
            "command_id": self.command_id,
            "command": self.command.to_json(),
            "result": None if self.result is None else self.result.to_json(),
        }

    @staticmethod
    def from_value(value: Mapping[str, Any]) -> LedgerEntry:
        """Return the entry of data of that schema. Raises ``ValueError`` if this version cannot know it."""
        fields = {field: value.get(field) for field in LedgerEntry._fields}
        fields["stored_at"] = fields["stored_at"] or 0
        fields["agent"] = fields["agent"] or ""
        fields["hold_tries"] = fields["hold_tries"] or 0
        fields["hold_paid"] = tuple(fields["hold_paid"] or ())
        if fields["state"] not in _STEPS or fields["hold"] not in _HOLD_STEPS:
            raise ValueError(f"{value.get('command_id')}: the ledger holds a state that is not known here")
        fields["command"] = Command.from_json(value["command"])
        fields["result"] = None if value["result"] is None else Result.from_json(value["result"])
        return LedgerEntry(**cast("dict[str, Any]", fields))


class PendingEntries:
    """The entries of a batch that are decided and not durable yet; a batch is stored in one write."""

    def __init__(self) -> None:
        self.entries: dict[str, LedgerEntry] = {}
        self.unauthorized = 0

    def put(self, entry: LedgerEntry) -> None:
        """Add an entry, or replace the one of the same command."""
        before = self.entries.get(entry.command_id)
        self.unauthorized += entry.is_unauthorized - (before is not None and before.is_unauthorized)
        self.entries[entry.command_id] = entry


def check_step(before: LedgerEntry | None, after: LedgerEntry) -> None:
    """Raise `IllegalStepError` unless the second entry may follow the first."""
    if before is None or (before.is_unauthorized and before.digest != after.digest):  # its id is free
        legal = after.state in _STEPS[None] and after.hold in ("NONE", "HELD")
    elif before.digest != after.digest or before.deadline != after.deadline:
        legal = False
    elif before.state != after.state:
        legal = after.state in _STEPS[before.state] and after.hold in ("NONE", "HELD")
    else:
        same_result = before.result == after.result and before.started_at == after.started_at
        legal = after.state == "ENDED" and same_result and after.hold in _HOLD_STEPS[before.hold]
    if not legal or (after.state == "ENDED") != (after.result is not None):
        shown = "nothing" if before is None else f"{before.state}/{before.hold}"
        raise IllegalStepError(f"{after.command_id}: {shown} → {after.state}/{after.hold}")
