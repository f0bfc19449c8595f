import re
from pathlib import Path
from typing import Any

import pytest

from tieline_connectors.command import rules
from tieline_connectors.command.model.command import Defaults, sign
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.model.parsing import MalformedCommandError, from_value
from tieline_connectors.command.rules import arrival, outcome, start
from tieline_connectors.command.rules import holds as the_holds
from tieline_connectors.command.rules.arrival import MAX_UNAUTHORIZED
from tieline_connectors.command.rules.decisions import (
    Accept,
    Answer,
    CallResult,
    End,
    InProgress,
    NotYet,
    Revert,
    RuleSettings,
    Start,
    Wait,
)
from tieline_connectors.command.rules.verdict import same_value

decide_arrival: Any = arrival.decide_arrival
reject_malformed: Any = arrival.reject_malformed
decide_after_crash: Any = outcome.decide_after_crash
decide_outcome: Any = outcome.decide_outcome
lateness: Any = outcome.lateness
points_to_revert: Any = outcome.points_to_revert
check_before_write: Any = start.check_before_write
decide_start: Any = start.decide_start
holds: Any = the_holds
"""Every decision is one of several kinds; a test looks at the one that it expects."""

DONE = CallResult("DONE")


@pytest.fixture
def arrive(given):
    """What is decided of a command that comes after so many seconds."""

    def of(seconds=1.0, *, ledger=None, record_at=None, change=None, **rest):
        ledger = CommandLedger() if ledger is None else ledger
        record_at = given.T0 if record_at is None else record_at
        return decide_arrival(
            given.command(**(change or {})), record_at, ledger, given.conditions(seconds, **rest)
        )

    return of


@pytest.fixture
def accepted(given, arrive):
    """A ledger with one command that was accepted after a second."""

    def of(**change):
        ledger = CommandLedger()
        decision = arrive(ledger=ledger, change=change)
        assert isinstance(decision, Accept)
        ledger.put(decision.entry)
        return ledger, decision

    return of


@pytest.fixture
def begun(given, accepted):
    """A ledger with one command in STARTED, two seconds after its issue."""

    def of(**change):
        ledger, accept = accepted(**change)
        start = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(2))
        assert isinstance(start, Start)
        ledger.put(start.entry)
        return ledger, start.entry

    return of


def state_of(decision):
    return decision.result.state, decision.result.reason_code


def test_a_permitted_command_is_accepted_with_a_deadline_on_both_clocks(given, arrive):
    decision = arrive(1.0, monotonic=500)
    assert isinstance(decision, Accept)
    assert state_of(decision) == ("ACCEPTED", "")
    assert (decision.entry.state, decision.entry.received_at) == ("RECEIVED", given.T0 + given.SECOND)
    assert decision.entry.deadline == given.T0 + given.MINUTE
    assert decision.deadline == 500 * given.SECOND + 59 * given.SECOND


@pytest.mark.parametrize(
    ("seconds", "change", "rest", "expected"),
    [
        (59.999999, {}, {}, ("ACCEPTED", "")),
        (60, {}, {}, ("EXPIRED", "EXPIRED")),
        (3599, {"expires_at": 2_000_000_000_000_000}, {}, ("ACCEPTED", "")),
        (3600, {"expires_at": 2_000_000_000_000_000}, {}, ("EXPIRED", "MAX_AGE")),
        (1, {"issued_at": 1_800_000_006_000_000}, {}, ("ACCEPTED", "")),
        (1, {"issued_at": 1_800_000_006_000_001}, {}, ("REJECTED", "CLOCK_SKEW")),
        (1, {"not_before": 1_800_000_059_999_999}, {}, ("ACCEPTED", "")),
        (1, {"not_before": 1_800_000_060_000_000}, {}, ("REJECTED", "NEVER_DUE")),
        (1, {}, {"killed": "fire drill"}, ("REJECTED", "KILL_SWITCH")),
        (1, {"writes": [{"point": "a/b", "value": 101}]}, {}, ("REJECTED", "POLICY_MAX")),
        (60, {}, {"killed": "fire drill"}, ("EXPIRED", "EXPIRED")),
    ],
)
def test_each_reason_rejects_a_command_on_arrival(arrive, seconds, change, rest, expected):
    decision = arrive(seconds, change=change, **rest)
    assert state_of(decision) == expected
    if expected[0] != "ACCEPTED":
        assert isinstance(decision, End)
        assert decision.entry.state == "ENDED"
        assert decision.entry.result == decision.result
        assert all(write.outcome == "NOT_WRITTEN" for write in decision.result.writes)


def test_a_record_that_is_older_than_max_age_expires_whatever_its_command_says(given, arrive):
    an_hour = 3600 * given.SECOND
    assert state_of(arrive(1, record_at=given.T0 + given.SECOND - an_hour)) == ("EXPIRED", "MAX_AGE")
    assert state_of(arrive(1, record_at=given.T0 + given.SECOND - an_hour + 1)) == ("ACCEPTED", "")


@pytest.mark.parametrize(("seconds", "doubtful"), [(-86_401, True), (-86_400, False), (-5, False)])
def test_a_clock_behind_the_build_decides_nothing(arrive, seconds, doubtful):
    decision = arrive(seconds)
    assert isinstance(decision, Wait) is doubtful
    if doubtful:
        assert decision.code == "CLOCK_UNTRUSTED"


@pytest.mark.parametrize("ahead", [0, 11, 3540, 366 * 86_400])
def test_a_future_timestamp_of_a_record_neither_rejuvenates_its_command_nor_stops_others(
    given, arrive, ahead
):
    ledger, record_time = CommandLedger(), given.T0 + ahead * given.SECOND
    decision = arrive(ledger=ledger, record_at=record_time)
    assert decision.entry.deadline == given.T0 + given.MINUTE
    ledger.put(decision.entry)
    assert isinstance(arrive(ledger=ledger, change={"command_id": "c2"}), Accept)


STRANGE = {"issuer": "stranger", "reason": "another command than c1"}


@pytest.mark.parametrize("key", [None, "ops"])
@pytest.mark.parametrize(
    ("change", "rest"),
    [
        ({}, {}),
        ({"issued_at": 1}, {}),
        ({"expires_at": 2}, {}),
        ({"issued_at": 1_800_000_600_000_000}, {}),
        ({"not_before": 1_900_000_000_000_000}, {}),
        ({}, {"killed": "fire drill"}),
        ({"writes": [{"point": "a/denied", "value": 1.0}]}, {}),
    ],
)
def test_a_command_of_an_unknown_issuer_never_uses_up_an_id(given, arrive, key, change, rest):
    """Without a key in the rule: an issuer of no rule. With one: a command without a valid signature."""
    issuers = "*" if key else "energy-manager"
    policy = given.policy(
        {"issuers": "*", "points": "a/denied", "deny": "never"},
        {**given.RULE, "issuers": issuers, **({"key": key} if key else {})},
    )
    signed = {"signature": sign(given.command(), b"secret")} if key else {}
    ledger, keys = CommandLedger(), {"ops": b"secret"}
    decision = arrive(ledger=ledger, policy=policy, keys=keys, change={**STRANGE, **change}, **rest)
    assert decision.result.state in ("REJECTED", "EXPIRED")
    if isinstance(decision, End):
        assert decision.entry.is_unauthorized
        ledger.put(decision.entry)
    assert ledger.unauthorized == len(ledger)
    accepted = arrive(ledger=ledger, policy=policy, keys=keys, change=signed)
    assert isinstance(accepted, Accept)
    ledger.put(accepted.entry)
    assert (len(ledger), ledger.unauthorized) == (1, 0)
    again = arrive(ledger=ledger, policy=policy, keys=keys, change={**STRANGE, **change}, **rest)
    assert state_of(again) == ("REJECTED", "CONFLICT")


def test_a_clock_behind_the_ledger_decides_nothing_at_all(given, accepted):
    ledger, accept = accepted(hold_ms=1000)
    ledger.latest_time = given.T0 + 10 * given.SECOND
    behind, right = given.conditions(8.9), given.conditions(9)
    entry, deadline = accept.entry, accept.deadline
    assert isinstance(decide_arrival(entry.command, given.T0, ledger, behind), Wait)
    assert isinstance(decide_start(entry, deadline, {}, ledger, behind), Wait)
    assert isinstance(holds.decide_hold(entry, ledger, behind), Wait)
    assert isinstance(holds.decide_hold_after_crash(entry, {}, ledger, behind), Wait)
    assert isinstance(decide_start(entry, deadline, {}, ledger, right), Start)


def test_a_known_command_is_answered_again_and_another_content_is_a_conflict(given, accepted, arrive):
    ledger, accept = accepted()
    assert arrive(2, ledger=ledger) == InProgress(accept.entry)
    conflict = arrive(2, ledger=ledger, change={"reason": "another"})
    assert isinstance(conflict, Answer)
    assert state_of(conflict) == ("REJECTED", "CONFLICT")
    end = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(61))
    ledger.put(end.entry)
    assert arrive(99, ledger=ledger) == Answer(end.result, known=True)
    assert state_of(arrive(99, ledger=ledger, change={"reason": "another"})) == ("REJECTED", "CONFLICT")
    assert len(ledger) == 1


def test_a_malformed_command_is_answered_without_using_up_an_id(given):
    with pytest.raises(MalformedCommandError) as caught:
        from_value(given.value(action="JUMP"), Defaults())
    answer = reject_malformed(caught.value, "topic-0-7", b"raw", given.T0)
    assert (answer.result.command_id, answer.result.raw) == ("c1", b"raw")
    assert state_of(answer) == ("REJECTED", "MALFORMED")
    answer = reject_malformed(MalformedCommandError("no Avro"), "topic-0-7", b"raw", given.T0)
    assert (answer.result.command_id, answer.result.reason) == ("topic-0-7", "no Avro")


def test_unknown_issuers_cannot_fill_the_ledger_and_are_still_rejected(given, arrive):
    ledger, policy = CommandLedger(), given.policy({**given.RULE, "issuers": "energy-manager"})

    def of_stranger(**change):
        return arrive(ledger=ledger, policy=policy, change={"issuer": "stranger", **change})

    for number in range(MAX_UNAUTHORIZED + 50):
        decision = of_stranger(command_id=f"s{number}")
        assert state_of(decision) == ("REJECTED", "NOT_ALLOWED")
        if isinstance(decision, End):
            ledger.put(decision.entry)
    assert ledger.unauthorized == len(ledger) == MAX_UNAUTHORIZED
    known = of_stranger(command_id="s1")
    assert known == Answer(known.result, known=True)
    assert isinstance(arrive(ledger=ledger, policy=policy), Accept)
    ledger = CommandLedger()
    assert isinstance(of_stranger(), End)
    many = [{"point": f"campus/b1/ahu1/P{n}", "value": 20.0} for n in range(60)]
    assert isinstance(of_stranger(command_id="large", writes=many), Answer)


def test_a_wrong_signature_is_rejected_without_using_up_the_id(given, arrive):
    policy, keys = given.policy({**given.RULE, "key": "ops"}), {"ops": b"secret", "other": b"else"}
    signature = sign(given.command(), b"secret")
    wrong = sign(given.command(), b"else")
    for change in ({}, {"signature": wrong}, {"signature": signature, "reason": "changed"}):
        decision = arrive(change=change, policy=policy, keys=keys)
        assert isinstance(decision, Answer)
        assert state_of(decision) == ("REJECTED", "SIGNATURE")
        assert "secret" not in repr(decision)
    assert isinstance(arrive(change={"signature": signature}, policy=policy, keys=keys), Accept)
    assert state_of(arrive(change={"signature": signature}, policy=policy, keys={}))[1] == "SIGNATURE"


@pytest.mark.parametrize(
    ("seconds", "rest", "expected"),
    [
        (59.9, {}, ("EXECUTING", "")),
        (60, {}, ("EXPIRED", "EXPIRED")),
        (2, {"monotonic": 60}, ("EXPIRED", "EXPIRED")),  # the wall clock was set back
        (2, {"killed": ""}, ("REJECTED", "KILL_SWITCH")),
        (2, {"settings": RuleSettings(2_000_000, 5_000_000)}, ("EXPIRED", "MAX_AGE")),  # max.age was lowered
    ],
)
def test_every_condition_is_checked_again_before_the_start(given, accepted, seconds, rest, expected):
    ledger, accept = accepted()
    decision = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(seconds, **rest))
    assert state_of(decision) == expected


def test_a_policy_that_changed_while_a_command_waited_applies_to_it(given, accepted):
    ledger, accept = accepted(not_before=given.T0 + 30 * given.SECOND)
    early = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(29))
    assert early == NotYet(given.T0 + 30 * given.SECOND, "it waits for its not_before")
    stricter = given.conditions(30, policy=given.policy({**given.RULE, "max": 20}))
    end = decide_start(accept.entry, accept.deadline, {given.POINT: Reading(19.0)}, ledger, stricter)
    assert state_of(end) == ("REJECTED", "POLICY_MAX")
    (write,) = end.result.writes
    assert (write.requested, write.previous, write.outcome) == (21.5, 19.0, "NOT_WRITTEN")
    assert write.reason == end.result.reason


def test_the_dwell_time_counts_from_the_start_of_what_may_have_been_written(given, begun, arrive):
    ledger, entry = begun()
    policy = given.policy({**given.RULE, "dwell_minutes": 0.5})
    second = {"command_id": "c2"}
    assert state_of(arrive(31, ledger=ledger, change=second, policy=policy)) == ("REJECTED", "POLICY_DWELL")
    assert isinstance(arrive(32, ledger=ledger, change=second, policy=policy), Accept)
    refused = decide_outcome(
        entry, {given.POINT: CallResult("REFUSED")}, {}, {}, {}, given.T0 + 3 * given.SECOND
    )
    ledger.put(refused.entry)
    assert isinstance(arrive(31, ledger=ledger, change=second, policy=policy), Accept)


def test_two_starts_are_never_at_the_same_time(given, begun, arrive):
    ledger, first = begun()
    accept = arrive(2, ledger=ledger, change={"command_id": "c2"})
    second = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(2))
    assert second.entry.started_at == first.started_at + 1


@pytest.mark.parametrize("who", ["command", "sink"])
def test_a_dry_run_checks_everything_and_writes_nothing(given, accepted, who):
    late = given.T0 + 30 * given.SECOND
    ledger, accept = accepted(not_before=late, **({"dry_run": True} if who == "command" else {}))
    rest = (
        {}
        if who == "command"
        else {"settings": RuleSettings(3600 * given.SECOND, 5 * given.SECOND, dry_run=True)}
    )
    readings = {given.POINT: Reading(19.0)}
    end = decide_start(accept.entry, accept.deadline, readings, ledger, given.conditions(2, **rest))
    assert isinstance(end, End)
    assert state_of(end) == ("SUCCEEDED", "DRY_RUN")
    assert end.result.dry_run
    assert [write.outcome for write in end.result.writes] == ["NOT_WRITTEN"]
    assert end.entry.hold == "NONE"
    refused = given.conditions(2, policy=given.policy({**given.RULE, "max": 20}), **rest)
    assert state_of(decide_start(accept.entry, accept.deadline, {}, ledger, refused))[1] == "POLICY_MAX"


@pytest.mark.parametrize(
    ("seconds", "rest", "expected"),
    [
        (11.9, {}, None),
        (12, {}, ("EXPIRED", "TOO_SLOW")),
        (60, {}, ("EXPIRED", "EXPIRED")),
        (2, {"monotonic": 12}, ("EXPIRED", "TOO_SLOW")),
        (2, {"killed": "now"}, ("REJECTED", "KILL_SWITCH")),
    ],
)
def test_the_kill_switch_and_the_deadline_are_checked_just_before_the_write(
    given, accepted, seconds, rest, expected
):
    ledger, accept = accepted()
    start = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(2))
    assert start.deadline == 12 * given.SECOND
    end = check_before_write(start.entry, start.deadline, {}, given.conditions(seconds, **rest))
    assert (end and state_of(end)) == expected
    if end:
        assert [write.outcome for write in end.result.writes] == ["NOT_WRITTEN"]


def test_a_claim_never_outlasts_the_expiry(given, accepted):
    ledger, accept = accepted()
    start = decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(55))
    assert start.deadline == 60 * given.SECOND


def outcome_of(given, entry, *calls, after=(), back=()):
    points = [write.point for write in entry.command.writes]
    read = {
        point: None if value == "unread" else Reading(value)
        for point, value in zip(points, after, strict=False)
    }
    given_back = dict(zip(points_to_revert(entry, dict(zip(points, calls, strict=True))), back, strict=True))
    return decide_outcome(
        entry,
        dict(zip(points, calls, strict=True)),
        dict.fromkeys(points, Reading(19.0)),
        read,
        given_back,
        given.T0 + 3 * given.SECOND,
    )


REFUSED, LOST, NOT_SENT = CallResult("REFUSED", "locked"), CallResult("NO_ANSWER"), CallResult("NOT_SENT")


@pytest.mark.parametrize(
    ("call", "after", "state", "code", "written"),
    [
        (DONE, 21.5, "SUCCEEDED", "", "VERIFIED"),
        (DONE, 21.50000003, "SUCCEEDED", "", "VERIFIED"),
        (DONE, 21.6, "MISMATCH", "READ_BACK_DIFFERS", "DIFFERENT"),
        (DONE, "x", "MISMATCH", "READ_BACK_DIFFERS", "DIFFERENT"),
        (DONE, None, "MISMATCH", "READ_BACK_DIFFERS", "DIFFERENT"),
        (DONE, "unread", "UNKNOWN", "NOT_READ_BACK", "UNVERIFIED"),
        (LOST, 21.5, "SUCCEEDED", "PROVED_BY_READ_BACK", "VERIFIED"),
        (LOST, 19.0, "UNKNOWN", "NO_ANSWER", "UNKNOWN"),
        (LOST, "unread", "UNKNOWN", "NO_ANSWER", "UNKNOWN"),
        (REFUSED, 19.0, "FAILED", "DEVICE_REFUSED", "NOT_WRITTEN"),
        (REFUSED, 21.5, "FAILED", "DEVICE_REFUSED", "NOT_WRITTEN"),
        (NOT_SENT, 19.0, "FAILED", "NOT_SENT", "NOT_WRITTEN"),
    ],
)
def test_the_outcome_of_one_write(given, begun, call, after, state, code, written):
    _, entry = begun(hold_ms=1000)
    end = outcome_of(given, entry, call, after=[after])
    assert state_of(end) == (state, code)
    (write,) = end.result.writes
    assert (write.outcome, write.previous) == (written, 19.0)
    owed = written != "NOT_WRITTEN"
    assert (end.entry.hold, end.entry.hold_until) == (
        ("HELD", entry.started_at + given.SECOND) if owed else ("NONE", None)
    )


def two(given):
    return {"writes": [{"point": given.POINT, "value": 20.0}, {"point": given.OTHER, "value": 18.0}]}


@pytest.mark.parametrize(
    ("calls", "after", "back", "state", "code", "outcomes"),
    [
        ((DONE, DONE), (20, 18), (), "SUCCEEDED", "", ("VERIFIED", "VERIFIED")),
        ((DONE, DONE), (20, 17), (), "MISMATCH", "READ_BACK_DIFFERS", ("VERIFIED", "DIFFERENT")),
        ((DONE, REFUSED), (1, 1), (DONE,), "FAILED", "DEVICE_REFUSED", ("REVERTED", "NOT_WRITTEN")),
        ((DONE, NOT_SENT), (1, 1), (DONE,), "FAILED", "NOT_SENT", ("REVERTED", "NOT_WRITTEN")),
        ((DONE, REFUSED), (20, 1), (REFUSED,), "UNKNOWN", "REVERT_FAILED", ("UNKNOWN", "NOT_WRITTEN")),
        ((DONE, REFUSED), (20, 1), (LOST,), "UNKNOWN", "REVERT_FAILED", ("UNKNOWN", "NOT_WRITTEN")),
        ((REFUSED, NOT_SENT), (1, 1), (), "FAILED", "DEVICE_REFUSED", ("NOT_WRITTEN", "NOT_WRITTEN")),
        ((DONE, LOST), (20, 18), (), "SUCCEEDED", "PROVED_BY_READ_BACK", ("VERIFIED", "VERIFIED")),
        ((DONE, LOST), (20, 1), (), "UNKNOWN", "NO_ANSWER", ("VERIFIED", "UNKNOWN")),
        ((LOST, NOT_SENT), (20, 18), (), "UNKNOWN", "NO_ANSWER", ("VERIFIED", "NOT_WRITTEN")),
        ((NOT_SENT, NOT_SENT), (1, 1), (), "FAILED", "NOT_SENT", ("NOT_WRITTEN", "NOT_WRITTEN")),
    ],
)
def test_the_outcome_of_several_writes(given, begun, calls, after, back, state, code, outcomes):
    _, entry = begun(**two(given))
    end = outcome_of(given, entry, *calls, after=after, back=back)
    assert state_of(end) == (state, code)
    assert tuple(write.outcome for write in end.result.writes) == outcomes


def test_a_pending_revert_is_never_reported_as_done(given, begun):
    _, entry = begun(**two(given))
    end = decide_outcome(entry, {given.POINT: DONE, given.OTHER: REFUSED}, {}, {}, {}, given.T0)
    assert state_of(end) == ("UNKNOWN", "REVERT_FAILED")
    assert end.result.writes[0].reason == "it was not reverted"


@pytest.mark.parametrize(
    ("call", "state", "code", "written"),
    [
        (DONE, "SUCCEEDED", "NOT_COMPARED", "UNVERIFIED"),
        (LOST, "UNKNOWN", "NO_ANSWER", "UNKNOWN"),
        (REFUSED, "FAILED", "DEVICE_REFUSED", "NOT_WRITTEN"),
    ],
)
@pytest.mark.parametrize("action", ["REVERT", "SET"])
def test_a_revert_has_no_value_to_compare(given, begun, action, call, state, code, written):
    _, entry = begun(action=action, writes=[{"point": given.POINT, "value": None}])
    end = outcome_of(given, entry, call, after=[19.0])
    assert state_of(end) == (state, code)
    assert [write.outcome for write in end.result.writes] == [written]


@pytest.mark.parametrize(
    ("written", "read", "tolerance", "equal"),
    [
        (1, 1, 0, True),
        (1, 2, 0, False),
        (1, 2, 1, True),
        (2**62, 2**62 + 1, 0, False),
        (21.3, 21.299999237060547, 0, True),
        (21.3, 21.31, 0, False),
        (21.3, 21.31, 0.02, True),
        (0.0, 1e-9, 0, False),
        (True, 1, 0, True),
        (True, True, 0, True),
        (False, 1, 0, False),
        (1.0, True, 0, True),
        (True, False, 1, False),
        (True, 0.5, 1, False),
        ("a", "a", 0, True),
        ("1", 1, 0, False),
        (None, None, 0, False),
        (0, None, 0, False),
    ],
)
def test_equal_values_are_recognized_within_the_tolerance(written, read, tolerance, equal):
    assert same_value(written, read, tolerance) is equal


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ((20, 18), ("SUCCEEDED", "PROVED_BY_READ_BACK")),
        ((20, 1), ("UNKNOWN", "CRASHED")),
        ((20, "unread"), ("UNKNOWN", "CRASHED")),
    ],
)
def test_after_a_crash_the_device_is_read(given, begun, after, expected):
    _, entry = begun(hold_ms=1000, **two(given))
    points = (given.POINT, given.OTHER)
    read = {p: None if value == "unread" else Reading(value) for p, value in zip(points, after, strict=True)}
    end = decide_after_crash(entry, read, given.T0 + 9)
    assert state_of(end) == expected
    assert end.entry.hold == "HELD"  # what may have been written is given back in any case


@pytest.fixture
def held(given, begun):
    """A ledger with a command of two points whose hold ends ten seconds after its start."""
    ledger, entry = begun(hold_ms=10_000, **two(given))
    ledger.put(outcome_of(given, entry, DONE, DONE, after=(20, 18)).entry)
    return ledger, ledger.get("c1")


def write_later(given, ledger, arrive, point):
    accept = arrive(5, ledger=ledger, change={"command_id": "c2", "writes": [{"point": point, "value": 9}]})
    ledger.put(decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(5)).entry)


def test_a_hold_ends_when_it_is_due_and_not_while_the_kill_switch_is_engaged(given, held):
    ledger, entry = held
    assert holds.decide_hold(entry, ledger, given.conditions(11.9)).at == given.T0 + 12 * given.SECOND
    assert holds.decide_hold(entry, ledger, given.conditions(12, killed="x")).at is None
    revert = holds.decide_hold(entry, ledger, given.conditions(9000))
    assert isinstance(revert, Revert)
    assert revert.points == (given.POINT, given.OTHER)
    assert (revert.entry.hold, revert.entry.reverting_at) == ("REVERTING", given.T0 + 9000 * given.SECOND)
    assert holds.may_revert(revert, given.conditions(9009.9))
    assert not holds.may_revert(revert, given.conditions(9010))
    assert not holds.may_revert(revert, given.conditions(9000, killed="x"))


def test_a_point_that_a_later_command_wrote_is_not_reverted(given, held, arrive):
    ledger, entry = held
    write_later(given, ledger, arrive, given.POINT)
    revert = holds.decide_hold(entry, ledger, given.conditions(12))
    assert revert.points == (given.OTHER,)
    ledger.put(revert.entry)
    end = holds.decide_hold_outcome(revert.entry, {given.OTHER: DONE}, {}, ledger, given.T0)
    assert (end.result.state, end.entry.hold) == ("HOLD_ENDED", "ENDED")
    assert [(w.outcome, w.reason) for w in end.result.writes] == [
        ("NOT_WRITTEN", "a later command wrote it"),
        ("REVERTED", ""),
    ]


def test_a_hold_is_skipped_when_later_commands_wrote_all_of_its_points(given, held, arrive):
    ledger, entry = held
    write_later(given, ledger, arrive, given.POINT)
    accept = arrive(6, ledger=ledger, change={"command_id": "c3", **two(given)})
    ledger.put(decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(6)).entry)
    end = holds.decide_hold(entry, ledger, given.conditions(12))
    assert isinstance(end, End)
    assert (state_of(end), end.entry.hold) == (("HOLD_SKIPPED", "LATER_COMMAND"), "SKIPPED")
    assert end.entry.result == entry.result
    ledger.put(end.entry)


@pytest.mark.parametrize(
    ("call", "after", "state"),
    [
        (DONE, 5.0, "HOLD_ENDED"),
        (DONE, 20.0, "HOLD_ENDED"),
        (DONE, "unread", "HOLD_ENDED"),
        (LOST, 5.0, "HOLD_ENDED"),
        (LOST, 20.0, "HOLD_FAILED"),
        (LOST, "unread", "HOLD_FAILED"),
        (REFUSED, 20.0, "HOLD_FAILED"),
        (REFUSED, 5.0, "HOLD_FAILED"),
        (NOT_SENT, 20.0, "HOLD_FAILED"),
    ],
)
def test_a_failed_revert_is_an_alarm_and_stays_owed(given, held, call, after, state):
    ledger, entry = held
    now = given.T0 + 12 * given.SECOND
    revert = holds.decide_hold(entry, ledger, given.conditions(12))
    ledger.put(revert.entry)
    read = {given.POINT: None if after == "unread" else Reading(after), given.OTHER: Reading(5.0)}
    end = holds.decide_hold_outcome(revert.entry, {given.POINT: call, given.OTHER: DONE}, read, ledger, now)
    assert end.result.state == state
    ledger.put(end.entry)
    assert end.entry.is_finished is (state == "HOLD_ENDED")
    if state == "HOLD_FAILED":
        assert end.result.reason_code == "HOLD_REVERT_FAILED"
        assert f"could not be reverted yet, and is retried until it is: {given.POINT}" in end.result.reason
        assert end.entry.hold_paid == (given.OTHER,)
        assert ledger.due(now + given.SECOND) == [end.entry]
        again = holds.decide_hold(end.entry, ledger, given.conditions(13))
        assert again.points == (given.POINT,)
        ledger.put(again.entry)
        twice = holds.decide_hold_outcome(
            again.entry, {given.POINT: REFUSED}, read, ledger, now + given.SECOND
        )
        assert twice.result is None  # the alarm is reported once
        assert twice.entry.hold_again_at == now + 3 * given.SECOND
        ledger.put(twice.entry)
        last = holds.decide_hold(twice.entry, ledger, given.conditions(15))
        ledger.put(last.entry)
        paid = holds.decide_hold_outcome(
            last.entry, {given.POINT: DONE}, read, ledger, now + 3 * given.SECOND
        )
        assert (paid.result.state, paid.entry.is_finished) == ("HOLD_ENDED", True)


def test_an_owed_revert_is_retried_at_the_announced_time_and_at_least_every_five_minutes(given, held):
    ledger, entry = held
    now = given.T0 + 12 * given.SECOND
    revert = holds.decide_hold(entry, ledger, given.conditions(12))
    for until, wait in ((20, 20), (0, 1), (9000, 300)):
        refusal = holds.ReservationFailure("kept by x", now + until * given.SECOND)
        owed = holds.postpone_hold(entry, revert, refusal, {}, ledger, now)
        assert (owed.entry.hold, owed.entry.hold_again_at) == ("HELD", now + wait * given.SECOND)
        assert (owed.entry.hold_paid, owed.entry.reverting_at) == ((), None)
    for tries, wait in ((0, 1), (1, 2), (5, 32), (9, 300), (2**40, 300)):
        tried = entry._replace(hold_tries=tries)
        owed = holds.postpone_hold(tried, revert, holds.ReservationFailure("no"), {}, ledger, now)
        assert owed.entry.hold_again_at == now + wait * given.SECOND


def test_a_hold_that_could_not_be_ended_early_is_tried_again_at_its_time(given, held):
    """The worker stops and reverts its holds; a lock prevents one, and the next start continues."""
    ledger, entry = held
    revert = holds.decide_hold(entry, ledger, given.conditions(3), early=True)
    refusal = holds.ReservationFailure("kept by x")
    owed = holds.postpone_hold(entry, revert, refusal, {}, ledger, given.T0 + 3 * given.SECOND)
    assert owed.entry.hold_again_at == entry.hold_until


def test_an_owed_revert_ends_with_a_later_write_or_an_operators_waiver(given, held, arrive):
    ledger, entry = held
    revert = holds.decide_hold(entry, ledger, given.conditions(12))
    owed = holds.postpone_hold(
        entry, revert, holds.ReservationFailure("kept"), {}, ledger, given.T0 + 12 * given.SECOND
    )
    ledger.put(owed.entry)
    settings = given.conditions(0).settings._replace(forgiven=frozenset(["c1"]))
    forgiven = holds.decide_hold(owed.entry, ledger, given.conditions(20, settings=settings, killed="x"))
    assert (state_of(forgiven), forgiven.entry.hold) == (("HOLD_SKIPPED", "FORGIVEN"), "SKIPPED")
    accept = arrive(13, ledger=ledger, change={"command_id": "c3", **two(given)})
    ledger.put(decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(13)).entry)
    assert state_of(holds.decide_hold(owed.entry, ledger, given.conditions(20))) == (
        "HOLD_SKIPPED",
        "LATER_COMMAND",
    )


def test_a_write_whose_proof_came_after_its_expiry_says_so(given, begun):
    """The write may have waited at a frozen driver, so the time of its effect is unknown."""
    _, entry = begun()
    wall = given.T0 + 100 * given.SECOND
    read = {given.POINT: Reading(21.5)}

    def end(call, looked_at, after=read):
        calls = {given.POINT: call}
        late = lateness(calls, looked_at, deadline=60)
        return state_of(decide_outcome(entry, calls, {}, after, {}, wall, late))

    assert end(DONE._replace(at=59), 70) == ("SUCCEEDED", "")
    assert end(DONE._replace(at=61), 70) == ("SUCCEEDED", "MAYBE_LATE")
    assert end(LOST, 59) == ("SUCCEEDED", "PROVED_BY_READ_BACK")
    assert end(LOST, 61) == ("SUCCEEDED", "MAYBE_LATE")
    assert end(LOST, 61, {given.POINT: Reading(1.0)}) == ("UNKNOWN", "NO_ANSWER")
    assert end(REFUSED, 61) == ("FAILED", "DEVICE_REFUSED")
    assert state_of(decide_after_crash(entry, read, entry.deadline)) == (
        "SUCCEEDED",
        "PROVED_BY_READ_BACK",
    )
    assert state_of(decide_after_crash(entry, read, entry.deadline + 1)) == ("SUCCEEDED", "MAYBE_LATE")


def test_a_revert_that_could_not_be_sent_at_all_waits(given, held):
    ledger, entry = held
    revert = holds.decide_hold(entry, ledger, given.conditions(12))
    decision = holds.decide_hold_outcome(
        revert.entry, dict.fromkeys(revert.points, NOT_SENT), {}, ledger, given.T0
    )
    assert isinstance(decision, NotYet)


@pytest.mark.parametrize(
    ("after", "points", "state"),
    [
        ((20, 18), (0, 1), None),
        ((20, 5), (0,), None),
        ((5, 5), (), "HOLD_ENDED"),
        ((5, "unread"), (), "HOLD_FAILED"),
        ((20, "unread"), (0,), None),
    ],
)
def test_after_a_crash_only_points_proved_to_be_held_are_reverted_again(given, held, after, points, state):
    ledger, entry = held
    ledger.put(holds.decide_hold(entry, ledger, given.conditions(12)).entry)
    entry = ledger.get("c1")
    both = (given.POINT, given.OTHER)
    read = {p: None if value == "unread" else Reading(value) for p, value in zip(both, after, strict=True)}
    decision = holds.decide_hold_after_crash(entry, read, ledger, given.conditions(20))
    assert isinstance(
        holds.decide_hold_after_crash(entry, read, ledger, given.conditions(20, killed="x")), NotYet
    )
    if state is None:
        assert isinstance(decision, Revert)
        assert decision.points == tuple(both[n] for n in points)
        assert decision.entry == entry
    else:
        assert decision.result.state == state


def test_after_a_crash_a_point_that_a_later_command_wrote_is_not_reverted(given, held, arrive):
    ledger, entry = held
    ledger.put(holds.decide_hold(entry, ledger, given.conditions(12)).entry)
    for number, point in enumerate((given.POINT, given.OTHER)):
        change = {"command_id": f"later{number}", "writes": [{"point": point, "value": 20.0}]}
        accept = arrive(13, ledger=ledger, change=change)
        ledger.put(decide_start(accept.entry, accept.deadline, {}, ledger, given.conditions(13)).entry)
    read = {given.POINT: Reading(20.0), given.OTHER: Reading(18.0)}
    end = holds.decide_hold_after_crash(ledger.get("c1"), read, ledger, given.conditions(20))
    assert end.result.state == "HOLD_SKIPPED"
    ledger.put(end.entry)


def test_the_table_lists_exactly_the_codes_in_use():
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", rules.__doc__, re.MULTILINE))
    folder = Path(rules.__file__).parents[1]
    names = (
        *("rules/checks", "rules/arrival", "rules/start", "rules/outcome", "rules/holds", "rules/verdict"),
        *("rules/results", "rules/restored", "policy/policy", "policy/limits"),
    )
    code = "".join((folder / f"{name}.py").read_text("utf-8") for name in names)
    states = {"ACCEPTED", "EXECUTING", "SUCCEEDED", "MISMATCH", "FAILED", "REJECTED", "UNKNOWN"}
    states |= {"HOLD_ENDED", "HOLD_SKIPPED", "HOLD_FAILED"}
    steps = {"RECEIVED", "STARTED", "ENDED", "NONE", "HELD", "REVERTING", "SKIPPED"}
    calls = {"SET", "REVERT", "DONE", "REFUSED", "NO_ANSWER", "NOT_SENT"}
    outcomes = {"NOT_WRITTEN", "UNVERIFIED", "VERIFIED", "DIFFERENT", "REVERTED"}
    used = set(re.findall(r'"([A-Z][A-Z_]+)"', code))
    assert table - used == set()
    assert used - table - states - steps - calls - outcomes == set()
