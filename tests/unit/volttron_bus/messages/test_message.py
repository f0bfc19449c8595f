"""Frames to messages: what is refused and why, and which time counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tieline.api import DIGEST_HEADER, ID_HEADER
from tieline_connectors.volttron_bus.messages.message import (
    MalformedMessageError,
    ParseLimits,
    identity_headers,
    parse_message,
)
from tieline_connectors.volttron_bus.messages.message_time import message_time
from tieline_connectors.volttron_bus.messages.time_formats import parse_time

RECEIVED = 1_700_000_000_000_000
GOOD = {"sender": "a", "bus": "", "headers": {}, "message": 1}


def frames(topic=b"devices/a/all", data=GOOD, protocol=b"VIP1"):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return [b"", protocol, b"", b"p", b"pubsub", b"publish", topic, data]


def nested(levels):
    return json.dumps(GOOD).replace("1}", "[" * levels + "]" * levels + "}").encode()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "frames"),
        (frames()[:7], "frames"),
        (frames(protocol=b"VIP2"), "frames"),
        (frames(b""), "topic"),
        (frames(b"//"), "topic"),
        (frames(data=b""), "not_json"),
        (frames(data=b"\xff\x00"), "not_json"),
        (frames(data=b"{'a': 1}"), "not_json"),
        (frames(data=b'{"message": ' + b"9" * 5000 + b"}"), "not_json"),
        (frames(data=b"[" * 70), "too_deep"),
        (frames(data=nested(65)), "too_deep"),
        (frames(data=b"[]"), "body"),
        (frames(data=b"null"), "body"),
        (frames(data=b'"text"'), "body"),
        (frames(data={"headers": {}, "message": 1}), "body"),
        (frames(data={"sender": "a", "headers": {}}), "body"),
        (frames(data={**GOOD, "headers": None}), "body"),
        (frames(data={**GOOD, "sender": 5}), "body"),
        (frames(data={**GOOD, "sender": "\ud800"}), "body"),
        (frames(data={**GOOD, "headers": dict.fromkeys("abcd", "")}), "too_many_headers"),
    ],
)
def test_an_invalid_message_is_rejected_with_its_reason(parts, reason):
    with pytest.raises(MalformedMessageError) as refused:
        parse_message(parts, RECEIVED, ParseLimits(depth=64, headers=3))
    assert refused.value.reason == reason


def test_a_body_as_deep_as_allowed_is_read():
    message = parse_message(frames(data=nested(64)), RECEIVED, ParseLimits(depth=64))
    assert json.dumps(message.body) == "[" * 64 + "]" * 64


def test_brackets_in_strings_do_not_count_as_depth():
    data = {**GOOD, "message": ["[" * 200, '\\"[[[' * 50, "\\"]}
    assert parse_message(frames(data=data), RECEIVED, ParseLimits(depth=3)).body == data["message"]


@pytest.mark.parametrize(
    ("headers", "time", "source"),
    [
        ({"TimeStamp": "2026-01-01T00:00:00.000001+00:00"}, 1767225600000001, "TIMESTAMP"),
        ({"TimeStamp": "2026-01-01T00:00:00Z"}, 1767225600000000, "TIMESTAMP"),
        ({"TimeStamp": "2026-01-01 02:00:00.5+02:00"}, 1767225600500000, "TIMESTAMP"),
        ({"TimeStamp": "2025-12-31T16:00-0800"}, 1767225600000000, "TIMESTAMP"),
        ({"TimeStamp": "2026-01-01T00:00:00"}, 1767225600000000, "TIMESTAMP_NAIVE"),
        ({"TimeStamp": "2026-01-01"}, 1767225600000000, "TIMESTAMP_NAIVE"),
        ({"TimeStamp": "2026-01-01T00:00:00.123456789Z"}, 1767225600123456, "TIMESTAMP"),
        ({"timestamp": "2026-01-01T00:00:00Z"}, 1767225600000000, "TIMESTAMP"),
        ({"Date": "2026-01-01T00:00:00Z"}, 1767225600000000, "DATE"),
        ({"Date": "2026-01-01T00:00:00"}, 1767225600000000, "DATE_NAIVE"),
        ({"TimeStamp": "soon", "Date": "2026-01-01T00:00:00Z"}, 1767225600000000, "DATE"),
        (
            {"TimeStamp": "2026-01-01T00:00:00Z", "Date": "2020-01-01T00:00:00Z"},
            1767225600000000,
            "TIMESTAMP",
        ),
        ({}, RECEIVED, "RECEIVED"),
        ({"TimeStamp": 1767225600}, 1767225600000000, "TIMESTAMP"),
        ({"TimeStamp": None, "Date": ["2026-01-01T00:00:00Z"]}, RECEIVED, "RECEIVED"),
    ],
)
def test_the_time_is_that_of_the_headers_or_of_the_reception(headers, time, source):
    assert message_time(headers, RECEIVED)[:2] == (time, source)


TIMES: dict[str, list[Any]] = {
    "ISO 8601": [
        "2026-03-01T12:00:30.5+01:00", "2026-03-01 12:00:30.500000+0100", "2026-03-01T11:00:30,5Z",
        "2026-03-01t11:00:30.5z", "2026-03-01 11:00:30.5 UTC", "2026-03-01 11:00:30.5GMT",
        "2026-03-01T12:00:30.5 +01", "2026-03-01T12:00:30.5+01:00[Europe/Paris]", "20260301T110030.5Z",
        "20260301T120030.500+0100", "2026-03-01 12:00:30.5 Europe/Paris", " 2026-03-01T11:00:30.5Z ",
        "2026-03-01  03:00:30.500000000000-0800",
    ],
    "epoch": [
        1772362830.5, 1772362830500, 1772362830500.0, 1772362830500000, 1772362830500000000,
        "1772362830.5", "1772362830500", "1772362830500000", "1772362830500000000",
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", [text for texts in TIMES.values() for text in texts])
def test_the_common_forms_of_one_moment_are_that_moment(text):
    assert parse_time(text) == (1772362830_500000, True)
    assert message_time({"Date": text}, RECEIVED) == (1772362830_500000, "DATE", "")


@pytest.mark.parametrize(
    ("text", "has_zone"),
    [
        ("Sun, 01 Mar 2026 11:00:30 GMT", True),
        ("Sun, 1 Mar 2026 12:00:30 +0100", True),
        ("1 Mar 2026 06:00:30 EST", True),
        ("Sun, 01 Mar 2026 11:00:30 -0000", True),
        ("Sun, 01 Mar 2026 11:00:30 +0000 (UTC)", True),
        ("Sunday, 01-Mar-2026 11:00:30 GMT", True),
        ("Sun Mar  1 11:00:30 2026", False),
        ("Sun, 01 Mar 2026 11:00:30", False),
        ("2026-03-01 11:00:30", False),
        ("20260301T110030", False),
        (1772362830, True),
    ],
)
def test_the_common_forms_without_a_fraction_are_read_too(text, has_zone):
    assert parse_time(text) == (1772362830_000000, has_zone)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 01 Mar 2026 11:00:30 CET", "2026-03-01 11:00:30 CET", "01/03/2026 11:00:30", "3/1/2026 11:00",
        "01.03.2026 11:00:30", "Sun, 01 Mar 26 11:00:30 GMT", "2026-03-01T11:00:30 No/Where", "11:00:30",
        "99999999", "-1772362830", "1e9", "nan", "1772362830s", "20260301110030", "9" * 79, "x" * 10_000_000,
        True, False, 5, 0, -1, 1e300, float("nan"), float("inf"), 10**400, 20260301, [], {}, b"2026-03-01",
        "31 Feb 2026 11:00:30 GMT", "31 Dec 1969 11:00:30 GMT", "2026-03-01T11:00:30Z\x00", "now",
    ],
)  # fmt: skip
def test_an_ambiguous_time_is_not_read_and_reported(text):
    assert parse_time(text) is None
    parsed = message_time({"TimeStamp": text}, RECEIVED)
    assert parsed[:2] == (RECEIVED, "RECEIVED")
    assert parsed.unreadable.startswith("TimeStamp: ")
    assert len(parsed.unreadable) < 400


def test_an_unreadable_time_is_reported_even_if_the_next_header_has_one():
    headers = {"TimeStamp": "soon", "Date": "2026-01-01T00:00:00Z"}
    assert message_time(headers, RECEIVED) == (1767225600000000, "DATE", "TimeStamp: soon")
    assert message_time({"TimeStamp": None}, RECEIVED).unreadable == ""


def test_a_naive_time_is_utc_by_default_whatever_the_points_say():
    body = [{"x": 1}, {"x": {"tz": "US/Pacific"}}]
    parsed = parse_message(
        frames(data={**GOOD, "headers": {"Date": "2026-07-01T00:00:00"}, "message": body}), 7, ParseLimits()
    )
    assert (parsed.time, parsed.time_source) == (1782864000000000, "DATE_NAIVE")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13-01T00:00:00",
        "2026-02-30",
        "2026-01-01T24:00:00",
        "2026-01-01T00:00:60Z",
        "1969-12-31T23:59:59Z",
        "2200-01-01",
        "9999-12-31T23:59:59.999999-23:59",
        "0001-01-01T00:00:00+23:59",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+01:60",
        "٢٠٢٦-01-01",
        "2026-01-01T00:00:00Z" + " " * 99,
        "20260101",
        "2026-01-0xT00:00:00.000000+00:00",
        "2026-W01-1T00:00:00.000000+00:00",
        "1969-12-31T23:59:59.999999+00:00",
        "2200-01-01T00:00:00.000000+00:00",
        "2026-W01-1",
    ],
)
def test_timestamps_outside_1970_to_2199_count_as_missing(text):
    assert parse_time(text) is None


def message(body, topic=b"analysis/x", time="2026-01-01T00:00:00Z"):
    headers = {"TimeStamp": time} if time else {}
    return parse_message(
        frames(topic, {**GOOD, "headers": headers, "message": body}), RECEIVED, ParseLimits()
    )


def identity(*args, platform="lab", **fields):
    return dict(identity_headers(platform, message(*args, **fields))).get(ID_HEADER)


def test_equal_bodies_at_equal_times_are_one_event():
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1})
    assert identity(1, time="2026-01-01T00:00:00Z") == identity(1, time="2026-01-01 01:00:00.000000+01:00")


def test_another_time_topic_platform_or_value_is_another_event():
    bodies = [1, 1.0, True, "1", [1], -1, 0.0, -0.0, None, float("nan"), float("inf"), 2**70, 1e16, 10**16]
    ids = [identity(body) for body in bodies]
    ids += [identity(1, time="2026-01-01T00:00:00.000001Z"), identity(1, topic=b"analysis/y")]
    ids += [identity(1, platform="lab2")]
    assert None not in ids
    assert len(set(ids)) == len(ids)


def test_without_a_time_the_id_is_left_to_the_spool():
    assert identity_headers("lab", message(1, time="")) == ()


def test_the_digest_is_that_of_the_body():
    one, other = (dict(identity_headers("lab", message([5], time=f"2026-01-0{day}"))) for day in (1, 2))
    assert one[DIGEST_HEADER] == other[DIGEST_HEADER]
    assert one[ID_HEADER] != other[ID_HEADER]


@pytest.mark.parametrize(
    "body",
    [
        [{"a": 1, "b": 2}, {"a": {"tz": "US/Pacific"}, "b": {"tz": "UTC"}}],
        [1, {"tz": "No/Where"}],
        [1, {"tz": "../../etc/localtime"}],
        [1, {"tz": "America"}],
        [1, {"tz": "x" * 100_000}],
        [1, {"tz": 5}],
        [1, {}],
        5,
    ],
)
def test_a_naive_time_is_utc_where_the_points_name_no_zone_or_do_not_agree(body):
    parsed = message_time({"TimeStamp": "2026-07-01T00:00:00"}, RECEIVED, body, "points")[:2]
    assert parsed == (1782864000000000, "TIMESTAMP_NAIVE")


def test_a_time_with_a_zone_of_its_own_keeps_it():
    body = [1, {"tz": "US/Pacific"}]
    assert message_time({"TimeStamp": "2026-07-01T00:00:00Z"}, RECEIVED, body, "points")[:2] == (
        1782864000000000,
        "TIMESTAMP",
    )
    assert message_time({"TimeStamp": "2026-07-01T00:00:00"}, RECEIVED, body, "points")[:2] == (
        1782864000000000 + 7 * 3_600_000_000,
        "TIMESTAMP_NAIVE",
    )


def test_a_time_that_its_zone_would_put_before_1970_is_taken_as_utc():
    assert message_time({"Date": "1970-01-01T01:00:00"}, RECEIVED, [1, {"tz": "Asia/Kolkata"}], "points")[
        :2
    ] == (
        3_600_000_000,
        "DATE_NAIVE",
    )
