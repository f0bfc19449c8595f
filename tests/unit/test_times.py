"""Times and durations as the status, the log and the commands write them."""

from __future__ import annotations

import pytest

from tieline.times import iso_ms, iso_utc, local_time, span_text

NOON = 1_772_366_400_000  # 2026-03-01T12:00:00Z
DAY = 86_400_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4, "4 s"), (59.4, "59 s"), (60, "1 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_a_duration_has_its_two_largest_units_from_an_hour_on(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


def test_a_time_that_is_written_is_read_back() -> None:
    assert iso_utc(NOON) == "2026-03-01T12:00:00+00:00"
    assert iso_utc(NOON + 5, "milliseconds") == "2026-03-01T12:00:00.005+00:00"
    assert iso_ms(iso_utc(NOON)) == iso_ms("2026-03-01T12:00:00Z") == NOON


def test_a_time_that_no_calendar_has_is_shown_as_a_number_and_read_as_unknown() -> None:
    assert iso_utc(1 << 62) == f"{1 << 62} ms"
    assert iso_ms(iso_utc(1 << 62)) is None


def test_a_local_time_has_its_date_unless_it_is_of_today() -> None:
    assert len(local_time(NOON, NOON)) == len("12:00:00")
    assert len(local_time(NOON, NOON + 2 * DAY)) == len("2026-03-01 12:00:00")
