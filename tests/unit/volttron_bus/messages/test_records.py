"""Messages to records: prefixes, routes, shapes, kinds, the guard against echoes."""

from __future__ import annotations

import pytest

from tieline.api import header
from tieline.converters.codec import AvroCodec
from tieline_connectors.volttron_bus.messages.message import MalformedMessageError, Message
from tieline_connectors.volttron_bus.messages.readings import rebuild, to_value
from tieline_connectors.volttron_bus.messages.records import FilteredError, RecordMapper, Route

TIME = 1_767_225_600_123_456
META = {"units": "F", "type": "float", "tz": "UTC"}
MANY = [{"x": 1}, {"x": META}]


def message(topic="devices/c/b/a/all", body=MANY, headers=None):
    return Message(topic, "platform.driver", headers or {}, body, TIME, "TIMESTAMP", TIME + 5, True)


def recorder(*routes, shape="avro"):
    return RecordMapper("lab", [Route(*route) for route in routes] or [Route("devices", "t")], shape)


def test_a_reading_is_keyed_by_its_device_and_dated_by_its_time():
    record = recorder().record(message())
    assert (record.topic, record.key, record.timestamp) == ("t", "c/b/a", TIME // 1000)
    assert record.value_schema.name == "volttron.DeviceReading"
    assert record.value == {
        "platform": "lab",
        "topic": "devices/c/b/a/all",
        "device": "c/b/a",
        "kind": "ALL",
        "form": "PAIR",
        "sender": "platform.driver",
        "headers": {},
        "time": TIME,
        "time_source": "TIMESTAMP",
        "received": TIME + 5,
        "points": {"x": 1},
        "metadata": {"x": META},
    }
    assert header(record, "tieline.origin") == b"lab"


def test_any_other_message_is_keyed_by_its_topic():
    record = recorder(("analysis", "t")).record(message("analysis/x", {"a": float("nan")}))
    assert record.key == "analysis/x"
    assert record.value_schema.name == "volttron.BusMessage"
    assert (record.value["headers"], record.value["body"]) == ("{}", '{"a": NaN}')


@pytest.mark.parametrize(
    ("topic", "body", "kind"),
    [
        ("devices/c/b/a/all", [{}, {}], "ALL"),
        ("devices/c/b/a/multi", [{"x": [1]}, {}], "MULTI"),
        ("devices/c/b/a/Zone", [72.5, META], "POINT"),
        ("devices/c/b/a/Zone", [None, {}], "POINT"),
        ("devices/a/x", ["text", {}], "POINT"),
        ("devices/c/b/a/all", [72.5, META], None),
        ("devices/c/b/a/Zone", [{"x": 1}, META], None),
        ("devices/c/b/a/Zone", [[1], META], None),
        ("devices/c/b/a/Zone", [1, None], None),
        ("devices/c/b/a/batch", [{"x": 1}, {"x": META}], "OTHER"),
        ("devices/c/b/a/batch", [{"x": 1}, {}], None),
        ("devices/c/b/a/batch", [{}, {}], None),
        ("devices/c/b/a/all", [{"x": 1}], "ALL"),
        ("devices/c/b/a/all", {"x": 1}, "ALL"),
        ("devices/c/b/a/all", {"x": {"y": [1]}}, "ALL"),
        ("devices/c/b/a/all", {}, None),
        ("devices/c/b/a/all", [{}], None),
        ("devices/c/b/a/all", [{"x": 1}, {}, {}], None),
        ("devices/c/b/a/multi", {"x": None}, "MULTI"),
        ("devices/c/b/a/Zone", 72.5, "POINT"),
        ("devices/c/b/a/Zone", [72.5], "POINT"),
        ("devices/c/b/a/Zone", "text", "POINT"),
        ("devices/c/b/a/Zone", None, None),
        ("devices/c/b/a/Zone", [None], None),
        ("devices/c/b/a/batch", {"x": 1, "y": "z"}, "OTHER"),
        ("devices/c/b/a/batch", [{"x": 1}], "OTHER"),
        ("devices/c/b/a/batch", {"x": {"y": 1}}, None),
        ("devices/c/b/a/batch", {}, None),
        ("devices/c/b/a/batch", [1, 2], None),
        ("devices/all", [{}, {}], None),
        ("devices/actuators/get/a/Zone", [1, {}], None),
        ("devicesX/a/all", [{}, {}], None),
        ("datalogger/a/all", [{}, {}], None),
    ],
)
def test_the_kind_follows_from_topic_and_body(topic, body, kind):
    schema, value = to_value("lab", message(topic, body))
    assert value.get("kind") == kind
    assert schema.name == ("volttron.DeviceReading" if kind else "volttron.BusMessage")
    assert repr(rebuild(value)[:3]) == repr((topic, {}, body))
    if kind:  # and so through Avro
        codec = AvroCodec.of(schema)
        assert repr(rebuild(codec.decode(codec.encode(value)))[:3]) == repr((topic, {}, body))


def test_a_reading_that_version_0_1_wrote_is_rebuilt(tmp_path):
    _, value = to_value("lab", message())
    del value["form"]
    assert rebuild(value).body == [{"x": 1}, {"x": META}]


@pytest.mark.parametrize("entry", [{}, {"units": "F"}, {"units": "F", "tz": "UTC"}, META])
def test_metadata_of_units_type_and_tz_in_this_order_keeps_its_form(entry):
    _, value = to_value("lab", message(body=[{}, {"x": entry}]))
    assert value["metadata"]["x"] == {name: entry.get(name) for name in ("units", "type", "tz")}


@pytest.mark.parametrize(
    "entry",
    [
        {"tz": "UTC", "units": "F"},
        {"type": "t", "units": "F", "tz": "UTC"},
        {"units": None},
        {"units": 1},
        {**META, "more": "x"},
        "text",
        None,
        [],
        5,
    ],
)
def test_any_other_metadata_becomes_json_text(entry):
    _, value = to_value("lab", message(body=[{}, {"x": entry}]))
    assert set(value["metadata"]["x"]) == {"json"}
    assert repr(rebuild(value).body) == repr([{}, {"x": entry}])


@pytest.mark.parametrize(
    "value", [{}, {"body": "{}"}, {"points": {}}, {"body": "1", "headers": 5}, {"topic": "x"}]
)
def test_a_value_of_another_schema_is_not_rebuilt(value):
    with pytest.raises(ValueError, match="neither a DeviceReading nor a BusMessage"):
        rebuild(value)


def test_prefixes_are_whole_segments():
    only = recorder(("devices/campus", "t"))
    assert only.record(message("devices/campus/a/all")).topic == "t"
    assert only.record(message("devices/campus", 1)).topic == "t"
    with pytest.raises(FilteredError) as filtered:
        only.record(message("devices/campus2/a/all"))
    assert filtered.value.reason == "prefix"


def test_the_longest_route_that_fits_wins():
    routed = recorder(("devices", "all"), ("devices/campus", "campus"), ("analysis", "analysis"))
    topics = ["devices/x/all", "devices/campus/x/all", "devices/campus2/x/all", "analysis/devices"]
    assert [routed.record(message(t)).topic for t in topics] == ["all", "campus", "all", "analysis"]


def test_messages_from_kafka_are_not_sent_back():
    with pytest.raises(FilteredError) as filtered:
        recorder().record(message(headers={"tieline.origin": "lab"}))
    assert filtered.value.reason == "echo"
    assert recorder().record(message(headers={"tieline.origin": "another"}))


def test_the_shape_of_kafka_agent():
    record = recorder(("devices", "command-to-cloud"), shape="kafkaagent").record(
        message(body=[1, {"a": None}])
    )
    assert record.value == {
        "message_sender": "platform.driver",
        "kafka_message_sender": "KafkaAgent",
        "description": "message from VOLTTRON to KafkaBroker",
        "message": [1, {"a": None}],
    }
    assert record.value_schema is None
    assert header(record, "volttron.topic") == b"devices/c/b/a/all"
    assert header(record, "tieline.id") is not None


def test_the_shape_of_cloud_agent():
    cloud = recorder(("command-to-cloud", "command-to-cloud"), shape="cloudagent")
    record = cloud.record(message("command-to-cloud", [205, {"message": "m", "new_value": 205}]))
    assert list(record.value.items()) == [
        ("from", "CloudAgent"),
        ("to", "Cloud"),
        ("message", "message from VOLTTRON to Cloud"),
        ("new_value", 205),
    ]
    assert record.key == "command-to-cloud"


@pytest.mark.parametrize("body", [[], {}, 5, "text", True])
def test_a_body_without_a_first_element_has_no_shape_of_cloud_agent(body):
    with pytest.raises(MalformedMessageError) as refused:
        recorder(shape="cloudagent").record(message(body=body))
    assert refused.value.reason == "no_new_value"


def test_a_breadth_first_topic_gives_the_same_device_and_key():
    every = recorder(("devices", "t"), ("points", "t"))
    topics = [
        "devices/c/b/a/all",
        "points/a/b/c/all",
        "points/a/b/c/multi",
        "points/all/a/b/c",
    ]
    records = [every.record(message(topic)) for topic in topics]
    assert {record.key for record in records} == {"c/b/a"}
    assert [record.value["kind"] for record in records] == ["ALL", "ALL", "MULTI", "ALL"]
    single = every.record(message("points/Zone/a/b/c", [72.5, META]))
    assert (single.key, single.value["kind"], single.value["points"]) == ("c/b/a", "POINT", {"Zone": 72.5})
    assert rebuild(single.value).body == [72.5, META]


@pytest.mark.parametrize("message_body", [None, [], {}, [1, 2, 3], [{}], [{"x": 1}, 5], [[1]]])
def test_a_body_without_points_stays_a_bus_message_under_every_order(message_body):
    for topic in ("devices/c/b/a/all", "points/a/b/c/all", "points/Zone/a/b/c"):
        schema, value = to_value("lab", message(topic, message_body))
        assert schema.name == "volttron.BusMessage"
        assert rebuild(value)[:3] == (topic, {}, message_body)
