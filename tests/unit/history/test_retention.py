"""Retention by age and size, in steps."""

import logging
from contextlib import closing

import apsw
import pytest

from tieline_connectors.history.writing import retention
from tieline_connectors.history.writing.retention import Retention, RetentionLimits
from tieline_connectors.history.writing.writer import HistoryWriter

NO_LIMIT = RetentionLimits(-1, -1, -1)
HOUR_MS = 3_600_000


@pytest.fixture
def filled(new_task, reading, path):
    """A writer of ten days of readings, every ten minutes, of six points."""
    task = new_task()
    task.put([reading(n * 600, {f"point{k}": n + k / 7 for k in range(6)}) for n in range(10 * 144)])
    task.stop()
    with closing(HistoryWriter(path)) as writer:
        yield writer


def count(writer, table):
    return writer.read(f"SELECT count(*) FROM {table}")


def size(writer):
    pages = writer.connection.pragma("page_count") - writer.connection.pragma("freelist_count")
    return pages * 4096


def at_the_end(reading):
    return lambda: reading(10 * 86400 - 1).value["time"] // 1000


@pytest.mark.slow
def test_without_limits_nothing_expires(filled):
    before = {table: count(filled, table) for table in ("reading", "five_minutes", "one_hour", "record")}
    assert Retention(filled, NO_LIMIT).run(1.0)
    assert {table: count(filled, table) for table in before} == before
    assert before["reading"] == 10 * 144 * 6


@pytest.mark.slow
def test_readings_expire_by_age_and_rollups_stay(filled, reading):
    limits = RetentionLimits(24 * HOUR_MS, -1, -1)
    assert Retention(filled, limits, at_the_end(reading)).run(10.0)
    assert count(filled, "reading") == 25 * 6 * 6
    assert count(filled, "one_hour") == 240 * 6
    assert count(filled, "record") == 2 * 144


@pytest.mark.slow
def test_rollups_expire_by_their_own_age(filled, reading):
    limits = RetentionLimits(24 * HOUR_MS, 72 * HOUR_MS, -1)
    assert Retention(filled, limits, at_the_end(reading)).run(10.0)
    assert count(filled, "five_minutes") == 73 * 6 * 6
    assert count(filled, "one_hour") == 96 * 6


@pytest.mark.slow
def test_a_clock_that_is_years_ahead_deletes_nothing(filled):
    limits = RetentionLimits(10 * 24 * HOUR_MS, -1, -1)
    assert Retention(filled, limits, lambda: 4_102_444_800_000).run(10.0)
    assert count(filled, "reading") == 10 * 144 * 6


@pytest.mark.slow
def test_deletion_is_made_of_small_steps_and_continues_later(filled, reading, monkeypatch):
    monkeypatch.setattr(retention, "_STEP", 500)
    steps = []
    transact = filled.transact

    def step(change):
        steps.append(change)
        return transact(change)

    monkeypatch.setattr(filled, "transact", step)
    worker = Retention(filled, RetentionLimits(0, -1, -1), at_the_end(reading))
    assert not worker.run(0.0)
    assert count(filled, "reading") == 10 * 144 * 6 - 500
    assert worker.run(10.0)
    assert len(steps) > 10
    assert count(filled, "reading") == 6 * 6


def test_by_size_the_oldest_readings_go_first_and_the_file_shrinks(filled, path):
    limit = size(filled) * 2 // 3
    assert Retention(filled, RetentionLimits(-1, -1, limit)).run(10.0)
    assert size(filled) <= limit
    filled.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert path.stat().st_size <= limit + limit // 16
    assert filled.read("SELECT min(hour) FROM reading") > filled.read("SELECT min(hour) FROM five_minutes")
    assert count(filled, "one_hour") == 240 * 6


def test_by_size_rollups_go_when_they_reach_ten_times_further_back(filled):
    limits = RetentionLimits(-1, -1, size(filled) // 4)
    assert Retention(filled, limits).run(10.0)
    assert size(filled) <= limits.file_bytes
    newest = filled.read("SELECT max(hour) FROM reading")
    readings, five_minutes, one_hour = (
        newest - filled.read(query)
        for query in (
            "SELECT min(hour) FROM reading",
            "SELECT min(hour) FROM five_minutes",
            "SELECT min(day) * 24 FROM one_hour",
        )
    )
    assert readings <= five_minutes <= one_hour


def test_the_readings_of_the_last_hour_stay_and_a_limit_that_is_too_small_is_reported_once(filled, caplog):
    worker = Retention(filled, RetentionLimits(-1, -1, 8192))
    with caplog.at_level(logging.WARNING):
        assert worker.run(10.0)
        assert worker.run(10.0)
    assert count(filled, "reading") == 6 * 6
    assert [record.message for record in caplog.records] == [
        f"{filled.path} exceeds retention.bytes (8192) with the readings of one hour: raise it"
    ]


def test_a_reading_of_the_future_does_not_let_the_present_expire(new_task, reading, path):
    with_future = new_task()
    with_future.put([reading(n, {f"point{k}": n for k in range(20)}) for n in range(0, 3600, 60)])
    with_future.put([reading(10**9)])
    with_future.stop()
    now = reading(1800).value["time"] // 1000
    with closing(HistoryWriter(path)) as writer:
        assert Retention(writer, RetentionLimits(-1, -1, 8192), lambda: now).run(10.0)
        assert count(writer, "reading") == 60 * 20 + 1
