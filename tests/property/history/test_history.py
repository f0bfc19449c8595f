"""The rows and rollups of a history file, and what a chart shows, against a computation by hand."""

import math
import os
from collections import defaultdict
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.api import DataError, SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.history.config import HistorySinkConfig
from tieline_connectors.history.database import FILE_NAME, open_to_read
from tieline_connectors.history.model.stored_values import from_stored
from tieline_connectors.history.sink import HistorySinkTask
from tieline_connectors.history.store import HistoryStore
from tieline_connectors.history.writing.retention import Retention, RetentionLimits
from tieline_connectors.history.writing.writer import HistoryWriter
from tieline_connectors.points.questions import PointName

MEMORY = "/dev/shm"
"""A folder in memory, where nothing waits for a disk."""

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND
T0 = 1_767_225_600 * SECOND  # 2026-01-01

NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**63 - 1, -(2**63), 0.5, -0.0, 1e300]),
    st.sampled_from([{"json": str(2**70)}, {"json": str(-(10**30))}]),
)
OTHERS = st.sampled_from(
    [
        None,
        math.nan,
        math.inf,
        -math.inf,
        "text",
        {"json": "[1, 2]"},
        {"json": '{"a": 1}'},
        {"json": "1" + "0" * 400},
    ]
)
VALUES = st.one_of(NUMBERS, NUMBERS, OTHERS)
TIMES = st.one_of(
    st.integers(0, 20).map(lambda n: T0 + n * 5 * MINUTE),
    st.integers(0, 12 * HOUR).map(lambda n: T0 + n),
    st.integers(0, 5 * DAY).map(lambda n: T0 + n),
    st.sampled_from([T0 - 1, T0 + HOUR - 1, T0 + DAY, -1, 0]),
)


@st.composite
def all_records(draw):
    """Records of up to three points of a device, no two of them received at the same time."""
    number = draw(st.integers(0, 12))
    records = []
    for index in range(number):
        time = draw(TIMES)
        points = draw(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1, max_size=3))
        records.append(record(index, time, points, T0 + DAY + draw(st.integers(0, 1000)) * 100 + index))
    return records


def record(index, time, points, received):
    value = {
        "platform": "p",
        "topic": f"devices/d/{'all' if len(points) > 1 else next(iter(points))}",
        "device": "d",
        "kind": "ALL" if len(points) > 1 else "POINT",
        "sender": "driver",
        "headers": {},
        "time": time,
        "time_source": "TIMESTAMP",
        "received": received,
        "points": points,
        "metadata": {"a": {"units": "C", "type": None, "tz": None}},
    }
    return SinkRecord("t", 0, index, value, headers=identity(index, digest_of=repr(value).encode()))


@contextmanager
def running():
    with TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        config = HistorySinkConfig.parse({"retention.ms": "-1"})
        task = HistorySinkTask(RecordingSinkContext(data_dir=Path(folder)), config)
        task.start()
        try:
            yield task, Path(folder) / FILE_NAME
        finally:
            task.stop()


def deliver(task, records, cuts):
    """Put the records in batches that end at these indexes."""
    ends = sorted({min(cut, len(records)) for cut in cuts} | {len(records)})
    start = 0
    for end in ends:
        task.put(records[start:end])
        start = end


def plain(value):
    return int(value["json"]) if isinstance(value, dict) and value["json"].lstrip("-").isdigit() else value


def number_of(value):
    """The number that a chart shows, or ``None``."""
    value = plain(value)
    if isinstance(value, (bool, int, float)):
        try:
            return float(value) if math.isfinite(float(value)) else None
        except OverflowError:
            return None
    return None


def expected_rows(records):
    """The value that was received last, for each point and time."""
    rows = {}
    for each in sorted(records, key=lambda r: r.value["received"]):
        for point, value in each.value["points"].items():
            rows[point, each.value["time"]] = value
    return rows


def expected_rollups(rows, width):
    """``(first, minimum, maximum, last, skipped)`` by point and interval."""
    by_interval = defaultdict(list)
    for (point, time), value in sorted(rows.items(), key=lambda item: item[0][1]):
        by_interval[point, time // width].append(value)
    buckets = {}
    for key, values in by_interval.items():
        numbers = [n for n in map(number_of, values) if n is not None]
        skipped = any(v is not None and number_of(v) is None for v in values)
        edges = (numbers[0], min(numbers), max(numbers), numbers[-1]) if numbers else (None,) * 4
        buckets[key] = (*edges, int(skipped))
    return buckets


def stored_rollups(path, table, interval):
    numbers = (
        "coalesce(first, minimum), minimum, coalesce(maximum, minimum), coalesce(last, maximum, minimum)"
    )
    return ask(path, f"SELECT point, {interval}, {numbers}, skipped FROM {table} JOIN series ON series = id")


def stored_rows(path):
    return ask(
        path,
        "SELECT point, hour * 3600000000 + at + 1800000000, value, delay, topic, units"
        " FROM reading JOIN series ON series.id = reading.series"
        " JOIN publication ON publication.series = reading.series AND number = reading.publication",
    )


def ask(path, query):
    """The rows of a query by their point and time."""
    with closing(open_to_read(path)) as connection:
        return {row[:2]: row[2:] for row in connection.execute(query)}


def check_rollups(path, rows):
    assert stored_rollups(path, "five_minutes", "hour * 12 + slot") == expected_rollups(rows, 5 * MINUTE)
    assert stored_rollups(path, "one_hour", "day * 24 + hour_of_day") == expected_rollups(rows, HOUR)


def same(left, right):
    return type(left) is type(right) and repr(left) == repr(right)


@pytest.mark.slow
@given(all_records(), st.data())
def test_any_order_duplicates_and_batches_give_the_same_rows_and_rollups(records, data):
    deliveries = data.draw(
        st.permutations(
            records + data.draw(st.lists(st.sampled_from(records), max_size=4)) if records else []
        )
    )
    cuts = data.draw(st.lists(st.integers(0, 16), max_size=4))
    with running() as (task, path):
        deliver(task, list(deliveries), cuts)
        rows = expected_rows(records)
        stored = stored_rows(path)
        assert stored.keys() == rows.keys()
        for key, (value, *_) in stored.items():
            expected = rows[key]
            if isinstance(expected, dict):
                assert value == b"\3" + expected["json"].encode()
            else:
                assert same(from_stored(value), expected)
        check_rollups(path, rows)
        before = stored
        deliver(task, records, [])
        assert stored_rows(path) == before
        counters = task.context.counters
        values = sum(len(r.value["points"]) for r in records)
        assert values == len(rows) + counters["repeated"] + counters["replaced"] + counters["outdated"]


@pytest.mark.slow
@given(all_records(), st.permutations(range(12)))
def test_records_that_were_received_at_the_same_time_have_one_winner_in_any_order(records, order):
    tied = [r._replace(value={**r.value, "time": T0, "received": T0 + 5}) for r in records]
    results = []
    for delivered in (tied, [tied[n] for n in order if n < len(tied)]):
        with running() as (task, path):
            deliver(task, delivered, range(12))
            results.append({key: (repr(row[0]), *row[1:]) for key, row in stored_rows(path).items()})
    assert results[0] == results[1]


def naive_series(rows, point, start, end, width):
    inside = sorted(
        (time, value) for (name, time), value in rows.items() if name == point and start <= time < end
    )
    buckets = defaultdict(list)
    for time, value in inside:
        if (number := number_of(value)) is not None:
            buckets[time // width * width if width else time].append(number)
    skipped = any(value is not None and number_of(value) is None for _, value in inside)
    return [(start, n[0], min(n), max(n), n[-1]) for start, n in sorted(buckets.items())], skipped


@given(all_records(), st.sampled_from("abc"), TIMES, st.integers(1, 6 * DAY), st.integers(1, 30))
def test_a_chart_equals_a_naive_reduction(records, point, start, length, intervals):
    end = start + length
    with running() as (task, path):
        task.put(records)
        store = HistoryStore(path)
        series = store.series(PointName("p", "d", point), start, end, intervals)
        store.close()
    rows = expected_rows(records)
    buckets, skipped = naive_series(rows, point, start, end, series.width)
    assert [tuple(bucket) for bucket in series.buckets] == buckets
    assert series.skipped == skipped
    assert len(series.buckets) <= 2 * intervals + 2


@given(all_records(), TIMES, st.integers(1, 6 * DAY), st.integers(1, 20))
def test_values_and_export_return_the_rows_of_a_range(records, start, length, limit):
    end = start + length
    with running() as (task, path):
        task.put(records)
        store = HistoryStore(path)
        newest = store.values(PointName("p", "d", "a"), start, end, limit)
        exported = list(store.export(PointName("p", "d", "a"), start, end))
        store.close()
    rows = expected_rows(records)
    inside = sorted(time for name, time in rows if name == "a" and start <= time < end)
    assert [value.time for value in exported] == inside
    assert [value.time for value in newest] == inside[::-1][:limit]
    assert {value.units for value in exported} <= {"C"}


@given(all_records(), st.integers(0, 5 * 24))
def test_what_expires_leaves_rollups_of_other_hours_and_does_not_come_back(records, hours):
    with running() as (task, path):
        task.put(records)
        rows = expected_rows(records)
        before = stored_rollups(path, "one_hour", "day * 24 + hour_of_day")
        limits = RetentionLimits(hours * HOUR // 1000, -1, -1)
        with closing(HistoryWriter(path)) as writer:
            assert Retention(writer, limits, lambda: (T0 + 4 * DAY) // 1000).run(10.0)
        first = min(T0 + 4 * DAY, max((time for _, time in rows), default=0)) // HOUR - hours
        kept = {key: value for key, value in rows.items() if key[1] // HOUR >= first}
        assert stored_rows(path).keys() == kept.keys()
        assert stored_rollups(path, "one_hour", "day * 24 + hour_of_day") == before
        deliver(task, records, [])
        assert stored_rows(path).keys() == kept.keys()
        check_rollups(path, rows)


@given(all_records())
def test_another_content_under_a_known_id_of_the_day_is_a_data_error_and_changes_nothing(records):
    with running() as (task, path):
        task.put(records)
        before = stored_rows(path)
        wrong = [
            r._replace(value={**r.value, "points": {"a": 77}}, headers=identity(r.offset, digest_of=b"other"))
            for r in records
        ]
        if wrong:
            with pytest.raises(DataError) as caught:
                task.put(wrong)
            assert sorted(caught.value.failures) == list(range(len(wrong)))
        assert stored_rows(path) == before
