"""What happens to a command, and why: all decisions of the command sink, and nothing else.

No function here waits, reads a clock or speaks to a device. Each is told what is known and answers what
is to be done. `executor` does it; the order of a command's life is the order of this file:

    arrived ► to_start ► last_look ► the write ► outcome      after a crash in STARTED: after_crash

The end of a hold is in `holds`.

| code | state | what it means |
|---|---|---|
| `CLOCK_UNTRUSTED` | none, it waits | the worker's clock was set, or is behind what has already happened |
| `WRONG_PLACE` | REJECTED | on another partition than its devices', or meant for another topic or platform |
| `MALFORMED` | REJECTED | it is no command: the sentence says which field is wrong |
| `CONFLICT` | REJECTED | another command came with the same id before |
| `EXPIRED` | EXPIRED | it came, or its turn came, at its expiry or later |
| `TOO_SLOW` | EXPIRED | the worker stood still between its claim and the write, and did not write |
| `MAX_AGE` | EXPIRED | older than `max.age`, by its time of issue or by its record's timestamp |
| `CLOCK_SKEW` | REJECTED | issued in the future, by more than `max.clock.skew` |
| `NEVER_DUE` | REJECTED | `not_before` lies at or behind the moment when it expires |
| `FORGOTTEN` | REJECTED | issued when commands were that the ledger has forgotten; it may be one of them |
| `KILL_SWITCH` | REJECTED | the kill switch is engaged |
| `SIGNATURE` | REJECTED | the signature that its rule asks for is missing or wrong |
| `NOT_ALLOWED` | REJECTED | no rule of the policy allows it |
| `POLICY_DENIED` | REJECTED | a rule of the policy denies it |
| `POLICY_PRIORITY` | REJECTED | a higher priority than the issuer may use |
| `POLICY_REASON` | REJECTED | a reason is required |
| `POLICY_HOLD` | REJECTED | a hold is required, or a shorter one |
| `POLICY_TYPE` | REJECTED | not the type of value that the point takes |
| `POLICY_VALUES` | REJECTED | none of the values that are allowed |
| `POLICY_MIN` | REJECTED | below what is allowed |
| `POLICY_MAX` | REJECTED | above what is allowed |
| `POLICY_STEP` | REJECTED | between two steps |
| `POLICY_TOLERANCE` | REJECTED | a wider tolerance for the reading back than its rule allows |
| `POLICY_DWELL` | REJECTED | too soon after the last write of the point |
| `POLICY_MAX_CHANGE` | REJECTED | too far from what the point has just been, or that cannot be read |
| `CIRCUIT_OPEN` | REJECTED | the last commands of the device have failed; it is left alone for a while |
| `RATE_LIMIT` | REJECTED | too many commands in too short a time |
| `TOO_MANY_WAIT` | REJECTED | `max.waiting` commands wait already, or half of it from this issuer alone |
| `DRY_RUN` | SUCCEEDED | everything was checked, nothing was written |
| `NOT_COMPARED` | SUCCEEDED | given back as asked; there is no value to compare with |
| `PROVED_BY_READ_BACK` | SUCCEEDED | no answer came, or the worker died; the device holds the value |
| `MAYBE_LATE` | SUCCEEDED | the device holds the value; it was written in time or late: the proof came late |
| `READ_BACK_DIFFERS` | MISMATCH | written, and the device holds another value |
| `DEVICE_REFUSED` | FAILED | the device refused; what was written before it was given back |
| `NOT_SENT` | FAILED | the platform could not be reached; what was written before it was given back |
| `REVERT_FAILED` | UNKNOWN | a part was written, and could not be given back |
| `NO_ANSWER` | UNKNOWN | no answer came, and reading back proves nothing |
| `NOT_READ_BACK` | UNKNOWN | the device took it, and could not be read afterwards |
| `CRASHED` | UNKNOWN | the worker died while it was written, and reading back proves nothing |
| `STOPPED` | HOLD_ENDED | given back before its time, because the worker was stopped |
| `LATER_COMMAND` | HOLD_SKIPPED | a later command wrote the points; they are left as they are |
| `FORGIVEN` | HOLD_SKIPPED | an operator named the command in `hold.forgive`; the points stay as they are |
| `HOLD_REVERT_FAILED` | HOLD_FAILED | alarm: a point could not be given back yet; it is tried until it is |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tieline.api import TopicPartition, partition_of
from tieline_connectors.command.model.clock import CLOCK_STEP
from tieline_connectors.command.model.command import Command, Result, Write, digest, signed_by
from tieline_connectors.command.model.facts import Facts, Refusal
from tieline_connectors.command.model.ledger import STRANGERS, CommandLedger, Entry, Pending
from tieline_connectors.command.model.parsing import Malformed
from tieline_connectors.command.rules.decisions import (
    Accept,
    Answer,
    Call,
    End,
    Known,
    NotYet,
    Now,
    Readings,
    Situation,
    Start,
    Wait,
)
from tieline_connectors.command.rules.results import ended, ended_with, refused, result_of
from tieline_connectors.command.rules.verdict import proved, verdict, written

MOST_STRANGERS = 1000
"""Refusals that a partition keeps of those whom no rule allows anything; `ledger.Retention` says how long."""

SMALL = 2000
"""Characters of a command; a larger one of a stranger is answered and not kept."""

_UNTIL = "nothing is begun until it is back, or has stood for clock.believe.ms"
_WAY_OUT = "say so with tieline command clock trust AUDIT_FILE"
_FORGOTTEN = Refusal(
    "FORGOTTEN",
    "commands of its time of issue were forgotten, and this may be one of them; send it again under a new id",
)

# It comes.


def misplaced(command: Command, at: TopicPartition, partitions: int, platform: str) -> Refusal | None:
    """Why a command does not belong where it was read; none: it does. A copy of it elsewhere is not executed.

    Its place is that of its devices (`Write.place`), which is one among so many ``partitions``. Limits and
    holds of a point are known to the ledger of its place alone.
    """
    for what, named, here in (("topic", command.topic, at.topic), ("platform", command.platform, platform)):
        if named is not None and named != here:
            told = f"it is for the {what} {named}, and came to {here}; it was copied, or sent to a wrong one"
            return Refusal("WRONG_PLACE", told)
    if partitions == 1:
        return None
    device = command.writes[0].place
    right = partition_of(device.encode(), partitions)
    for other in (write.place for write in command.writes):
        if partition_of(other.encode(), partitions) != right:
            told = f"{other} belongs to another partition of {at.topic} than {device}, and so do its limits"
            return Refusal("WRONG_PLACE", f"{told} and holds; send a command for each")
    if right != at.partition:
        told = f"{device} belongs to partition {right} of {at.topic}, and it came to {at.partition}"
        way_out = (
            "key it by the device, with Kafka's own partitioner (librdkafka: partitioner=murmur2_random)"
        )
        return Refusal("WRONG_PLACE", f"{told}; {way_out}, and send it again")
    return None


def arrived(
    command: Command,
    record_at: int | None,
    ledger: CommandLedger,
    situation: Situation,
    elsewhere: Refusal | None = None,
    pending: Pending | None = None,
) -> Wait | Known | Answer | End | Accept:
    """A record with a command has come; ``record_at`` is its timestamp, microseconds.

    ``elsewhere``: why it does not belong here (`misplaced`). ``pending``: what is decided of those before it.

    Whoever wrote the record chose its timestamp: it judges this record, and nothing beside it.
    """
    now = situation.now.wall
    doubt = clock_doubt(ledger, situation)
    if doubt is not None:
        return doubt
    deadline = min(
        command.expires_at,
        command.issued_at + situation.terms.max_age,
        *([] if record_at is None else [record_at + situation.terms.max_age]),
    )
    entry = _received(command, deadline, situation.now)
    pending = pending or Pending()
    known = pending.entries.get(command.command_id) or ledger.get(command.command_id)
    if known is not None and not (known.is_strangers and known.digest != entry.digest):
        return _known_already(command, known, now)
    if elsewhere is not None:
        return Answer(refused(entry, elsewhere, now).result)
    denied = _denied(entry, ledger, situation, None)
    if denied is not None and denied.code in ("SIGNATURE", *STRANGERS):
        if known is not None:
            return _known_already(command, known, now)
        end = refused(entry, denied, now)
        kept = _is_kept(end, ledger.strangers + pending.strangers)
        return end if kept else Answer(end.result)
    # From here on it is somebody's whose command a stranger's with the same id must not make a conflict.
    if max(now, situation.now.before) >= deadline:
        return ended(entry, "EXPIRED", *_why_expired(entry, situation), now)
    refusal = _impossible(entry, situation) or _killed(situation) or denied
    if refusal is not None:
        return refused(entry, refusal, now)
    if ledger.note.has_forgotten(command.issued_at):
        return Answer(refused(entry, _FORGOTTEN, now).result)
    accepted = result_of(entry, "ACCEPTED", "", "", now)
    return Accept(entry, accepted, deadline_of(entry, situation.now))


def _received(command: Command, deadline: int, now: Now) -> Entry:
    known = (now.boot, now.offset) if now.boot else (None, None)
    return Entry(command, digest(command), "RECEIVED", now.wall, deadline, boot=known[0], clock=known[1])


def _is_kept(end: End, strangers: int) -> bool:
    """Whether a stranger's refusal goes into the ledger, so that it is told again as it was.

    Who cannot sign must not use up the id of a command that somebody will sign. And who may do nothing
    must not fill the ledger: so many small ones at a time; what is not kept is refused anew if it comes
    again. So a stranger is told that, whatever else is wrong (an expiry, the kill switch).
    """
    small = len(end.entry.command.to_json()) <= SMALL
    return end.entry.is_strangers and strangers < MOST_STRANGERS and small


def malformed(error: Malformed, record_id: str, raw: bytes | None, now: int) -> Answer:
    """A record that holds no command; ``record_id`` (topic id, partition, offset) where it has no id.

    It is told and not kept: what is no command never becomes one, and must not use up the id of one.
    """
    return Answer(
        Result(
            error.command_id or record_id,
            "REJECTED",
            now,
            error.correlation_id,
            error.issuer,
            "MALFORMED",
            str(error),
            received_at=now,
            raw=raw,
        )
    )


def clock_doubt(ledger: CommandLedger, situation: Situation) -> Wait | None:
    """A clock that is behind what has already happened would execute what expired long ago."""
    now, terms = situation.now, situation.terms
    if now.doubt:
        return Wait("CLOCK_UNTRUSTED", f"{now.doubt}; {_UNTIL}")
    if now.wall < terms.built_at:
        return Wait("CLOCK_UNTRUSTED", "the clock is earlier than the day this version was built; set it")
    if now.wall + CLOCK_STEP < ledger.newest and not now.vouched:
        told = "the clock is earlier than the newest entry of the ledger; set it, or"
        return Wait("CLOCK_UNTRUSTED", f"{told}, if it is right now, {_WAY_OUT}")
    return None


def too_many(entry: Entry, waiting: Counter[str], most: int) -> Refusal | None:
    """Refuse what would wait behind too many: a partition is never held up by what fills it.

    ``waiting``: how many commands of each issuer have come and not begun. One issuer may fill half of the
    places (at least one), so that the others still have some.
    """
    own = waiting[entry.command.issuer]
    if own >= max(1, most // 2):
        told = f"{own} commands of this issuer wait already, half of max.waiting ({most}); send it later"
        return Refusal("TOO_MANY_WAIT", told)
    if waiting.total() >= most:
        return Refusal("TOO_MANY_WAIT", f"{most} commands wait already (max.waiting); send it later")
    return None


def deadline_of(entry: Entry, now: Now) -> int:
    """When it expires by the monotonic clock: fixed once, so that a clock set back wins no time."""
    return now.monotonic + entry.deadline - entry.at(now)


def _known_already(command: Command, known: Entry, now: int) -> Known | Answer:
    if known.digest != digest(command):
        told = f"another command with the id {command.command_id} came before; use a new id for a new command"
        conflict = Entry(command, digest(command), "RECEIVED", now, command.expires_at)
        return Answer(result_of(conflict, "REJECTED", "CONFLICT", told, now))
    return Known(known) if known.result is None else Answer(known.result, known=True)


def _impossible(entry: Entry, situation: Situation) -> Refusal | None:
    command, terms = entry.command, situation.terms
    ahead = command.issued_at - situation.now.wall
    if ahead > terms.max_clock_skew:
        told = (
            f"it was issued {_seconds(ahead)} in the future (max.clock.skew {_seconds(terms.max_clock_skew)})"
        )
        return Refusal("CLOCK_SKEW", told)
    if command.not_before is not None and command.not_before >= entry.deadline:
        return Refusal(
            "NEVER_DUE", "not_before lies at or behind its expiry, or more than max.age after its issue"
        )
    return None


# Its turn comes.


def to_start(
    entry: Entry, deadline: int, readings: Readings, ledger: CommandLedger, situation: Situation
) -> Wait | NotYet | End | Start:
    """May it be executed now? ``readings``: what its points read at this moment.

    Everything is asked again: since it came the policy, the kill switch, and what others wrote may have
    changed.
    """
    now, command = situation.now.wall, entry.command
    doubt = clock_doubt(ledger, situation)
    if doubt is not None:
        return doubt
    if _is_late(entry, deadline, situation):
        return ended(entry, "EXPIRED", *_why_expired(entry, situation), now, readings)
    dry_run = command.dry_run or situation.terms.dry_run
    if command.not_before is not None and now < command.not_before and not dry_run:
        return NotYet(command.not_before, "it waits for its not_before")
    refusal = _forbidden(entry, ledger, situation, readings)
    if refusal is not None:
        return refused(entry, refusal, now, readings)
    if dry_run:
        told = "dry run: everything was checked, nothing was written"
        return ended(entry, "SUCCEEDED", "DRY_RUN", told, now, readings, dry_run=True)
    if entry.boot != situation.now.boot:  # it came before the computer was started: one clock for its times
        ours = _received(command, entry.deadline, situation.now)
        entry = entry._replace(
            boot=ours.boot, clock=ours.clock, received_at=min(entry.received_at, ours.received_at)
        )
    # One microsecond apart at least, so that the ledger knows which of two commands was later.
    started_at = max(entry.at(situation.now), ledger.newest + 1 - ledger.shift(entry))
    started = entry._replace(state="STARTED", started_at=started_at)
    claim = min(deadline, situation.now.monotonic + situation.terms.claim)
    return Start(started, result_of(started, "EXECUTING", "", "", now, readings), claim)


def last_look(entry: Entry, deadline: int, readings: Readings, situation: Situation) -> End | None:
    """The last step before the write, after STARTED is durable: none is a yes.

    ``deadline``: that of the `Start`. It is asked, too, while a platform is away and a command waits for it.
    """
    now = situation.now.wall
    if _is_late(entry, deadline, situation):
        return ended(entry, "EXPIRED", *_why_expired(entry, situation), now, readings)
    if situation.killed is not None:
        return refused(entry, kill_switch(situation.killed), now, readings)
    return None


def _is_late(entry: Entry, deadline: int, situation: Situation) -> bool:
    now = situation.now
    if entry.state == "STARTED" and now.shown >= entry.deadline:
        return True  # a clock that was set since the start may be right
    too_old = now.wall >= entry.command.issued_at + situation.terms.max_age
    return too_old or now.wall >= entry.deadline or now.monotonic >= deadline


def _why_expired(entry: Entry, situation: Situation) -> tuple[str, str]:
    now, command = situation.now.wall, entry.command
    if now < command.expires_at:
        if now >= min(entry.deadline, command.issued_at + situation.terms.max_age):
            return "MAX_AGE", "it is older than max.age, and was not executed"
        if entry.started_at is not None:
            return "TOO_SLOW", "the worker stood still between its claim and the write, and did not write"
    return "EXPIRED", "it expired before it could be executed"


def _forbidden(
    entry: Entry, ledger: CommandLedger, situation: Situation, readings: Readings | None
) -> Refusal | None:
    return _killed(situation) or _denied(entry, ledger, situation, readings)


def _denied(
    entry: Entry, ledger: CommandLedger, situation: Situation, readings: Readings | None
) -> Refusal | None:
    keys = situation.keys
    if situation.terms.signed_place and None in (entry.command.topic, entry.command.platform):
        keys = {}
    signed_with = [name for name, key in keys.items() if signed_by(entry.command, key)]
    return situation.policy.refusal(
        entry.command, Facts(situation.now.wall, ledger, readings, frozenset(signed_with))
    )


def _killed(situation: Situation) -> Refusal | None:
    return None if situation.killed is None else kill_switch(situation.killed)


def kill_switch(why: str) -> Refusal:
    """The refusal of everything while the switch is engaged."""
    return Refusal("KILL_SWITCH", f"the kill switch is engaged{': ' * bool(why)}{why}")


def taken(entry: Entry, device: str, told: str, now: int, readings: Readings) -> End:
    """Another agent keeps a device of this command, which therefore was not begun.

    The conflict belongs to the writes of that device; where none is named, to all of them.
    """
    end = ended(entry, "FAILED", "DEVICE_REFUSED", told, now, readings)
    writes = tuple(
        write._replace(reason=told) if device in ("", Write(write.point).device) else write
        for write in end.result.writes
    )
    result = end.result._replace(writes=writes)
    return End(end.entry._replace(result=result), result)


# It was written, or not.


def to_give_back(entry: Entry, calls: Mapping[str, Call]) -> tuple[str, ...]:
    """Of a batch that failed in the middle: the points that were written and have to be given back.

    None after a call without an answer: nobody knows what is still on its way, a person has to look.
    """
    answers = {call.answer for call in calls.values()}
    if "NO_ANSWER" in answers or answers == {"DONE"} or entry.command.action == "REVERT":
        return ()
    return tuple(w.point for w in entry.command.writes if calls[w.point].answer == "DONE")


def outcome(
    entry: Entry,
    calls: Mapping[str, Call],
    before: Readings,
    after: Readings,
    given_back: Mapping[str, Call],
    now: int,
    late: int = 0,
) -> End:
    """What became of a command, from what the platform answered and what was read before and after it.

    ``given_back``: what became of each revert that `to_give_back` asked for. ``late``: as `lateness` has it.
    """
    command = entry.command
    owed = {point: Call("NOT_SENT", "it was not given back") for point in to_give_back(entry, calls)}
    back = {**owed, **given_back}
    writes = tuple(
        written(command, w, calls[w.point], before.get(w.point), after.get(w.point), back.get(w.point))
        for w in command.writes
    )
    return ended_with(entry, *verdict(command, calls, writes, late), now, writes)


def lateness(calls: Mapping[str, Call], looked_at: int, deadline: int) -> int:
    """Return by how many microseconds the proof of a write came after its expiry; 0: in time.

    The proof is the platform's answer, or, where none came, the reading back; all on the monotonic clock.
    A request that waited at a frozen driver may have taken effect at any moment before its proof.
    """
    answered = [call.at for call in calls.values() if call.answer == "DONE" and call.at is not None]
    looked = [looked_at for call in calls.values() if call.answer == "NO_ANSWER"]
    return max([0, *(at - deadline for at in answered + looked)])


def after_crash(entry: Entry, after: Readings, now: int) -> End:
    """It was in STARTED when a worker began here: ask the device, and never write a second time."""
    command = entry.command
    lost = Call("NO_ANSWER", "the worker died while it was written")
    writes = tuple(written(command, w, lost, None, after.get(w.point), None) for w in command.writes)
    if all(write.outcome == "VERIFIED" for write in writes):
        return ended_with(
            entry, *proved("the device holds what was asked", now - entry.deadline), now, writes
        )
    told = "the worker died while it was written, and reading back proves nothing; a person has to look"
    return ended_with(entry, "UNKNOWN", "CRASHED", told, now, writes)


def _seconds(microseconds: int) -> str:
    return f"{microseconds / 1_000_000:g} s"
