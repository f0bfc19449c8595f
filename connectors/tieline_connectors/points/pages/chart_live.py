"""Adds the live values that a store does not have yet to what it returned for a chart; pure."""

from __future__ import annotations

from collections.abc import Iterable

from tieline_connectors.points.questions import Bucket, Series


def with_live(series: Series, start: int, live: Iterable[tuple[int, float]]) -> Series:
    """Return a series with the values that are newer than its last one.

    ``start``: the start of the range. ``live``: times (µs) and numbers in any order. A value that the store
    has, too, changes nothing. In the last interval of the store, the store's last value stays: which of the
    two is newer is not known.
    """
    buckets = list(series.buckets)
    newest = sorted(set(live))
    if not series.width:
        last = buckets[-1].start if buckets else start - 1
        buckets += [Bucket(time, *[number] * 4) for time, number in newest if time > last]
        return series._replace(buckets=buckets)
    first = buckets[-1].start if buckets else start
    stored = len(buckets)
    for time, number in newest:
        if time < first:
            continue
        if not buckets or time // series.width > buckets[-1].start // series.width:
            buckets.append(Bucket(max(start, time // series.width * series.width), *[number] * 4))
        else:
            found = buckets[-1]
            buckets[-1] = found._replace(
                minimum=min(found.minimum, number),
                maximum=max(found.maximum, number),
                last=found.last if len(buckets) == stored else number,
            )
    return series._replace(buckets=buckets)
