"""Whatever JSON an agent publishes comes out of the record again, exactly."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from tieline.api import ID_HEADER, header
from tieline.converters.codec import AvroCodec
from tieline_connectors.volttron_bus.messages.message import (
    MalformedMessageError,
    ParseLimits,
    canonical,
    parse_message,
)
from tieline_connectors.volttron_bus.messages.message_time import message_time
from tieline_connectors.volttron_bus.messages.prefixes import ALL_PREFIXES
from tieline_connectors.volttron_bus.messages.readings import rebuild
from tieline_connectors.volttron_bus.messages.records import RecordMapper, Route
from tieline_connectors.volttron_bus.messages.time_formats import parse_time
from tieline_connectors.volttron_bus.vip.frames import check_text, is_deeper_than, pack, unpack

LIMITS = ParseLimits()
RECEIVED = 1_700_000_000_000_000
PREFIXES = (*ALL_PREFIXES, "points")
RECORDER = RecordMapper("lab", [Route(prefix, "bus") for prefix in PREFIXES], "avro")

texts = st.text(max_size=8) | st.sampled_from(["", "$set", "a.b", "json", "units", "type", "tz", "TimeStamp"])
halves = st.sampled_from(["\ud800", "x\udfff", "\udc00\ud800"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**70, 10**300, 0, 1])
    | st.floats()
    | st.sampled_from([1.0, -0.0, 1e16, 5e-324])
    | texts
)


def documents(strings):
    leaves = scalars | strings
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | strings, inner, max_size=4),
        max_leaves=12,
    )


@st.composite
def nested(draw):
    value = draw(scalars)
    for opener in draw(st.lists(st.sampled_from("[{"), min_size=1, max_size=LIMITS.depth)):
        value = [value] if opener == "[" else {draw(texts): value}
    return value


metadata = st.fixed_dictionaries({}, optional={"units": texts, "type": texts, "tz": texts}) | documents(texts)
segments = st.sampled_from(["all", "multi", "campus", "actuators", "Reading", "", "é", "ÿ", "1"])
topics = st.tuples(st.sampled_from(PREFIXES), st.lists(segments, max_size=4)).map(
    lambda parts: "/".join((parts[0], *parts[1]))
)
times = st.sampled_from(["2015-12-02T00:00:00", "2015-12-02T00:00:00Z", 1449014400, 1.5, "x", 10**400])
logged = st.dictionaries(
    texts,
    st.fixed_dictionaries(
        {
            "Readings": scalars
            | st.tuples(times, documents(texts)).map(list)
            | st.lists(st.tuples(times, scalars).map(list), max_size=3),
            "Units": texts,
        },
        optional={
            "tz": texts | halves | st.sampled_from(["UTC", "US/Pacific", "America", "../x", "a\0"]),
            "data_type": texts,
            "more": documents(texts),
        },
    ),
    max_size=3,
)
bodies = (
    documents(texts)
    | logged
    | documents(halves)
    | nested()
    | st.lists(scalars | st.dictionaries(texts, metadata, max_size=4), min_size=2, max_size=2)
    | st.tuples(
        st.dictionaries(texts, documents(texts), max_size=5), st.dictionaries(texts, metadata, max_size=5)
    ).map(list)
    | st.tuples(scalars, metadata).map(list)
)
headers = st.dictionaries(texts, documents(texts), max_size=4) | st.dictionaries(
    texts, texts | halves, max_size=4
)


def frames(topic, headers, body, sender="platform.driver"):
    """What the router sends to a subscriber, by the way that it makes them."""
    data = json.dumps({"sender": sender, "bus": "", "headers": headers, "message": body})
    return [b"", b"VIP1", b"", b"p1", b"pubsub", b"publish", topic.encode("iso-8859-1"), data.encode()]


REASONS = {"", "frames", "topic", "too_deep", "not_json", "body", "too_many_headers"}


def refusal(parts):
    try:
        parse_message(parts, RECEIVED, LIMITS)
    except MalformedMessageError as error:
        return error.reason
    return ""


def is_reading(record):
    return record.value_schema.name == "volttron.DeviceReading"


@given(topics, headers, bodies, st.sampled_from(["platform.driver", "ü"]))
@example("devices/a/all", {"n": 1}, [{"x": 2**63, "y": True}, {"x": {"type": "t", "units": "u"}}], "s")
@example("devices/a/Reading", {}, [float("nan"), {"units": "u", "tz": None}], "s")
@example("devices/a/Reading", {}, ["\ud800", {}], "s")
def test_the_message_can_be_rebuilt_exactly_from_the_encoded_record(topic, headers, body, sender):
    record = RECORDER.record(parse_message(frames(topic, headers, body, sender), RECEIVED, LIMITS))
    codec = AvroCodec.of(record.value_schema)
    rebuilt = rebuild(codec.decode(codec.encode(record.value)))
    assert repr(tuple(rebuilt)) == repr((topic, headers, body, sender))


@given(st.dictionaries(texts, scalars, max_size=5), st.dictionaries(texts, metadata, max_size=5))
def test_points_and_metadata_under_all_are_always_a_reading(points, metadata):
    record = RECORDER.record(
        parse_message(frames("devices/c/b/a/all", {}, [points, metadata]), RECEIVED, LIMITS)
    )
    assert is_reading(record)
    assert record.value["kind"] == "ALL"
    assert record.key == record.value["device"] == "c/b/a"


naive = st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1))
somewhere = st.sampled_from(["UTC", "US/Pacific", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"])


@given(naive, somewhere, somewhere, st.sampled_from(["TimeStamp", "Date"]))
def test_a_naive_time_is_utc_or_in_the_zone_that_is_configured_or_on_which_the_points_agree(
    when, name, configured, key
):
    def in_zone(zone):
        return int(when.replace(tzinfo=zone).timestamp()) * 1_000_000 + when.microsecond

    entry = {"units": "F", "tz": name}
    for body in (
        [{"x": 1, "y": 2}, {"x": entry, "y": {"units": "F"}, "z": entry}],
        [1, entry],
        {"x": {"Readings": 1, "Units": "F", "tz": name}},
    ):
        zones: list[tuple[Any, int]] = [
            (timezone.utc, in_zone(timezone.utc)),
            (ZoneInfo(configured), in_zone(ZoneInfo(configured))),
            ("points", in_zone(ZoneInfo(name))),
        ]
        for setting, expected in zones:
            parsed = parse_message(
                frames("devices/a/x", {key: when.isoformat()}, body), RECEIVED, LIMITS, setting
            )
            assert (parsed.time, parsed.time_source) == (expected, f"{key.upper()}_NAIVE")


@given(bodies, bodies)
@example([1], [1.0])
@example([1], [True])
@example([0.0], [-0.0])
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
def test_the_canonical_form_is_the_same_exactly_for_equal_bodies(one, other):
    assert (canonical(one) == canonical(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@given(topics, bodies)
def test_a_message_read_twice_is_one_event_and_without_a_time_none(topic, body):
    timed = frames(topic, {"TimeStamp": "2026-01-01T00:00:00Z"}, body)
    first, again = (RECORDER.record(parse_message(timed, RECEIVED + n, LIMITS)) for n in (0, 1))
    assert first.headers == again.headers
    assert header(first, ID_HEADER) is not None
    untimed = RECORDER.record(parse_message(frames(topic, {}, body), RECEIVED, LIMITS))
    assert header(untimed, ID_HEADER) is None


@given(
    st.lists(
        st.binary(max_size=20) | st.sampled_from([b"VIP1", b"pubsub", b"publish", b"devices/a"]), max_size=10
    )
)
def test_any_frames_are_a_message_or_malformed(parts):
    assert refusal(parts) in REASONS


@given(documents(texts | halves) | st.text(max_size=30))
def test_any_data_in_a_publication_is_a_message_or_malformed(data):
    text = data if isinstance(data, str) else json.dumps(data)
    parts = [*frames("devices/a", {}, 1)[:7], text.encode("utf-8", "replace")]
    assert refusal(parts) in REASONS


@given(documents(st.sampled_from(['"', "\\", '\\"', "[[[[", "}}", '"[', "\\\\\\"])), st.integers(0, 6))
def test_depth_is_measured_without_parsing(document, levels):
    assert is_deeper_than(json.dumps(document).encode(), levels) == (_depth(document) > levels)


def _depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(_depth, inner), default=0)


@given(st.lists(st.binary()))
def test_packed_frames_are_unpacked(parts):
    assert unpack(pack(parts)) == parts


@given(
    st.text(max_size=12)
    | st.sampled_from(["42", "true", "null", '"x"', " 1 ", "NaN", "-Infinity", "[", "{}"])
)
def test_an_accepted_name_stays_text_at_the_router(text):
    try:
        assert check_text("topic", text) == text
    except ValueError:
        return
    decoded = text.encode("iso-8859-1").decode("iso-8859-1")
    try:
        json.loads(decoded)
    except ValueError:
        return
    raise AssertionError(f"{text!r} reads as JSON")


moments = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30))
zones = st.sampled_from(
    [None, timezone.utc, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]
)


@given(moments, zones, st.sampled_from("T "))
def test_every_iso_time_is_read_to_the_microsecond(when, zone, separator):
    time = parse_time(when.replace(tzinfo=zone).isoformat(separator))
    expected = when.replace(tzinfo=zone or timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert time == (expected // timedelta(microseconds=1), zone is not None)


@given(st.dictionaries(st.sampled_from(["TimeStamp", "timestamp", "Date", "x"]), documents(texts | halves)))
def test_any_headers_give_a_valid_time(headers):
    """A number may be a time of epoch seconds or milliseconds; what is none leaves the time of reception."""
    time, source, _ = message_time(headers, RECEIVED)
    if source == "RECEIVED":
        assert time == RECEIVED
    else:
        assert source.removesuffix("_NAIVE") in ("TIMESTAMP", "DATE")
        assert 0 <= time < (datetime(2200, 1, 1) - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def test_integers_of_any_length_that_python_writes_can_be_rebuilt():
    longest = (
        10 ** (sys.int_info.default_max_str_digits - 1)
        if hasattr(sys.int_info, "default_max_str_digits")
        else 10**4000
    )
    record = RECORDER.record(
        parse_message(frames("devices/a/all", {}, [{"x": longest}, {}]), RECEIVED, LIMITS)
    )
    assert rebuild(record.value).body == [{"x": longest}, {}]
