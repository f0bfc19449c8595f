import io
from typing import Any

import fastavro
import pytest

from tieline.api import Schema
from tieline_connectors.command.model.command import Result, WriteResult, digest
from tieline_connectors.command.model.entry import IllegalStepError, LedgerEntry
from tieline_connectors.command.model.ledger import CommandLedger, PastWrite, Retention


@pytest.fixture
def entry(given):
    def of(command_id="c", **changes):
        command = given.command(command_id=command_id, **changes)
        return LedgerEntry(command, digest(command), "RECEIVED", given.T0, command.expires_at)

    return of


def started(entry, time):
    return entry._replace(state="STARTED", started_at=time)


def ended(entry, time, *, state="SUCCEEDED", outcome="VERIFIED", previous=None, hold_until=None):
    writes = tuple(WriteResult(w.point, w.value, previous, outcome=outcome) for w in entry.command.writes)
    result = Result(entry.command_id, state, time, writes=writes)
    hold = "NONE" if hold_until is None else "HELD"
    return entry._replace(state="ENDED", ended_at=time, result=result, hold=hold, hold_until=hold_until)


def reverting(entry, time):
    return entry._replace(hold="REVERTING", reverting_at=time)


def through_avro(name, value):
    schema = Schema.named(name).parsed
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, value, strict=True)
    buffer.seek(0)
    return fastavro.schemaless_reader(buffer, schema, None)


def test_entries_and_results_match_their_schemas_and_are_read_back(given, entry):
    whole = reverting(
        ended(started(entry(hold_ms=5, reason="é"), given.T0 + 1), given.T0 + 2, hold_until=7), 8
    )
    assert LedgerEntry.from_value(through_avro("command.LedgerEntry", whole.to_value())) == whole
    assert LedgerEntry.from_value(through_avro("command.LedgerEntry", entry().to_value())) == entry()
    reported = whole.result._replace(raw=b"\0")
    writes = [write._asdict() for write in reported.writes]
    assert through_avro("command.CommandResult", reported.to_value()) == {
        **reported._asdict(),
        "writes": writes,
    }


@pytest.mark.parametrize(
    "change",
    [{"state": "OTHER"}, {"hold": "OTHER"}, {"command": "{}"}, {"command": "[" * 5000}, {"result": "[]"}],
)
def test_an_entry_of_a_later_version_or_a_damaged_one_is_refused(entry, change):
    with pytest.raises(ValueError):  # noqa: PT011 - several sentences
        LedgerEntry.from_value({**entry().to_value(), **change})


def test_the_legal_steps_and_no_others(entry):
    received = entry(hold_ms=5)
    begun = started(received, 1)
    done = ended(begun, 2)
    held = ended(begun, 2, hold_until=9)
    back = reverting(held, 9)
    states = {
        "nothing": None,
        "received": received,
        "begun": begun,
        "done": done,
        "held": held,
        "back": back,
        "back ended": back._replace(hold="ENDED"),
        "skipped": held._replace(hold="SKIPPED"),
        "failed": back._replace(hold="FAILED"),
    }
    legal = {
        ("nothing", "received"),
        ("nothing", "begun"),
        ("nothing", "done"),
        ("nothing", "held"),
        ("received", "begun"),
        ("received", "done"),
        ("received", "held"),
        ("begun", "done"),
        ("begun", "held"),
        ("held", "back"),
        ("held", "skipped"),
        ("back", "back ended"),
        ("back", "held"),
        ("back", "skipped"),
    }
    for before_name, before in states.items():
        for after_name, after in states.items():
            if after is None or before == after:
                continue
            ledger = CommandLedger([] if before is None else [before])
            after = (
                after._replace(reverting_at=before.reverting_at) if before and before.reverting_at else after
            )
            try:
                ledger.put(after)
                allowed = True
            except IllegalStepError:
                allowed = False
                assert ledger.get("c") == before
            assert allowed is ((before_name, after_name) in legal), (before_name, after_name)


def test_a_step_keeps_the_identity_of_its_command(entry):
    ledger = CommandLedger([entry()])
    with pytest.raises(IllegalStepError):
        ledger.put(started(entry(reason="another"), 1))
    with pytest.raises(IllegalStepError):
        ledger.put(started(entry(), 1)._replace(deadline=5))
    with pytest.raises(IllegalStepError):
        ledger.put(entry()._replace(state="ENDED"))


def test_a_repeated_step_changes_nothing(entry):
    ledger = CommandLedger()
    ledger.put(entry())
    ledger.put(entry())
    assert len(ledger) == 1


def test_the_ledger_returns_what_is_due_and_the_next_time(given, entry):
    now = given.T0
    later = entry("later", not_before=now + 50)
    expiring = entry("expiring", not_before=now + given.MINUTE + 5)
    held = ended(started(entry("held", hold_ms=5), now), now, hold_until=now + 20)
    ledger = CommandLedger(
        [later, entry("now"), expiring, held, started(entry("begun"), now), ended(entry("done"), now)]
    )
    assert [e.command_id for e in ledger.due(now)] == ["now"]
    assert [e.command_id for e in ledger.due(now + 100)] == ["now", "held", "later"]
    assert [e.command_id for e in ledger.due(now + given.MINUTE)] == ["now", "held", "later", "expiring"]
    assert ledger.next_due() == now
    ledger.put(ended(entry("now"), now, outcome="NOT_WRITTEN"))
    assert ledger.next_due() == now + 20
    assert [e.command_id for e in ledger.unfinished()] == ["begun"]
    ledger.put(reverting(held, now + 30))
    assert [e.command_id for e in ledger.unfinished()] == ["begun", "held"]
    assert ledger.next_due() == now + 50
    assert CommandLedger().next_due() is None


def test_the_newest_time_is_of_the_workers_clock_alone(given, entry):
    far = given.T0 + given.MINUTE - 1
    assert CommandLedger([entry(issued_at=far, not_before=far)]).latest_time == given.T0
    held = ended(started(entry(hold_ms=5), given.T0 + 3), given.T0 + 4, hold_until=far)
    assert CommandLedger([held]).latest_time == given.T0 + 4
    assert CommandLedger([reverting(held, given.T0 + 9)]).latest_time == given.T0 + 9
    assert CommandLedger().latest_time == 0


@pytest.mark.parametrize("reload", [False, True])
def test_the_writes_of_a_point_are_listed_newest_first(given, entry, reload):
    ledger = CommandLedger()

    def put(*entries):
        for step in entries:
            ledger.put(step)

    first, second, third = entry("1"), entry("2", hold_ms=5), entry("3", hold_ms=5)
    put(started(first, 100), ended(started(first, 100), 101, previous=19.0))
    put(started(second, 200), held := ended(started(second, 200), 201, hold_until=250))
    put(started(third, 300))
    refused = entry("4")
    put(started(refused, 400), ended(started(refused, 400), 401, state="FAILED", outcome="NOT_WRITTEN"))
    put(reverting(held, 500))
    put(entry("5"))
    if reload:
        ledger = CommandLedger(reversed(list(ledger)))
    all_of_it = [
        PastWrite(500, "2", None),
        PastWrite(300, "3", 21.5),
        PastWrite(200, "2", 21.5),
        PastWrite(100, "1", 21.5, 19.0),
    ]
    assert ledger.writes(given.POINT.upper(), 0) == all_of_it
    assert ledger.writes(given.POINT, 300) == all_of_it[:3]
    assert ledger.writes(given.POINT, 301) == all_of_it[:2]
    assert ledger.writes(given.OTHER, 0) == []
    latest = {entry.command_id: entry for entry in ledger}
    assert ledger.written_after(latest["1"], given.POINT)
    assert ledger.written_after(latest["2"], given.POINT)
    assert not ledger.written_after(latest["3"], given.POINT)  # the revert of a hold is not a write


@pytest.mark.parametrize("reload", [False, True])
def test_starts_are_counted_by_issuer_device_and_in_all(given, entry, reload):
    elsewhere = {"writes": [{"point": "campus/b2/vav/x", "value": 1}]}
    ledger = CommandLedger()
    changes: list[dict[str, Any]] = [{}, {"issuer": "else"}, elsewhere]
    for number, change in enumerate(changes):
        ledger.put(started(entry(str(number), **change), 100 + number))
    ledger.put(entry("waits"))
    ledger.put(ended(entry("refused"), 150, state="REJECTED", outcome="NOT_WRITTEN"))
    ledger.put(ended(ledger.get("0"), 150))
    if reload:
        ledger = CommandLedger(list(ledger))
    assert ledger.count_starts(0) == 3
    assert ledger.count_starts(100) == 2
    assert ledger.count_starts(102) == 0
    assert ledger.count_starts(0, issuer="energy-manager") == 2
    assert ledger.count_starts(0, device="campus/b1/AHU1") == 2
    assert ledger.count_starts(0, device="campus/b2/vav") == 1
    assert ledger.count_starts(0, device="nowhere") == 0


def refused(entry, time):
    return entry._replace(
        state="ENDED",
        ended_at=time,
        result=Result(entry.command_id, "REJECTED", time, reason_code="NOT_ALLOWED"),
    )


def test_a_rejection_of_an_unknown_issuer_is_forgotten_earlier_and_counted_until_then(given, entry):
    now = given.T0
    ledger = CommandLedger(
        [refused(entry("stranger"), now + 2), ended(started(entry("done"), now + 1), now + 2)]
    )
    ledger.put(entry("later"))
    ledger.put(refused(ledger.get("later"), now + 50))
    assert ledger.unauthorized == 2
    assert ledger.removable(now + 11, Retention(100, 10)) == []
    assert ledger.removable(now + 12, Retention(100, 10)) == ["stranger"]
    assert ledger.removable(now + 102, Retention(100, 10)) == ["stranger", "done", "later"]
    ledger.remove(["stranger", "done"], now + 102)
    assert (ledger.unauthorized, CommandLedger(list(ledger)).unauthorized) == (1, 1)


def test_the_command_that_overwrote_a_hold_is_remembered_until_the_hold_ends(given, entry):
    """It keeps the hold from giving back what is not its own any more."""
    now = given.T0
    held = ended(started(entry("held", hold_ms=5), now + 1), now + 2, hold_until=now + 10**9)
    later = ended(started(entry("later"), now + 3), now + 4)
    ledger = CommandLedger([held, later])
    assert ledger.removable(now + 1000, Retention(100, 50)) == []
    assert ledger.written_after(held, given.POINT)
    assert CommandLedger([later]).removable(now + 1000, Retention(100, 50)) == ["later"]


def test_only_finished_commands_are_forgotten_together_with_their_writes(given, entry):
    now = given.T0
    done = ended(started(entry("done"), now + 1), now + 2)
    held = ended(started(entry("held", hold_ms=5), now + 3), now + 4, hold_until=now + 9)
    ledger = CommandLedger([done, held, entry("waits"), started(entry("begun"), now + 5)])
    retention = Retention(100, 50)
    assert ledger.removable(now + 101, retention) == []
    assert ledger.removable(now + 102, retention) == ["done"]
    assert ledger.removable(now + 10**15, retention) == ["done"]
    ledger.remove(["done", "held"], now + 102)
    assert {e.command_id for e in ledger} == {"held", "waits", "begun"}
    assert [w.command_id for w in ledger.writes(given.POINT, 0)] == ["begun", "held"]
    assert ledger.count_starts(0) == 3
    ledger.remove([], now + 2 * 86_400_000_000)
    assert ledger.count_starts(0) == 0
