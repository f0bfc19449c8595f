"""The checks that several decisions share: clock, deadline, policy, kill switch; pure."""

from __future__ import annotations

from tieline_connectors.command.model.clock import CLOCK_STEP, Now
from tieline_connectors.command.model.command import Command, digest, is_signed_by
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.facts import PolicyContext, Rejection
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.rules.decisions import Conditions, Readings, Wait

_UNTIL = "commands wait until it is set back, or has been stable for clock.believe.ms"
_CLOCK_FIX = "confirm it with tieline command clock trust AUDIT_FILE"


def new_entry(command: Command, deadline: int, now: Now) -> LedgerEntry:
    """Return the entry of a command that has just arrived."""
    boot, clock = (now.boot, now.offset) if now.boot else (None, None)
    return LedgerEntry(command, digest(command), "RECEIVED", now.wall, deadline, boot=boot, clock=clock)


def monotonic_deadline(entry: LedgerEntry, now: Now) -> int:
    """Return when an entry expires by the monotonic clock: a clock that is set back gains no time."""
    return now.monotonic + entry.deadline - entry.clock_time(now)


def clock_doubt(ledger: CommandLedger, conditions: Conditions) -> Wait | None:
    """Return why the clock is not trusted.

    A clock that is behind what has already happened would execute commands that expired long ago.
    """
    now, settings = conditions.now, conditions.settings
    if now.doubt:
        return Wait("CLOCK_UNTRUSTED", f"{now.doubt}; {_UNTIL}")
    if now.wall < settings.built_at:
        return Wait("CLOCK_UNTRUSTED", "the clock is earlier than the day this version was built; set it")
    if now.wall + CLOCK_STEP < ledger.latest_time and not now.confirmed:
        message = "the clock is earlier than the newest entry of the ledger; set it, or"
        return Wait("CLOCK_UNTRUSTED", f"{message}, if it is right now, {_CLOCK_FIX}")
    return None


def check_policy(
    entry: LedgerEntry, ledger: CommandLedger, conditions: Conditions, readings: Readings | None
) -> Rejection | None:
    """Return why the policy does not allow a command now; ``None`` if it does."""
    keys = conditions.keys
    if conditions.settings.signed_destination_required and None in (
        entry.command.topic,
        entry.command.platform,
    ):
        keys = {}
    signed_with = frozenset(name for name, key in keys.items() if is_signed_by(entry.command, key))
    context = PolicyContext(conditions.now.wall, ledger, readings, signed_with)
    return conditions.policy.rejection(entry.command, context)


def check_kill_switch(conditions: Conditions) -> Rejection | None:
    """Return the rejection of every command while the kill switch is engaged; ``None`` if it is not."""
    why = conditions.killed
    if why is None:
        return None
    return Rejection("KILL_SWITCH", f"the kill switch is engaged{': ' * bool(why)}{why}")


def expiry_reason(entry: LedgerEntry, conditions: Conditions) -> tuple[str, str]:
    """Return code and reason of a command that has expired."""
    now, command = conditions.now.wall, entry.command
    if now < command.expires_at:
        if now >= min(entry.deadline, command.issued_at + conditions.settings.max_age):
            return "MAX_AGE", "it is older than max.age, and was not executed"
        if entry.started_at is not None:
            return "TOO_SLOW", "the worker was suspended between its claim and the write, and did not write"
    return "EXPIRED", "it expired before it could be executed"
