"""Which letters are selected and grouped, and what the topic of jobs says after any record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.broker.records import ConsumedRecord
from tieline.dead_letters.groups import Grouping, describe
from tieline.dead_letters.jobs import (
    CANCELLED,
    DONE,
    REPLAY,
    RUNNING,
    SENT,
    WAITING,
    Job,
    Jobs,
    Mark,
    Request,
    is_stale,
    job_record,
    mark_record,
    request_record,
)
from tieline.dead_letters.letter import Cause, DeadLetter, replay_id
from tieline.dead_letters.selection import Selection


def letter(number=1, **changes):
    cause = Cause("TASK_PUT", "ValueError", "no")
    fields = {
        "id": f"c:t-0@{number}", "topic": "t", "partition": 0, "offset": number, "value": b"v", "key": None,
        "headers": (), "timestamp": 0, "cause": cause, "connector": "c", "failed_at": number,
        "stored": ("dead", 0, number),
    }  # fmt: skip
    return DeadLetter(**{**fields, **changes})


def stored(record, offset=0):
    return ConsumedRecord(record.topic, 0, offset, record.value, record.key, record.headers, 0)


def fold(*records):
    jobs = Jobs()
    for record in records:
        jobs.visit(stored(record))
    return jobs


@pytest.mark.parametrize(
    ("conditions", "selected"),
    [
        ({}, {1, 2, 3}),
        ({"letters": ("0@2",)}, {2}),
        ({"letters": ("0@2", "c:t-0@3")}, {2, 3}),
        ({"since": 2}, {2, 3}),
        ({"until": 2}, {1}),
        ({"since": 2, "until": 3}, {2}),
        ({"connector": "c"}, {1, 2, 3}),
        ({"connector": "d"}, set()),
        ({"cause": letter().fingerprint[:4]}, {1, 2, 3}),
        ({"cause": "".join("1" if c == "0" else "0" for c in letter().fingerprint)}, set()),
    ],
)
def test_a_letter_is_selected_if_it_fulfils_every_condition(conditions, selected):
    selection = Selection.parse(**conditions)
    assert {n for n in (1, 2, 3) if selection.includes(letter(n))} == selected


@pytest.mark.parametrize("cause", ["", "x", "3F", "0" * 17])
def test_a_cause_that_cannot_be_one_is_an_error(cause):
    with pytest.raises(ValueError, match="tieline dlq list"):
        Selection.parse(cause)


def test_a_repeated_letter_counts_once_and_the_example_is_the_latest():
    grouping = Grouping()
    assert [grouping.add(letter(n)) for n in (2, 3, 2, 1)] == [True, True, False, True]
    (group,) = grouping.groups
    assert (group.count, group.first, group.last, group.example.offset) == (3, 1, 3, 3)
    assert grouping.repeated == 1


def test_a_letter_without_a_cause_is_described_too():
    text = describe(letter(cause=Cause("", "", "")))
    assert text == "the record t-0@1: no cause is known: the letter has no headers with one"


def test_jobs_marks_and_requests_are_read_back():
    job = Job("j", REPLAY, "dead", "me@h", 5, asked={"since": "2h"}, selection=Selection.parse(since=3))
    mark = Mark("j", SENT, 7, ("replays", 0, 4))
    request = Request("paused", "me@h", 8)
    jobs = fold(job_record(job), mark_record(letter(), "dead", mark), request_record("j", request))
    assert jobs.jobs == {"j": job}
    assert jobs.mark("dead", letter().id) == mark
    assert jobs.mark("dead", letter(2).id) is None
    assert jobs.mark("other", letter().id) is None
    assert jobs.requests == {"j": request}


@given(
    st.sampled_from([b"job x", b"mark x", b"request x", b"request \xff", b"", b"?"]),
    st.one_of(
        st.none(),
        st.binary(max_size=50),
        st.sampled_from(
            [b'{"id": 1}', b"[" * 5000, b'["a"]', b'[["j","sent","x",null],"l","t"]', b'{"at":[]}']
        ),
    ),
)
def test_any_record_in_the_topic_of_jobs_is_harmless(key, value):
    jobs = Jobs()
    jobs.visit(ConsumedRecord("tieline-dlq-jobs", 0, 0, value, key, (), 0))
    assert (jobs.jobs, jobs.requests) == ({}, {})


def test_the_same_command_continues_its_job_until_that_is_done():
    first = Job("1", REPLAY, "dead", "me@h", 5, asked={"since": "2h"}, selection=Selection.parse(since=3))
    again = Job("2", REPLAY, "dead", "me@h", 9, asked={"since": "2h"}, selection=Selection.parse(since=7))
    other = Job("3", REPLAY, "dead", "me@h", 9, asked={"since": "1h"})
    assert fold(job_record(first)).to_continue(again) == first
    assert fold(job_record(first)).to_continue(other) is None
    done = Job("1", REPLAY, "dead", "me@h", 5, asked={"since": "2h"}, state=DONE)
    assert fold(job_record(first), job_record(done)).to_continue(again) is None


@pytest.mark.parametrize(
    ("state", "host", "alive", "now", "stale"),
    [
        (RUNNING, "h", True, 10**9, False),
        (RUNNING, "h", False, 1, True),
        (RUNNING, "elsewhere", False, 60_001, True),
        (RUNNING, "elsewhere", False, 60_000, False),
        (WAITING, "h", True, 1, True),
        (CANCELLED, "h", True, 1, True),
    ],
)
def test_a_job_can_be_taken_over_if_its_process_has_ended(state, host, alive, now, stale):
    job = Job("j", REPLAY, "dead", "me@h", 0, state=state, host="h")
    assert is_stale(job, host, alive, now) is stale


def test_the_letter_of_a_failed_replay_has_the_first_id_and_the_number_of_the_replay():
    assert replay_id("c:t-0@1", 0) == "c:t-0@1"
    assert replay_id(replay_id("c:t-0@1", 1), 2) == "c:t-0@1#2"
