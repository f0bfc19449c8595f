"""The alarms of points: few, whatever fails."""

from __future__ import annotations

import math
from typing import Any

from tieline_connectors.points.live.staleness import SECOND, UNKNOWN
from tieline_connectors.points.live.table import LiveTable, NewValue
from tieline_connectors.points.pages.alarms import point_alarms
from tieline_connectors.points.questions import PointName

LATER = UNKNOWN + SECOND


def table(*devices: str, value: Any = 1.0, time: int = 0) -> LiveTable:
    made = LiveTable()
    made.update(
        NewValue(PointName("vol1", device, f"p{number}"), device, None, value, time)
        for device in devices
        for number in range(5)
    )
    return made


def test_nothing_is_abnormal_while_values_arrive() -> None:
    made = table("a", "b")
    made.judge(SECOND)
    assert point_alarms(made.snapshot(), SECOND) == []


def test_a_platform_that_is_silent_is_one_alarm() -> None:
    made = table(*(f"device{number}" for number in range(50)))
    made.judge(LATER)
    (alarm,) = point_alarms(made.snapshot(), LATER)
    assert (alarm.subject, alarm.path) == ("vol1", "/points?platform=vol1")
    assert alarm.since_ms == UNKNOWN // 1000


def test_a_device_that_is_silent_is_one_alarm() -> None:
    made = table("a", "b")
    made.update([NewValue(PointName("vol1", "b", f"p{n}"), "b", None, 1.0, LATER) for n in range(5)])
    made.judge(LATER)
    (alarm,) = point_alarms(made.snapshot(), LATER)
    assert (alarm.subject, alarm.path) == ("vol1/a", "/points?platform=vol1&device=a")
    assert "None of its 5 points" in alarm.text


def test_some_stale_points_are_one_alarm_that_names_a_few() -> None:
    made = table("a")
    made.update([NewValue(PointName("vol1", "a", "p0"), "a", None, 1.0, LATER)])
    made.judge(LATER)
    (alarm,) = point_alarms(made.snapshot(), LATER)
    assert "4 of its 5 points have no new value: p1, p2, p3 and 1 more." in alarm.text


def test_a_value_that_is_not_a_number_is_an_alarm() -> None:
    made = table("a", value=math.nan)
    made.judge(SECOND)
    (alarm,) = point_alarms(made.snapshot(), SECOND)
    assert alarm.key.startswith("nan.")
    assert "p0, p1, p2 and 2 more" in alarm.text


def test_a_point_that_is_gone_for_a_month_is_no_alarm() -> None:
    made = table("a")
    month = 31 * 86400 * SECOND
    made.judge(month)
    assert point_alarms(made.snapshot(), month) == []


def test_the_same_cause_keeps_its_key() -> None:
    made = table("a")
    made.judge(LATER)
    keys = {alarm.key for alarm in point_alarms(made.snapshot(), LATER)}
    made.judge(2 * LATER)
    assert {alarm.key for alarm in point_alarms(made.snapshot(), 2 * LATER)} == keys
