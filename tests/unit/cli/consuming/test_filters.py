"""Which records are wanted."""

import datetime as dt

import pytest

from tieline.api import StartupError
from tieline.cli.consuming.filters import filters, since_ms
from tieline.topics.decoder import Decoded, DisplayRecord

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
VALUE = {
    "topic": "devices/campus/ahu1/all",
    "points": {"a.b": 72, "on": True, "name": "72", "x": {"y": [1.5, None]}},
    "none": None,
}


def record(value=VALUE, key="campus/ahu1", headers=(("site", b"campus"),), timestamp=0):
    return DisplayRecord("t", 0, 0, timestamp, Decoded("text", key), headers, Decoded("json", value))


def passes(record, key=None, where=(), headers=(), since=None):
    return all(matches(record) for matches in filters(key, where, headers, since))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("topic=devices/campus/ahu1/all", True),
        ("topic=devices", False),
        ("topic~ahu[12]/", True),
        ("topic~^ahu", False),
        ("points.a.b=72", True),
        ("points.a.b=72.0", True),
        ("points.a.b~7", True),
        ("points.on=true", True),
        ("points.on=1", False),
        ("points.name=72", True),
        ('points.name="72"', True),
        ("points.x.y.0=1.5", True),
        ("points.x.y.1=null", True),
        ("points.x.y.2=null", False),
        ("none=null", True),
        ("missing=null", False),
        ("missing~.*", False),
        ("~ahu1", True),
        ('points.x={"y":[1.5,null]}', True),
        ("topic=a=b", False),
    ],
)
def test_a_field_is_compared_or_searched(where, expected):
    assert passes(record(), where=[where]) is expected


def test_a_value_that_is_not_an_object_has_no_fields():
    assert passes(record("21.5 degrees"), where=["~degrees"])
    assert not passes(record("21.5 degrees"), where=["a=1"])
    assert not passes(record(b"\x00"), where=["a~."])


def test_a_record_must_match_every_filter():
    both = ["points.on=true", "points.a.b=72"]
    assert passes(record(timestamp=5), "ahu1$", both, ["site=campus"], 5)
    assert not passes(record(), "ahu1$", [*both, "none=1"], ["site=campus"])
    assert not passes(record(), "ahu2$", both, ["site=campus"])
    assert not passes(record(), "ahu1$", both, ["site=other"])


def test_a_record_without_a_key_matches_no_key_filter():
    assert not passes(record(key=None), key="")
    assert passes(record(key=""), key="")


def test_a_header_has_exactly_this_value():
    assert passes(record(headers=(("a", b"0"), ("a", b"x=y"))), headers=["a=x=y"])
    assert not passes(record(headers=(("a", b"xx"), ("b", b"x"), ("a", None))), headers=["a=x"])
    assert passes(record(headers=(("a", b""),)), headers=["a="])


def test_since_compares_the_records_own_time():
    assert passes(record(timestamp=10), since=10)
    assert not passes(record(timestamp=9), since=10)


@pytest.mark.parametrize(
    ("text", "before_now"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("0.5 h", 1800), ("2026-01-31", 43_200),
     ("2026-01-31T12:00:00+01:00", 3600), ("2026-01-31T11:00:00Z", 3600), ("2026-01-31 11:59", 60)],
)  # fmt: skip
def test_a_time_is_iso_8601_or_an_age(text, before_now):
    assert since_ms(text, NOW) == (NOW.timestamp() - before_now) * 1000


@pytest.mark.parametrize("text", ["yesterday", "", "-5m", "5 weeks", "999999999d", "1" * 100 + "s"])
def test_an_invalid_time_is_rejected_with_the_known_forms(text):
    with pytest.raises(StartupError, match="15m"):
        since_ms(text, NOW)


@pytest.mark.parametrize(
    "wanted", [{"key": "["}, {"where": ["a~["]}, {"where": ["a"]}, {"headers": ["a"]}, {"headers": ["=a"]}]
)
def test_an_invalid_filter_is_rejected(wanted):
    with pytest.raises(StartupError):
        passes(record(), **wanted)
