"""Decide about a record that has arrived: reject it, answer it, or accept its command; pure."""

from __future__ import annotations

from collections import Counter

from tieline.api import TopicPartition, partition_of
from tieline_connectors.command.model.command import Command, Result, digest
from tieline_connectors.command.model.entry import UNAUTHORIZED_CODES, LedgerEntry, PendingEntries
from tieline_connectors.command.model.facts import Rejection
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.model.parsing import MalformedCommandError
from tieline_connectors.command.rules.checks import (
    check_kill_switch,
    check_policy,
    clock_doubt,
    expiry_reason,
    monotonic_deadline,
    new_entry,
)
from tieline_connectors.command.rules.decisions import Accept, Answer, Conditions, End, InProgress, Wait
from tieline_connectors.command.rules.results import build_result, end_unwritten, reject

MAX_UNAUTHORIZED = 1000
"""Rejections of unauthorized issuers that a partition keeps; `ledger.Retention` says how long."""

MAX_UNAUTHORIZED_SIZE = 2000
"""Characters of a command; a larger unauthorized one is answered and not kept."""

_FORGOTTEN = Rejection(
    "FORGOTTEN",
    "commands of its issue time were forgotten, or lost by a restore from a backup, and this may be one of "
    "them; send it again under a new id",
)


def check_destination(
    command: Command, read_from: TopicPartition, partitions: int, platform: str
) -> Rejection | None:
    """Return why a command does not belong where it was read; ``None`` if it does.

    A copy of it elsewhere is not executed. Its partition is that of its devices (`Write.partition_key`),
    among so many ``partitions``: only the ledger of that partition knows the limits and holds of its points.
    """
    for what, named, here in (
        ("topic", command.topic, read_from.topic),
        ("platform", command.platform, platform),
    ):
        if named is not None and named != here:
            message = (
                f"it is for the {what} {named}, and came to {here}; it was copied, or sent to a wrong one"
            )
            return Rejection("WRONG_PLACE", message)
    if partitions == 1:
        return None
    device = command.writes[0].partition_key
    right = partition_of(device.encode(), partitions)
    for other in (write.partition_key for write in command.writes):
        if partition_of(other.encode(), partitions) != right:
            message = (
                f"{other} belongs to another partition of {read_from.topic} than {device}, and so do its"
            )
            return Rejection("WRONG_PLACE", f"{message} limits and holds; send a command for each")
    if right != read_from.partition:
        message = f"{device} belongs to partition {right} of {read_from.topic}, and it came to"
        fix = "key it by the device, with Kafka's own partitioner (librdkafka: partitioner=murmur2_random)"
        return Rejection("WRONG_PLACE", f"{message} {read_from.partition}; {fix}, and send it again")
    return None


def decide_arrival(
    command: Command,
    record_at: int | None,
    ledger: CommandLedger,
    conditions: Conditions,
    misdirected: Rejection | None = None,
    pending: PendingEntries | None = None,
) -> Wait | InProgress | Answer | End | Accept:
    """Decide about a record with a command; ``record_at`` is its timestamp in microseconds.

    ``misdirected``: what `check_destination` returned. ``pending``: the decisions about the records before
    it.

    The record's author chose its timestamp, so it counts for this record only.
    """
    now = conditions.now.wall
    doubt = clock_doubt(ledger, conditions)
    if doubt is not None:
        return doubt
    deadline = min(
        command.expires_at,
        command.issued_at + conditions.settings.max_age,
        *([] if record_at is None else [record_at + conditions.settings.max_age]),
    )
    entry = new_entry(command, deadline, conditions.now)
    pending = pending or PendingEntries()
    known = pending.entries.get(command.command_id) or ledger.get(command.command_id)
    if known is not None and not (known.is_unauthorized and known.digest != entry.digest):
        return _decide_known(command, known, now)
    if misdirected is not None:
        return Answer(reject(entry, misdirected, now).result)
    denied = check_policy(entry, ledger, conditions, None)
    if denied is not None and denied.code in ("SIGNATURE", *UNAUTHORIZED_CODES):
        if known is not None:
            return _decide_known(command, known, now)
        end = reject(entry, denied, now)
        keep = _is_kept(end, ledger.unauthorized + pending.unauthorized)
        return end if keep else Answer(end.result)
    return _decide_authorized(entry, ledger, conditions, denied)


def _decide_authorized(
    entry: LedgerEntry, ledger: CommandLedger, conditions: Conditions, denied: Rejection | None
) -> Answer | End | Accept:
    """Decide about a new command whose issuer has a right: an unauthorized one cannot use up its id.

    A command that may have been forgotten gets no other end: it may have been executed, so that neither an
    expiry nor a rejection says what became of it.
    """
    now = conditions.now.wall
    if ledger.note.has_forgotten(entry.command.issued_at):
        return Answer(reject(entry, _FORGOTTEN, now).result)
    if max(now, conditions.now.earlier_wall) >= entry.deadline:
        return end_unwritten(entry, "EXPIRED", *expiry_reason(entry, conditions), now)
    rejection = _check_times(entry, conditions) or check_kill_switch(conditions) or denied
    if rejection is not None:
        return reject(entry, rejection, now)
    accepted = build_result(entry, "ACCEPTED", "", "", now)
    return Accept(entry, accepted, monotonic_deadline(entry, conditions.now))


def _is_kept(end: End, unauthorized: int) -> bool:
    """Return whether the ledger keeps the rejection of an unauthorized command, to answer it again unchanged.

    An issuer that cannot sign must not use up the id of a command that another issuer will sign. An issuer
    without any right must not fill the ledger: it keeps a limited number of small ones. A command that is not
    kept is rejected again if it comes again. So such an issuer always gets this rejection, even if there are
    other reasons (an expiry, the kill switch).
    """
    small = len(end.entry.command.to_json()) <= MAX_UNAUTHORIZED_SIZE
    return end.entry.is_unauthorized and unauthorized < MAX_UNAUTHORIZED and small


def reject_malformed(error: MalformedCommandError, record_id: str, raw: bytes | None, now: int) -> Answer:
    """Reject a record that is not a command; ``record_id`` (topic id, partition, offset) if it has no id.

    It is answered and not kept: it never becomes a command, and must not use up the id of one.
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


def check_queue(entry: LedgerEntry, waiting: Counter[str], most: int) -> Rejection | None:
    """Return the rejection of a command that would wait behind too many others; ``None`` if it may wait.

    ``waiting``: how many commands of each issuer have arrived and not started. One issuer may use half of the
    places (at least one), so that the others still have some.
    """
    of_issuer = waiting[entry.command.issuer]
    if of_issuer >= max(1, most // 2):
        message = f"{of_issuer} commands of this issuer wait already, half of max.waiting ({most})"
        return Rejection("TOO_MANY_WAIT", f"{message}; send it later")
    if waiting.total() >= most:
        return Rejection("TOO_MANY_WAIT", f"{most} commands wait already (max.waiting); send it later")
    return None


def _decide_known(command: Command, known: LedgerEntry, now: int) -> InProgress | Answer:
    if known.digest != digest(command):
        message = f"another command with the id {command.command_id} came before; use a new id"
        conflict = LedgerEntry(command, digest(command), "RECEIVED", now, command.expires_at)
        return Answer(build_result(conflict, "REJECTED", "CONFLICT", message, now))
    return InProgress(known) if known.result is None else Answer(known.result, known=True)


def _check_times(entry: LedgerEntry, conditions: Conditions) -> Rejection | None:
    command, settings = entry.command, conditions.settings
    ahead = command.issued_at - conditions.now.wall
    if ahead > settings.max_clock_skew:
        limit = f"max.clock.skew {_seconds(settings.max_clock_skew)}"
        return Rejection("CLOCK_SKEW", f"it was issued {_seconds(ahead)} in the future ({limit})")
    if command.not_before is not None and command.not_before >= entry.deadline:
        message = "not_before is at or after its expiry, or more than max.age after its issue"
        return Rejection("NEVER_DUE", message)
    return None


def _seconds(microseconds: int) -> str:
    return f"{microseconds / 1_000_000:g} s"
