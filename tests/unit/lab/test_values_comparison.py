"""The verdict on a run with a history file compares values, and reports every fault."""

import collections

import pytest

from tieline_lab.comparison import ExpectedReadings, Message
from tieline_lab.values_comparison import StoredValue, ValueFindings, judge, values_of

TOPIC = "devices/campus/building/device1/all"
TIME = "2026-01-31T12:00:00.250000+00:00"
MICROSECONDS = 1_769_860_800_250_000


def message(topic=TOPIC, body=None, time=TIME):
    body = [{"Reading": 1, "Mode": "auto"}, {}] if body is None else body
    return Message.of(topic, {"TimeStamp": time} if time else {}, body)


def value(point, content, time=MICROSECONDS):
    return StoredValue.of("campus/building/device1", point, time, content)


def verdict(seen, stored, dropped=0, expected=((), 0, 0)):
    return judge(
        ValueFindings(
            collections.Counter(seen),
            collections.Counter(stored),
            len(seen),
            dropped,
            ExpectedReadings(*expected),
        )
    )


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("devices/actuators/value/devices/campus/building/device1/Mode", "auto"),
        ("devices/actuators/value/devices/campus/building/device1/Mode", ["auto"]),
        ("analysis/lab/demand", [{"kW": 40}, {}]),
        ("devices/campus/building/device1/all", []),
    ],
)
def test_a_message_that_is_not_about_points_has_no_values(topic, body):
    assert list(values_of(message(topic, body))) == []


def test_a_message_about_all_points_or_one_has_its_values_with_their_types_and_time():
    assert list(values_of(message())) == [value("Mode", "auto"), value("Reading", 1)]
    reading = message("devices/campus/building/device1/Reading", [1.0, {}])
    assert list(values_of(reading)) == [value("Reading", 1.0)]
    assert value("Reading", 1.0) != value("Reading", 1) != value("Reading", True)


def test_a_run_whose_values_are_all_stored_has_no_fault():
    assert verdict([message()], [value("Reading", 1), value("Mode", "auto")]) == (
        {
            "seen": 1,
            "in": 1,
            "values_seen": 2,
            "values": 2,
            "duplicates": 0,
            "missing": 0,
            "dropped": 0,
        },
        [],
    )


def test_a_value_that_is_missing_or_differs_is_a_fault():
    numbers, faults = verdict([message()], [value("Mode", "auto")])
    assert numbers["missing"] == 1
    assert faults == [
        "1 of 2 values seen on the bus are not stored",
        "missing: campus/building/device1/Reading = 1 of 2026-01-31T12:00:00.250000+00:00",
    ]
    assert verdict([message()], [value("Reading", 1.0), value("Mode", "auto")]).numbers["missing"] == 1


def test_of_two_values_with_one_time_either_may_be_the_stored_one_and_no_third():
    seen = [message(), message(body=[{"Reading": 2, "Mode": "auto"}, {}])]
    for reading, missing in ((1, 0), (2, 0), (3, 2)):
        stored = [value("Reading", reading), value("Mode", "auto")]
        assert verdict(seen, stored).numbers["missing"] == missing


def test_doubled_values_dropped_messages_an_empty_bus_and_implausible_numbers_are_faults():
    numbers, faults = verdict(
        [message()], [value("Reading", 1), value("Mode", "auto"), value("Mode", "heat")]
    )
    assert numbers["duplicates"] == 1
    assert faults == ["1 values are stored more than once"]
    assert verdict([message()], [value("Reading", 1), value("Mode", "auto")], dropped=3).faults == [
        "3 messages were dropped or quarantined"
    ]
    assert verdict([], [], expected=((TOPIC,), 3, 5)).faults == [
        "no message was seen on the bus",
        f"0 messages of {TOPIC} were seen; 3 to 5 are plausible",
    ]
