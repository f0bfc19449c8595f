"""What may be published on the bus, and what its subscribers then get; pure."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tieline.api import ConfigError, SinkRecord
from tieline_connectors.volttron_bus.messages.message import ParseLimits, parse_message
from tieline_connectors.volttron_bus.messages.publishing import MessageMapper, RefusedError, TokenBucket
from tieline_connectors.volttron_bus.messages.readings import to_value
from tieline_connectors.volttron_bus.messages.records import FilteredError
from tieline_connectors.volttron_bus.sink_config import VolttronBusSinkConfig
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.frames import is_deeper_than

NOW = 1_767_225_600_000
TIME = "2026-01-01T00:00:00.000000+00:00"
OURS = {"tieline.origin": "lab", "tieline.id": "17"}


def rules(shape="avro", allowed=("devices", "analysis"), place="key", most=1000, age=None):
    return MessageMapper("lab", shape, allowed, place, max_bytes=most, max_age_ms=age)


def record(value, key="k", headers=(), timestamp=NOW):
    return SinkRecord("t", 0, 1, value, key, (("tieline.id", b"17"), *headers), timestamp)


def named(topic, **fields):
    return record({"topic": topic, "message": 1} | fields)


def refused(rules, record, now=NOW):
    with pytest.raises(RefusedError) as error:
        rules.frames(record, b"p1", now)
    return error.value.reason


def filtered(rules, record):
    with pytest.raises(FilteredError) as error:
        rules.message(record, NOW)
    return error.value.reason


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("devices/campus/ahu1/all", [{"t": 20.5, "big": 2**70}, {"t": {"units": "C"}}]),
        ("devices/campus/ahu1/t", [20.5, {"units": "C"}]),
        ("analysis/x", {"a": [None, True, {"$": "."}]}),
    ],
)
def test_a_record_of_the_source_is_published_as_it_was_read(topic, body):
    headers = {"TimeStamp": "2025-12-31T23:59:59+00:00", "Date": "x", "n": 1}
    data = json.dumps({"sender": "driver", "bus": "", "headers": headers, "message": body}).encode()
    message = parse_message(
        [b"", b"VIP1", b"", b"1", b"pubsub", b"publish", topic.encode(), data], 5, ParseLimits()
    )
    _, value = to_value("elsewhere", message)
    assert rules().message(record(value), NOW) == (topic, headers | OURS, body)


def test_the_body_is_the_value_and_the_topic_is_the_key_or_a_header():
    sink_record = record([1, 2], "analysis/key", (("volttron.topic", "analysis/hé".encode()),))
    assert rules("json").message(sink_record, NOW) == ("analysis/key", {"TimeStamp": TIME, **OURS}, [1, 2])
    assert rules("json", place="header").message(sink_record, NOW).topic == "analysis/hé"
    assert rules("json").message(record(1, b"analysis/key"), NOW).topic == "analysis/key"


def test_the_old_agents_message_keeps_topic_headers_and_time():
    sink_record = record(
        {"topic": "analysis/x", "headers": {"date": "then"}, "message": {"a": 1}, "sender": "s"}
    )
    assert rules("kafkaagent").message(sink_record, NOW) == ("analysis/x", {"date": "then", **OURS}, {"a": 1})
    sink_record = record({"message": None}, "analysis/k")
    assert rules("kafkaagent").message(sink_record, NOW) == ("analysis/k", {"TimeStamp": TIME, **OURS}, None)


def test_an_entry_of_the_old_message_file_is_published_under_its_topic_with_its_sender():
    entry = {"sender": "ops", "topic": "analysis/x", "value": {"a": None}, "description": "why"}
    reported = {"From": "ops", "Description": "why", "TimeStamp": TIME, **OURS}
    assert rules("kafkaagent").message(record(entry), NOW) == ("analysis/x", reported, {"a": None})
    del entry["description"]
    assert rules("kafkaagent").message(record(entry), NOW).headers == {
        "From": "ops",
        "TimeStamp": TIME,
        **OURS,
    }


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ("avro", 5),
        ("avro", "text"),
        ("avro", []),
        ("avro", {"topic": "analysis/x", "message": 1}),
        ("avro", {"topic": "analysis/x", "headers": "[]", "body": "1", "sender": ""}),
        ("avro", {"topic": "analysis/x", "headers": "{", "body": "1", "sender": ""}),
        ("avro", {"topic": "analysis/x", "headers": "{}", "body": "[" * 100_000, "sender": ""}),
        ("avro", {"topic": "x", "headers": {}, "points": {}, "metadata": {}, "kind": "POINT", "sender": ""}),
        ("kafkaagent", []),
        ("kafkaagent", {"topic": "analysis/x"}),
        ("kafkaagent", {"topic": "analysis/x", "value": 1}),
        ("kafkaagent", {"sender": "a", "topic": "analysis/x", "value": 1, "more": 2}),
        ("kafkaagent", {"topic": "analysis/x", "message": 1, "headers": [["a", 1]]}),
    ],
)
def test_a_value_of_another_shape_is_refused(shape, value):
    assert refused(rules(shape), record(value)) == "shape"


@pytest.mark.parametrize(
    "topic", ["", "42", "null", '"x"', "[]", "NaN", " 1 ", 5, None, ["a"], "日本", "analysis/\n", "a" * 1025]
)
def test_a_topic_that_would_harm_the_platform_is_rejected(topic):
    assert refused(rules("kafkaagent"), named(topic)) == "topic"


@pytest.mark.parametrize("key", [None, b"\xff", 5, {}])
def test_a_record_without_a_topic_is_refused(key):
    assert refused(rules("json"), record(1, key)) == "topic"
    header = (("volttron.topic", key),) if isinstance(key, bytes) else ()
    assert refused(rules("json", place="header"), record(1, "analysis/x", header)) == "topic"


@pytest.mark.parametrize(
    ("allowed", "topic", "passes"),
    [
        ("devices/a", "devices/a", True),
        ("devices/a", "devices/a/b/all", True),
        ("devices/a", "devices/ab/all", False),
        ("devices/a", "devices", False),
        ("devices", "analysis/x", False),
        ("devices", "devices/actuators/set/campus/ahu1/fan", False),
        ("devices", "devices/actuators", False),
        ("devices", "devices/actuatorsx/all", True),
        ("devices/actuators", "devices/actuators/set/campus/ahu1/fan", True),
        ("devices/actuators/get", "devices/actuators/set/campus/ahu1/fan", False),
    ],
)
def test_only_allowed_prefixes_are_published_and_commands_only_by_their_own(allowed, topic, passes):
    publish_rules = rules("kafkaagent", (allowed,))
    if passes:
        assert publish_rules.message(named(topic), NOW).topic == topic
    else:
        assert refused(publish_rules, named(topic)) == "not_allowed"


def test_a_message_of_this_platform_is_an_echo_by_its_record_or_by_its_own_headers():
    publish_rules = rules("kafkaagent")
    assert (
        filtered(publish_rules, named("analysis/x")._replace(headers=(("tieline.origin", b"lab"),))) == "echo"
    )
    assert filtered(publish_rules, named("analysis/x", headers={"tieline.origin": "lab"})) == "echo"
    other = named("analysis/x", headers={"tieline.origin": "b"})._replace(headers=(("tieline.origin", b"b"),))
    assert publish_rules.message(other, NOW).headers["tieline.origin"] == "lab"


def test_only_the_last_origin_of_a_record_counts_as_kafka_reads_headers():
    headers = (("tieline.origin", b"lab"), ("tieline.origin", b"b"))
    assert rules("kafkaagent").message(named("analysis/x")._replace(headers=headers), NOW).body == 1


@pytest.mark.parametrize(("age", "passes"), [(60_000, True), (60_001, False), (-5000, True)])
def test_a_record_is_published_up_to_its_age(age, passes):
    sink_record, publish_rules = (
        named("analysis/x")._replace(timestamp=NOW - age),
        rules("kafkaagent", age=60_000),
    )
    if passes:
        assert publish_rules.message(sink_record, NOW).body == 1
    else:
        assert filtered(publish_rules, sink_record) == "expired"
    assert rules("kafkaagent").message(sink_record, NOW).body == 1


@pytest.mark.parametrize("timestamp", [None, 0, -1, 2**62])
def test_a_record_without_a_time_does_not_expire_and_gets_no_header(timestamp):
    publish_rules = rules("kafkaagent", age=60_000)
    assert publish_rules.message(named("analysis/x")._replace(timestamp=timestamp), NOW).headers == OURS


def test_a_tombstone_is_skipped():
    assert filtered(rules("json"), record(None, "analysis/x")) == "null"


def test_a_body_that_is_not_json_too_deep_or_too_large_is_rejected():
    deep: object = 1
    for _ in range(65):
        deep = [deep]
    publish_rules = rules("kafkaagent")
    for body in ({1, 2}, b"bytes", deep):
        assert refused(publish_rules, named("analysis/x", message=body)) == "message"
    assert refused(publish_rules, named("analysis/x", message="x" * 1000)) == "too_large"
    size = sum(map(len, publish_rules.frames(named("analysis/x"), b"p1", NOW)[-2:]))
    assert rules("kafkaagent", most=size).frames(named("analysis/x"), b"p1", NOW)
    assert refused(rules("kafkaagent", most=size - 1), named("analysis/x")) == "too_large"


def test_a_bucket_permits_its_burst_and_then_its_rate():
    bucket = TokenBucket(10, 3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.until(1, 100.0) == pytest.approx(0.1)
    assert bucket.until(500, 100.0) == pytest.approx(0.15)  # half a burst at a time
    assert not bucket.take(100.09)
    assert bucket.take(100.11)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(999.0)  # a clock that goes back gives nothing


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
ODD = st.sampled_from(
    ["42", "true", "null", '"a"', "[1]", "{}", "NaN", "-1e5", "1 ", "analysis/x", "é", "日本"]
)


@pytest.fixture(scope="module")
def client():
    with FakeRouter() as bus, VipClient(Endpoint(bus.address, "observer")) as client:
        client.hello()
        client.subscribe("")
        yield client
        assert bus.dropped == 0  # each of these would have been the end of a real platform


@given(topic=ODD | st.text() | JSON, headers=JSON, body=JSON)
@example(topic="0" * 5000, headers={}, body=1)
@example(topic="analysis/x", headers={"": "\ud800"}, body="\ud800")
def test_every_accepted_message_arrives_unchanged_and_the_platform_survives(client, topic, headers, body):
    first = topic.partition("/")[0] if isinstance(topic, str) else ""
    publish_rules, sink_record = (
        rules("kafkaagent", (first,), most=100_000),
        named(topic, headers=headers, message=body),
    )
    try:
        frames = publish_rules.frames(sink_record, b"p1", NOW)
    except (RefusedError, FilteredError):
        return
    with pytest.raises(json.JSONDecodeError):
        json.loads(frames[6].decode("iso-8859-1"))
    assert not is_deeper_than(frames[7], 65)
    assert client.publish(*publish_rules.message(sink_record, NOW)) == 1
    (message,) = client.messages(5, 1)
    assert message.topic == topic
    assert repr(message.body) == repr(body)
    assert repr(message.headers) == repr(publish_rules.message(sink_record, NOW).headers)
    assert OURS.items() <= message.headers.items()


MINIMAL = {
    "volttron.address": "tcp://127.0.0.1:22916",
    "platform.name": "lab",
    "bus.allowed.prefixes": "devices/campus, analysis/",
}


def test_three_settings_are_enough():
    config = VolttronBusSinkConfig.parse(MINIMAL)
    assert config.allowed_prefixes() == ("devices/campus", "analysis")
    assert config.endpoint("out").identity == "tieline.out"


def test_nothing_is_allowed_unless_it_is_named():
    with pytest.raises(ConfigError, match=r"bus\.allowed\.prefixes: is required"):
        VolttronBusSinkConfig.parse({k: v for k, v in MINIMAL.items() if k != "bus.allowed.prefixes"})


def test_all_problems_of_the_sink_are_reported_together():
    wrong = {
        "volttron.address": "127.0.0.1",
        "volttron.identity": "42",
        "bus.allowed.prefixes": "/",
        "topic.from": "value",
        "value.shape": "xml",
        "on.refused": "retry",
        "rate.limit": "nan",
        "rate.burst": "0",
        "max.age.ms": "-2",
        "bus.prefixes": "all",
    }
    with pytest.raises(ConfigError) as error:
        VolttronBusSinkConfig.parse(MINIMAL | wrong)
    assert {problem.key for problem in error.value.problems} == set(wrong)


@pytest.mark.parametrize(("prefixes", "message"), [("", "at least one"), ("日本", "ISO-8859-1")])
def test_prefixes_that_allow_nothing_are_reported(prefixes, message):
    with pytest.raises(ConfigError, match=message):
        VolttronBusSinkConfig.parse(MINIMAL | {"bus.allowed.prefixes": prefixes})
