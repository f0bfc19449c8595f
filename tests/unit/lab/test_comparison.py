"""The verdict on a run of the lab reports every fault, and nothing else."""

import collections
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline_lab.comparison import (
    ExpectedReadings,
    Findings,
    Message,
    Verdict,
    check_second_source,
    count_dropped,
    expect_readings,
    judge,
)

TOPICS = ("devices/a/all", "devices/b/all")


def message(number, topic=TOPICS[0]):
    return Message.of(topic, {"TimeStamp": f"2026-01-01T00:00:{number:02d}+00:00"}, [{"n": number}, {}])


def run(seen, stored, **changes):
    """Return findings without faults, except for the differences between seen and stored."""
    stored = collections.Counter(stored)
    return dataclasses.replace(
        Findings(
            seen=collections.Counter(seen),
            stored=stored,
            readings=stored.total(),
            received=stored.total(),
            dropped=0,
            expected=ExpectedReadings((), 1, 1),
        ),
        **changes,
    )


TEN = [message(n) for n in range(10)]


def test_a_message_seen_once_and_stored_once_is_correct():
    verdict = judge(run(TEN, TEN))
    assert verdict.faults == []
    assert verdict.numbers == {
        "seen": 10,
        "in": 10,
        "documents": 10,
        "duplicates": 0,
        "missing": 0,
        "dropped": 0,
        "readings": 10,
    }


def test_messages_before_the_observer_are_neither_missing_nor_duplicates():
    verdict = judge(run(TEN[3:], TEN))
    assert verdict.faults == []
    assert (verdict.numbers["seen"], verdict.numbers["documents"]) == (7, 10)


def test_a_lost_message_is_missing_and_named():
    verdict = judge(run(TEN, TEN[1:], received=10, readings=10))
    assert verdict.numbers["missing"] == 1
    assert verdict.faults == [
        "1 of 10 messages seen on the bus are not stored",
        "the bus source received 10 messages, but tieline.cloudagent has 9 documents",
        'missing: devices/a/all of 2026-01-01T00:00:00+00:00: [{"n": 0}, {}]',
    ]


def test_a_loss_that_a_duplicate_balances_is_still_missing():
    verdict = judge(run(TEN, [*TEN[1:], TEN[5]]))
    assert (verdict.numbers["missing"], verdict.numbers["duplicates"]) == (1, 1)
    assert verdict.numbers["documents"] == verdict.numbers["in"] == verdict.numbers["seen"]
    assert len(verdict.faults) == 3


def test_a_message_whose_body_or_time_was_changed_is_missing():
    other_body = Message(TEN[0].topic, TEN[0].time, '[{"n": 0.5}, {}]')
    other_time = Message(TEN[1].topic, "", TEN[1].body)
    assert judge(run(TEN, [other_body, other_time, *TEN[2:]])).numbers["missing"] == 2


def test_equal_messages_are_counted():
    twice = [TEN[0], TEN[0]]
    assert judge(run(twice, twice)).faults == []
    assert judge(run(twice, twice[:1])).numbers["missing"] == 1
    assert judge(run(twice, [*twice, TEN[0]])).numbers["duplicates"] == 1


def test_the_order_of_keys_in_a_body_does_not_matter():
    assert Message.of("t", {}, {"a": 1, "b": 2}) == Message.of("t", {}, {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"dropped": 2}, "2 messages were dropped or quarantined"),
        ({"readings": 9}, "the bus source received 10 messages, but tieline.readings has 9 documents"),
        (
            {"expected": ExpectedReadings(TOPICS[:1], 11, 20)},
            "10 messages of devices/a/all were seen; 11 to 20 are plausible",
        ),
        (
            {"expected": ExpectedReadings(TOPICS[:1], 1, 9)},
            "10 messages of devices/a/all were seen; 1 to 9 are plausible",
        ),
        (
            {"expected": ExpectedReadings(TOPICS, 1, 10)},
            "0 messages of devices/b/all were seen; 1 to 10 are plausible",
        ),
    ],
)
def test_each_other_fault_is_reported_alone(changes, fault):
    assert judge(run(TEN, TEN, **changes)).faults == [fault]


def test_the_problems_of_a_worker_are_added_to_the_verdict():
    verdict = judge(run(TEN, TEN[1:], received=10, readings=10))
    both = verdict.combine(Verdict({"writes": 1}, ["bus is FAILED: no"]))
    assert both.faults == [*verdict.faults, "bus is FAILED: no"]
    assert both.numbers == {**verdict.numbers, "writes": 1}


def test_a_run_without_any_message_is_a_fault():
    assert judge(run([], [], expected=expect_readings(TOPICS, 1, 0))).faults == [
        "no message was seen on the bus"
    ]


@given(
    st.floats(0.0, 0.999),
    st.integers(1, 3600).flatmap(lambda i: st.tuples(st.just(i), st.floats(0, 50.0 * i))),
)
def test_a_driver_that_is_in_time_is_plausible_and_half_of_its_readings_are_not(phase, run_of):
    """``phase`` is how far into its interval a device is when the first message of any device arrives."""
    interval, seconds = run_of
    plan = expect_readings(["t"], interval, seconds)
    in_time = sum(1 for n in range(100) if (n + phase) * interval <= seconds)
    assert plan.least <= in_time <= plan.most
    assert seconds < 10 * interval or not plan.least <= in_time // 2
    assert seconds < 10 * interval or 2 * in_time > plan.most


def test_only_dropped_and_quarantined_messages_of_all_connectors_are_added():
    ledgers: list[dict[str, dict[str, int]]] = [
        {"counters": {"dropped.spool_full": 3, "spooled": 100, "reconnects": 1}},
        {"counters": {"quarantined.too_deep": 2, "duplicates": 7}},
        {"counters": {}},
    ]
    assert count_dropped(ledgers) == 5


def test_a_second_source_that_loses_or_delivers_nothing_is_a_fault():
    assert check_second_source({"counters": {"spooled": 5}, "delivered": 5}) == []
    assert check_second_source({"counters": {"spooled": 5}, "delivered": 4}) != []
    assert check_second_source({"counters": {}, "delivered": 0}) != []
    assert check_second_source(None) != []
