"""Rollups are the same however often, in which order and in which batches documents are added."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.mongo.documents.rollups import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Interval,
    RollupBuffer,
    intervals,
    point_key,
)
from tieline_connectors.mongo.query import chart
from tieline_connectors.points.questions import PointName

NAME = PointName("lab", "d", "p")
START = 1_767_225_600_000_000

numbers = st.floats(-1e6, 1e6) | st.booleans() | st.integers(-(2**70), 2**70)
values = numbers | st.sampled_from([None, "text", math.nan, math.inf, [1], 10**40])
offsets = st.integers(0, 3 * DAY_US) | st.sampled_from([0, MINUTE_US - 1, MINUTE_US, HOUR_US, DAY_US])
samples = st.lists(st.tuples(offsets, values), max_size=30)


def document(offset, value):
    """A document of the layout point."""
    names = NAME._asdict()
    return {**names, "value": value, "time_us": START + offset, "topic": "t", "units": None}


def upsert(stored, updates):
    """Apply upserts as MongoDB does."""
    for update in updates:
        is_new = update.id not in stored
        target = stored.setdefault(update.id, {"_id": update.id})
        for operator, fields in update.changes.items():
            if operator == "$setOnInsert":
                target.update(fields if is_new else {})
                continue
            for path, value in fields.items():
                *parents, name = path.split(".")
                parent = target
                for step in parents:
                    parent = parent.setdefault(step, {})
                choose = min if operator == "$min" else max
                old = parent.get(name, value)
                parent[name] = choose(old, value, key=lambda v: str(v) if isinstance(v, str) else rank(v))


def rank(value):
    """The order of embedded documents: field by field; a null is less than text."""
    if isinstance(value, dict):
        return tuple((v is not None, v or 0) for v in value.values())
    return value


def rollups(batches):
    """The documents after each batch was written."""
    stored: dict[str, dict[str, object]] = {}
    buffer = RollupBuffer()
    for batch in batches:
        buffer.add(document(*sample) for sample in batch)
        upsert(stored, buffer.points() + buffer.intervals())
        buffer.clear()
    return stored


def slots(stored):
    return {
        (level, start): (i.minimum, i.maximum, i.first, i.last, i.other)
        for rollup in stored.values()
        if "s" in rollup
        for level, start, i in intervals(rollup)
    }


@given(samples, st.randoms(), st.integers(1, 7))
def test_order_batches_and_repetition_do_not_matter(given_samples, chance, size):
    once = rollups([given_samples])
    again = given_samples + chance.sample(given_samples, len(given_samples) // 2)
    chance.shuffle(again)
    batches = [again[n : n + size] for n in range(0, len(again), size)]

    many = rollups(batches)

    assert slots(many) == slots(once)
    if given_samples:
        assert many[point_key(NAME)]["oldest"] == once[point_key(NAME)]["oldest"]
        last = max(START + offset for offset, _ in given_samples)
        assert max(rollup["t"] for rollup in many.values() if "t" in rollup) == last
        newest = many[point_key(NAME)]["newest"]["t"]
        assert newest <= last
        assert newest // (5 * MINUTE_US) == last // (5 * MINUTE_US)


@given(samples, offsets, offsets, st.integers(1, 2000))
def test_a_chart_from_rollups_equals_one_from_the_documents(given_samples, one, other, wanted):
    start, end = START + min(one, other), START + max(one, other) + 1
    plan = chart.plan(start, end, wanted, with_rollups=True)
    reduction, naive = chart.Reduction(start, plan.width), chart.Reduction(start, plan.width)
    stored = rollups([given_samples])
    for rollup_id in plan.documents(point_key(NAME)):
        for level, begin, interval in intervals(stored.get(rollup_id, {"_id": rollup_id})):
            if plan.reads(level, begin):
                reduction.add(begin, interval)
    for offset, value in given_samples:
        time, single = START + offset, Interval()
        single.add(time, value)
        if any(part.level is None and part.start <= time < part.end for part in plan.parts):
            reduction.add(time, single)
        if start <= time < end:
            naive.add(time, single)

    assert reduction.buckets() == naive.buckets()
    assert reduction.skipped == naive.skipped
    assert len(reduction.buckets()) <= 2 * wanted + 2


@given(offsets, offsets, st.integers(1, 2000))
def test_the_parts_of_a_range_are_the_range(one, other, wanted):
    start, end = START + min(one, other), START + max(one, other) + 1

    parts = chart.plan(start, end, wanted, with_rollups=True).parts

    assert [parts[0].start, *(part.end for part in parts)] == [*(part.start for part in parts), end]
    assert parts[0].start == start
    assert sum(part.end - part.start for part in parts if part.level is None) < max(
        2 * MINUTE_US, 30 * 1_000_000 * wanted + wanted
    )
