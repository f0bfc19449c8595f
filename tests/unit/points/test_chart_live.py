"""What a chart shows of values that its store does not have yet."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.points.pages.chart_live import with_live
from tieline_connectors.points.questions import Bucket, Series

values = st.dictionaries(st.integers(100, 1000), st.floats(-100, 100), max_size=30)


def series_of(numbers: Sequence[tuple[int, float]], start: int, width: int) -> Series:
    """Reduce values as a store does; a width of 0: each is a bucket."""
    groups: dict[int, list[float]] = {}
    for time, number in sorted(numbers):
        groups.setdefault(max(start, time // width * width) if width else time, []).append(number)
    buckets = [Bucket(time, each[0], min(each), max(each), each[-1]) for time, each in groups.items()]
    return Series(width, buckets, skipped=False)


@given(values, st.integers(0, 30), st.integers(0, 30), st.sampled_from([0, 1, 7, 60, 2000]))
def test_stored_and_live_values_make_the_chart_that_the_store_will_return(by_time, stored, overlap, width):
    numbers = sorted(by_time.items())
    stored = min(stored, len(numbers))
    live = numbers[max(0, stored - overlap) :]

    chart = with_live(from_store := series_of(numbers[:stored], 100, width), 100, reversed(live))

    whole = list(series_of(numbers, 100, width).buckets)
    if width and from_store.buckets:  # the store's last value may be newer than all live ones
        shared = len(from_store.buckets) - 1
        whole[shared] = whole[shared]._replace(last=from_store.buckets[shared].last)
    assert list(chart.buckets) == whole


def test_an_older_live_value_does_not_replace_the_last_one_of_the_store() -> None:
    stored = Series(100, [Bucket(0, 1, 1, 5, 5)], skipped=False)
    assert with_live(stored, 0, [(10, 9.0)]).buckets == [Bucket(0, 1, 1, 9, 5)]


def test_a_store_without_the_point_shows_the_live_values() -> None:
    assert with_live(Series(0, (), skipped=True), 0, [(5, 1.0)]) == Series(0, [Bucket(5, 1, 1, 1, 1)], True)
