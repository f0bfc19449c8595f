"""The changelogs in memory keep the contract that tests/contract/broker holds both homes to."""

from __future__ import annotations

import pytest

from tieline.api import DataError, FencedError, RetriableError, Schema, SourceRecord, TopicPartition
from tieline.testing.changelogs import Changelogs
from tieline.testing.crash.points import Crash
from tieline.testing.sink_context import RecordingSinkContext

ENTRY = Schema.parse('{"type": "record", "name": "t.Entry", "fields": [{"name": "n", "type": "long"}]}')
AT = TopicPartition("t", 0)


def opened(changelogs):
    return RecordingSinkContext(changelogs=changelogs).changelog(AT, ENTRY)


def test_the_next_owner_finds_the_latest_value_of_each_key_and_no_deleted_one():
    changelogs = Changelogs()
    first = opened(changelogs)
    first.write({"a": {"n": 1}, "b": {"n": 1}}, [SourceRecord("results", {"ok": True})], offset=5)
    first.write({"a": {"n": 2}, "b": None}, offset=4)
    assert first.entries == {}
    assert opened(changelogs).entries == changelogs.entries(AT) == {"a": {"n": 2}}
    assert changelogs.offsets == {AT: 5}
    assert [record.value for record in changelogs.records] == [{"ok": True}]


def test_a_former_owner_is_fenced_and_writes_nothing():
    changelogs = Changelogs()
    first, second = opened(changelogs), opened(changelogs)
    with pytest.raises(FencedError):
        first.write({"a": {"n": 1}})
    second.write({"b": {"n": 1}})
    changelogs.fence(AT)
    with pytest.raises(FencedError):
        second.write({"b": {"n": 2}})
    assert changelogs.entries(AT) == {"b": {"n": 1}}
    assert changelogs.writes == 1


@pytest.mark.parametrize(("when", "writes"), [("before", 1), ("after", 2)])
def test_a_crash_comes_before_or_after_the_named_write(when, writes):
    changelogs = Changelogs()
    changelogs.fail(2, Crash("here"), when)
    changelog = opened(changelogs)
    changelog.write({"a": {"n": 1}})
    with pytest.raises(Crash):
        changelog.write({"a": {"n": 2}})
    assert changelogs.writes == writes
    assert opened(changelogs).entries == {"a": {"n": writes}}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_that_is_repeated_after_an_outage_takes_effect_once(when):
    changelogs = Changelogs()
    changelogs.fail(1, RetriableError("away"), when)
    changelog = opened(changelogs)
    for attempt in range(2):
        try:
            changelog.write({"a": {"n": 1}}, [SourceRecord("results", 1)], 1)
        except RetriableError:
            assert attempt == 0
    assert changelogs.writes == 1
    assert [record.value for record in changelogs.records] == [1]


def test_a_value_that_does_not_match_its_schema_is_named_with_its_path_and_not_written():
    changelogs = Changelogs()
    changelog = opened(changelogs)
    for entries, records, index in (
        ({"a": {"n": 1}, "b": {"n": "no"}}, [], 1),
        ({"a": {"n": 1}}, [SourceRecord("results", {"n": "no"}, value_schema=ENTRY)], 1),
        ({}, [SourceRecord("results", 1), SourceRecord("results", b"no")], 1),
    ):
        with pytest.raises(DataError) as caught:
            changelog.write(entries, records)
        assert set(caught.value.failures) == {index}
    assert changelogs.writes == 0


def test_a_changelog_that_cannot_be_opened_yet_can_be_opened_later():
    changelogs = Changelogs()
    changelogs.fail_to_open(RetriableError("away"))
    with pytest.raises(RetriableError):
        opened(changelogs)
    assert opened(changelogs).entries == {}
