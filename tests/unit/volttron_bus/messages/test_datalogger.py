"""What agents log: each form of Readings, its time, and bodies of another form."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from tieline.api import header
from tieline.converters.codec import AvroCodec
from tieline_connectors.volttron_bus.messages.message import Message
from tieline_connectors.volttron_bus.messages.readings import rebuild, to_value
from tieline_connectors.volttron_bus.messages.records import RecordMapper, Route

TIME = 1_767_225_600_123_456
FIRST = 1_449_014_400_000_000  # 2015-12-02T00:00:00Z
HOUR = 3_600_000_000
TOPIC = "datalogger/Building/LAB/Device"


def log(body, topic=TOPIC):
    return Message(topic, "agent", {"Date": "x"}, body, TIME, "DATE", TIME + 5, True)


def decoded(body):
    schema, value = to_value("lab", log(body))
    assert schema.name == "volttron.DataLog"
    codec = AvroCodec.of(schema)
    again = codec.decode(codec.encode(value))
    assert repr(tuple(rebuild(again))) == repr((TOPIC, {"Date": "x"}, body, "agent"))
    return [(r["point"], r["time"], r["time_source"], r["value"]) for r in again["readings"]]


def item(readings, **fields):
    return {"Readings": readings, "Units": "F", **fields}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (item(2), [(TIME, "DATE", 2)]),
        (item(None), [(TIME, "DATE", None)]),
        (item(["2015-12-02T00:00:00+00:00", 2.5]), [(FIRST, "TIMESTAMP", 2.5)]),
        (item(["2015-12-02T00:00:00", True]), [(FIRST, "TIMESTAMP_NAIVE", True)]),
        (item(["2015-12-02T00:00:00", 2], tz="US/Pacific"), [(FIRST, "TIMESTAMP_NAIVE", 2)]),
        (item(["Wed, 02 Dec 2015 00:00:00 GMT", 2]), [(FIRST, "TIMESTAMP", 2)]),
        (item([1449014400000, 2]), [(FIRST, "TIMESTAMP", 2)]),
        (item(["2015-12-02T00:00:00Z", 2], tz="US/Pacific"), [(FIRST, "TIMESTAMP", 2)]),
        (item(["2015-12-02T00:00:00", 2], tz="No/Where"), [(FIRST, "TIMESTAMP_NAIVE", 2)]),
        (
            item([["2015-12-02T00:00:00Z", 1], ["2015-12-02T01:00:00Z", [2]]]),
            [(FIRST, "TIMESTAMP", 1), (FIRST + HOUR, "TIMESTAMP", {"json": "[2]"})],
        ),
        (item([[1449014400, 2**70]]), [(FIRST, "TIMESTAMP", {"json": str(2**70)})]),
        (item([1449014400.5, "text"]), [(FIRST + 500_000, "TIMESTAMP", "text")]),
    ],
)
def test_each_form_of_readings_is_decoded_with_its_time(content, expected):
    assert decoded({"temp": content}) == [("temp", *reading) for reading in expected]


def test_a_naive_time_of_a_reading_is_taken_in_the_zone_that_is_configured():
    body = {"temp": item(["2015-12-02T00:00:00", 2], tz="US/Pacific")}
    for naive, expected in (("points", FIRST + 8 * HOUR), (ZoneInfo("Asia/Tokyo"), FIRST - 9 * HOUR)):
        _, value = to_value("lab", log(body)._replace(naive=naive))
        assert value["readings"][0]["time"] == expected


def test_each_value_has_its_units_type_and_zone():
    body = {"a": item(1, tz="UTC", data_type="int"), "b": item(2)}
    _, value = to_value("lab", log(body))
    assert [(r["units"], r["type"], r["tz"]) for r in value["readings"]] == [
        ("F", "int", "UTC"),
        ("F", None, None),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        5,
        [],
        {"a": 5},
        {"a": {"Readings": 1}},
        {"a": {"Units": "F"}},
        {"a": item(1), "b": 5},
        {"a": item([])},
        {"a": item([1, 2, 3])},
        {"a": item(["no time", 2])},
        {"a": item([[1449014400, 1], 5])},
        {"a": item([[1449014400]])},
        {"a": item([-1, 2])},
        {"a": item([float("nan"), 2])},
        {"a": item([True, 2])},
        {"a": item([10**400, 2])},
        {"a": item(1, tz=5)},
        {"a": {"Readings": 1, "Units": 5}},
    ],
)
def test_a_body_of_another_form_stays_a_bus_message_and_loses_nothing(body):
    schema, value = to_value("lab", log(body))
    assert schema.name == "volttron.BusMessage"
    assert repr(rebuild(value).body) == repr(body)


def test_a_log_is_keyed_by_its_path_and_has_one_identity():
    record = RecordMapper("lab", [Route("datalogger", "t")], "avro").record(log({"a": item([1449014400, 1])}))
    assert (record.key, record.timestamp) == ("Building/LAB/Device", TIME // 1000)
    assert header(record, "tieline.id") is not None
