"""From a frame of the bus to Avro to the cloudagent document: what the old agent would have stored."""

import json

import bson
from bson import Decimal128
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.api import SinkRecord
from tieline.converters.codec import AvroCodec
from tieline_connectors.mongo.documents.layouts import LAYOUTS, LayoutOptions
from tieline_connectors.mongo.writing.collection import _encode
from tieline_connectors.volttron_bus.messages.message import ParseLimits, parse_message
from tieline_connectors.volttron_bus.messages.readings import to_value

RECEIVED = 1_767_225_600_000_000

texts = st.text(max_size=8) | st.text(st.characters(codec=None), max_size=4)  # also half surrogate pairs
keys = st.sampled_from(["a", "$set", "x.y", "", "_id", "nul\0", "units", "json"]) | texts
numbers = (
    st.integers(-(2**70), 2**70)
    | st.sampled_from([2**31, 2**63 - 1, -(2**63), 2**63, 10**34 - 1, 10**34, 10**60])
    | st.floats(allow_nan=False)
    | st.just(float("nan"))
)
scalars = st.none() | st.booleans() | numbers | texts
bodies = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
metadata = st.dictionaries(
    keys,
    st.fixed_dictionaries({}, optional={"units": texts, "type": texts, "tz": texts | scalars}),
    max_size=3,
)
device_bodies = st.tuples(st.dictionaries(keys, bodies, max_size=5) | scalars, metadata).map(list)
topics = st.sampled_from(
    ["devices/a/b/all", "devices/a/b/multi", "devices/a/b/temp", "analysis/x", "devices/all"]
)
headers = st.dictionaries(texts, scalars, max_size=3)


def message_of(topic, header, body):
    """As it comes out of the router: frames of bytes."""
    content = json.dumps({"sender": "platform.driver", "bus": "", "headers": header, "message": body})
    frames = [b"", b"VIP1", b"", b"", b"pubsub", b"publish", topic.encode(), content.encode()]
    return parse_message(frames, RECEIVED, ParseLimits())


def through_avro(topic, header, body):
    schema, value = to_value("lab", message_of(topic, header, body))
    codec = AvroCodec.of(schema)
    return SinkRecord("t", 0, 0, codec.decode(codec.encode(value)), value_schema=schema)


def as_stored(value):
    """As pymongo stored it for the old agent; where it refused (and lost it), what is promised now."""
    if isinstance(value, dict):
        return {visible(key).replace("\0", "\\u0000"): as_stored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_stored(item) for item in value]
    if isinstance(value, str):
        return visible(value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        return Decimal128(str(value)) if abs(value) < 10**34 else str(value)
    return value


def visible(text):
    return text.encode("utf-8", "backslashreplace").decode()


@given(topics, headers, bodies | device_bodies)
def test_any_json_body_becomes_the_document_that_the_old_agent_would_have_stored(topic, header, body):
    header = json.loads(json.dumps(header))
    record = through_avro(topic, header, body)

    document = LAYOUTS["cloudagent"](LayoutOptions(source="BEMA")).documents(record)[""]
    date = document.pop("date")

    old = {
        "author": "volttron.cloudagnet",
        "source": "BEMA",
        "topic": topic,
        "headers": as_stored(header),
        "message": as_stored(json.loads(json.dumps(body))),
    }
    assert _encode(document) == bson.encode(old)
    assert bson.decode(bson.encode({"date": date}))["date"].year >= 1


@given(topics, bodies | device_bodies)
def test_any_json_body_has_a_reading_document(topic, body):
    document = LAYOUTS["reading"](LayoutOptions()).documents(through_avro(topic, {}, body))[""]

    decoded = bson.decode(_encode(document))

    assert decoded["topic"] == topic
    assert decoded["time_us"] == RECEIVED


@given(st.integers(1, 60), st.sampled_from(["[", "{"]))
@settings(max_examples=30)
def test_nesting_up_to_the_sources_limit_is_kept(levels, kind):
    text = "[" * levels + "1" + "]" * levels if kind == "[" else '{"a":' * levels + "1" + "}" * levels
    body = json.loads(text)

    document = LAYOUTS["cloudagent"](LayoutOptions()).documents(through_avro("analysis/x", {}, body))[""]

    assert document["message"] == body
