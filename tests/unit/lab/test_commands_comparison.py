"""The verdict on commands and records for the bus reports every fault, and nothing else."""

import collections
import dataclasses

import pytest

from tieline_lab.commands_comparison import (
    BusRecords,
    CommandFindings,
    Write,
    find_owed_writes,
    find_unended,
    judge_commands,
)
from tieline_lab.comparison import Message

POINT = "campus/device1/SetPoint"
BACK = [Message("analysis/x", f"2026-01-01T00:00:{n:02d}+00:00", str(n)) for n in range(5)]


def command(number, **fields):
    plain = {"action": "SET", "writes": [{"point": POINT, "value": 20.0 + number}], "hold_ms": None}
    return {"command_id": f"c{number}", **plain, **fields}


def result(number, state="SUCCEEDED", outcome="VERIFIED", **fields):
    write = {"point": POINT, "requested": 20.0 + number, "outcome": outcome}
    plain = {"reason_code": "", "reason": "", "writes": [write], "dry_run": False, "at": 1000 + number}
    return {"command_id": f"c{number}", "state": state, **plain, **fields}


def results_of(number):
    """Return all results of a command that succeeds."""
    return [result(number, state, "NOT_WRITTEN") for state in ("ACCEPTED", "EXECUTING")] + [result(number)]


def at_device(value, kind="set"):
    return {"time": "…", "device": "campus/device1", "point": "SetPoint", "value": value, "kind": kind}


NOT_DONE = {
    "REJECTED": "c4",
    "EXPIRED": "c5",
}
COMMANDS = [*map(command, range(6)), command(6, dry_run=True), command(7, hold_ms=500)]
RESULTS = [
    *(value for n in range(4) for value in results_of(n)),
    *(result(int(name[1:]), state, "NOT_WRITTEN") for state, name in NOT_DONE.items()),
    result(6, outcome="NOT_WRITTEN", dry_run=True),
    result(7),
    result(7, "HOLD_ENDED", "REVERTED"),
]
WRITES = [*(at_device(20.0 + n) for n in (0, 1, 2, 3, 7)), at_device(20.0, "revert")]


def run(**changes):
    """Return findings without faults, except for the changes."""
    commands, results = changes.get("commands", COMMANDS), changes.get("results", RESULTS)
    unique = {str(value): value for value in results}
    good = CommandFindings(
        commands=commands,
        results=results,
        writes=WRITES,
        history=len(commands) + len(unique),
        expected_states={f"c{n}": "SUCCEEDED" for n in (0, 1, 2, 3, 6, 7)}
        | {name: state for state, name in NOT_DONE.items()},
        bus_records=BusRecords(collections.Counter(BACK), collections.Counter(BACK), len(BACK)),
    )
    return dataclasses.replace(good, **changes)


def faults(**changes):
    return judge_commands(run(**changes)).faults


def test_a_command_done_once_and_reported_is_correct():
    verdict = judge_commands(run())
    assert verdict.faults == []
    assert verdict.numbers == {
        "commands": 8,
        "ended": 8,
        "succeeded": 6,
        "rejected": 1,
        "expired": 1,
        "writes": 6,
        "writes_doubled": 0,
        "writes_missing": 0,
        "history": 8 + 17,
        "published": 5,
        "heard": 5,
        "echoes": 5,
    }


def test_a_command_that_was_executed_twice_is_a_fault():
    verdict = judge_commands(run(writes=[*WRITES, WRITES[2]]))
    assert verdict.numbers["writes_doubled"] == 1
    assert verdict.faults == [
        "a device was written, but no result reports it: campus/device1/SetPoint = 22.0"
    ]


def test_a_duplicate_and_a_loss_that_balance_are_both_found():
    verdict = judge_commands(run(writes=[*WRITES[1:], WRITES[2]]))
    assert (verdict.numbers["writes_doubled"], verdict.numbers["writes_missing"]) == (1, 1)
    assert verdict.numbers["writes"] == len(WRITES)
    assert len(verdict.faults) == 2


def test_a_result_with_a_write_that_no_device_received_is_found():
    assert faults(writes=WRITES[1:]) == [
        "a result reports a write that reached no device: campus/device1/SetPoint = 20.0"
    ]


@pytest.mark.parametrize("number", [4, 5, 6])
def test_a_write_by_a_rejected_expired_or_dry_command_is_a_fault(number):
    assert faults(writes=[*WRITES, at_device(20.0 + number)]) == [
        f"a device was written, but no result reports it: campus/device1/SetPoint = {20.0 + number}"
    ]


def test_a_hold_that_was_reverted_twice_or_never_is_found():
    write = "campus/device1/SetPoint reverted"
    assert faults(writes=[*WRITES, WRITES[-1]]) == [
        f"a device was written, but no result reports it: {write}"
    ]
    assert faults(writes=WRITES[:-1]) == [f"a result reports a write that reached no device: {write}"]
    assert faults(results=RESULTS[:-1], writes=WRITES[:-1]) == ["command c7 has not ended"]


def test_a_hold_that_a_later_command_took_over_has_ended_and_owes_nothing():
    skipped = [*RESULTS[:-1], result(7, "HOLD_SKIPPED", "NOT_WRITTEN")]
    assert faults(results=skipped, writes=WRITES[:-1]) == []


def test_a_command_without_a_terminal_result_is_a_fault():
    results = [value for value in RESULTS if (value["command_id"], value["state"]) != ("c4", "REJECTED")]
    assert faults(results=results) == [
        "command c4 has not ended",
        "command c4 has no result, expected REJECTED",
    ]
    assert find_unended(COMMANDS, results) == {"c4"}


def test_a_command_with_two_ends_is_found_and_a_repeated_end_counts_once():
    assert faults(results=[*RESULTS, RESULTS[2]]) == []
    later = result(0, at=5000)
    assert faults(results=[*RESULTS, later], writes=[*WRITES, WRITES[0]]) == [
        "command c0 ended 2 times: SUCCEEDED, SUCCEEDED"
    ]


def test_a_repeated_command_counts_once_with_one_more_document():
    assert faults(commands=[*COMMANDS, COMMANDS[0]]) == []


def test_an_answer_to_another_command_with_the_same_id_is_not_a_second_end():
    conflict = result(0, "REJECTED", "NOT_WRITTEN", reason_code="CONFLICT")
    assert faults(results=[*RESULTS, conflict]) == []


def test_a_command_that_should_have_been_rejected_is_a_fault():
    (fault,) = faults(expected_states={"c0": "REJECTED"})
    assert fault == "command c0 ended as SUCCEEDED, not as REJECTED: "


def test_a_history_without_one_of_its_documents_is_a_fault():
    assert faults(history=24) == ["commands and results make 25 documents, but tieline.commands has 24"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"heard": collections.Counter(BACK[1:]), "echoes": 4},
            "published, but not seen on the bus: analysis/x of 2026-01-01T00:00:00+00:00: 0",
        ),
        (
            {"heard": collections.Counter([*BACK, BACK[1]]), "echoes": 6},
            "seen on the bus more often than published: analysis/x of 2026-01-01T00:00:01+00:00: 1",
        ),
        ({"echoes": 4}, "5 messages of the worker were seen on the bus, but the source recognized 4 echoes"),
        ({"echoes": 6}, "5 messages of the worker were seen on the bus, but the source recognized 6 echoes"),
    ],
)
def test_a_record_that_does_not_return_exactly_once_is_found(change, fault):
    assert faults(bus_records=dataclasses.replace(run().bus_records, **change)) == [fault]


def test_records_of_another_sender_are_not_compared():
    other = Message("analysis/theirs", "", "1")
    heard = collections.Counter([*BACK, other])
    assert faults(bus_records=BusRecords(collections.Counter(BACK), heard, echoes=6)) == []


def test_an_unknown_outcome_permits_one_write_and_requires_none():
    unknown = [result(0, "UNKNOWN", "UNKNOWN")]
    commands = [command(0)]
    for writes in ([], [at_device(20.0)], [at_device(20.0), at_device(20.0, "revert")]):
        assert faults(commands=commands, results=unknown, writes=writes, expected_states={}) == []
    assert (
        len(faults(commands=commands, results=unknown, writes=[at_device(20.0)] * 2, expected_states={})) == 1
    )


def test_a_write_and_its_revert_are_two_writes_and_a_revert_command_is_one():
    failed = result(0, "FAILED", "REVERTED")
    reverted = result(1, outcome="UNVERIFIED")
    commands = [command(0), command(1, action="REVERT")]
    done, possible = find_owed_writes(commands, [failed, reverted])
    assert done == {Write(POINT, "set", 20.0): 1, Write(POINT, "revert"): 2}
    assert not possible
