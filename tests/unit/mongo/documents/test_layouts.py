import datetime as dt
import decimal
import json
import uuid
from typing import Any

import bson
import pytest
from bson import Decimal128

from tieline.api import Schema, SinkRecord
from tieline_connectors.mongo.client import CODEC
from tieline_connectors.mongo.documents.layouts import LAYOUTS, LayoutOptions
from tieline_connectors.mongo.documents.values import LEVELS, from_json, shallow, storable, to_date

COMMON: dict[str, Any] = {
    "platform": "lab",
    "topic": "devices/b/d/all",
    "sender": "platform.driver",
    "time": 1_767_225_600_000_123,
    "time_source": "DATE",
    "received": 1_767_225_601_000_000,
}


def device(**changes):
    value = {
        **COMMON,
        "device": "b/d",
        "kind": "ALL",
        "headers": {"Date": "x"},
        "points": {"t": 1.5},
        "metadata": {"t": {"units": "C", "type": "float", "tz": "UTC"}},
        **changes,
    }
    return SinkRecord("t", 0, 0, value, value_schema=Schema.named("volttron.DeviceReading"))


def document(layout, record, **options):
    return LAYOUTS[layout](LayoutOptions(**options)).documents(record)[""]


def test_the_old_documents_fields_are_exactly_the_old_agents_in_its_order():
    assert document("cloudagent", device()) == {
        "author": "volttron.cloudagnet",
        "source": "lab",
        "date": dt.datetime(2026, 1, 1, 0, 0, 0, 123),
        "topic": "devices/b/d/all",
        "headers": {"Date": "x"},
        "message": [{"t": 1.5}, {"t": {"units": "C", "type": "float", "tz": "UTC"}}],
    }


def test_the_old_documents_date_can_be_text_as_the_old_agent_wrote_it():
    stored = document("cloudagent", device(), text_dates=True, source="BEMA")

    assert (stored["date"], stored["source"]) == ("2026-01-01 00:00:00.000123", "BEMA")


def test_units_are_read_from_unusual_metadata_and_omitted_if_missing():
    metadata = {
        "a": {"units": "C", "type": None, "tz": None},
        "b": {"units": None, "type": "int", "tz": None},
        "c": {"json": '{"units": "kW", "extra": 1}'},
        "d": {"json": '"kW"'},
        "e": {"json": '{"units": 5}'},
    }

    assert document("reading", device(metadata=metadata))["units"] == {"a": "C", "c": "kW"}


@pytest.mark.parametrize("layout", ["reading", "cloudagent"])
@pytest.mark.parametrize(
    "value", [None, "text", 5, [1], {}, {**COMMON}, {**COMMON, "body": "x", "headers": "{}"}]
)
def test_a_record_that_does_not_fit_a_layout_is_rejected_with_the_fix(layout, value):
    with pytest.raises(ValueError, match=r"layout=value takes any data|Expecting value"):
        document(layout, SinkRecord("t", 0, 0, value))


def nested(levels):
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def depth(value):
    return 1 + max(map(depth, value.values()), default=0) if isinstance(value, dict) else 0


@pytest.mark.parametrize("read", [shallow, lambda value: from_json(json.dumps(value))])
def test_values_too_deep_for_mongodb_are_kept_as_json_text_at_the_last_level(read):
    fits, too_deep = nested(LEVELS - 1), nested(LEVELS)

    assert read(fits) == fits
    stored = read(too_deep)
    assert depth({"field": stored}) == LEVELS
    assert '{"_json": "{\\"a\\": {\\"a\\": 1}}"}' in json.dumps(stored)


@pytest.mark.parametrize("part", ["points", "headers", "metadata"])
def test_the_old_document_is_never_too_deep_for_mongodb(part):
    deep = {"json": json.dumps(nested(LEVELS))}

    stored = document("cloudagent", device(**{part: {"t": deep}}))
    of_bus = {**COMMON, "headers": deep["json"], "body": f"[{deep['json']}]"}

    assert depth({"": stored["headers"]}) <= LEVELS
    assert "_json" in json.dumps([stored["headers"], stored["message"]])
    other = document("cloudagent", SinkRecord("t", 0, 0, of_bus))
    assert "_json" in json.dumps(other["headers"])
    assert "_json" in json.dumps(other["message"])


def test_json_that_python_cannot_read_is_kept_as_text():
    text = "[" * 100_000 + "]" * 100_000

    assert from_json(text) == {"_json": text}


def test_a_time_beyond_the_calendar_is_still_a_bson_date():
    assert bson.encode({"t": to_date(2**62)})[:1] == b"\x10"
    assert to_date(-1) == dt.datetime(1969, 12, 31, 23, 59, 59, 999999)


def test_integers_take_the_smallest_type_that_holds_them_exactly():
    stored = storable([1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**34 - 1, -(10**34)])

    assert stored[:3] == [1, 2**63 - 1, -(2**63)]
    assert stored[3:6] == [Decimal128(str(n)) for n in (2**63, -(2**63) - 1, 10**34 - 1)]
    assert stored[6] == str(-(10**34))


def test_two_keys_that_would_look_the_same_stay_two():
    assert storable({"a\0": 1, "a\\u0000": 2}) == {"a\\u0000": 1, "a\\u0000_": 2}


def test_avros_logical_types_can_be_stored():
    value = {
        "day": dt.date(2026, 1, 2),
        "clock": dt.time(1, 2, 3),
        "amount": decimal.Decimal("1.50"),
        "long": decimal.Decimal("1." + "1" * 40),
        "id": uuid.UUID(int=5),
    }

    stored = bson.decode(bson.encode(storable(value), codec_options=CODEC), codec_options=CODEC)

    assert stored == {
        "day": dt.datetime(2026, 1, 2),
        "clock": "01:02:03",
        "amount": Decimal128("1.50"),
        "long": "1." + "1" * 40,
        "id": uuid.UUID(int=5),
    }


LOGGED = {"units": "F", "type": None, "tz": None, "time_source": "TIMESTAMP"}


def test_a_point_is_a_document_of_its_own_with_its_value_and_units():
    record = device(
        points={"t": 1.5, "big": {"json": str(2**70)}, "a/b": None},
        metadata={"t": {"units": "C", "type": None, "tz": None}},
    )

    documents = LAYOUTS["point"](LayoutOptions()).documents(record)

    assert [(key, d["point"], d["value"], d["units"]) for key, d in documents.items()] == [
        ("/t", "t", 1.5, "C"),
        ("/big", "big", 2**70, None),
        ("/a/b", "a/b", None, None),
    ]
    assert documents["/t"] == {
        "topic": "devices/b/d/all",
        "time": to_date(COMMON["time"]),
        "time_us": COMMON["time"],
        "time_source": "DATE",
        "received": to_date(COMMON["received"]),
        "platform": "lab",
        "sender": "platform.driver",
        "device": "b/d",
        "point": "t",
        "value": 1.5,
        "units": "C",
    }


def test_each_logged_value_is_a_document_with_a_time_of_its_own():
    body = {"headers": "{}", "body": "{}", "device": "b/d"}
    logged = [
        {"point": "a", "time": 1_000_000, "value": 1, **LOGGED},
        {"point": "a", "time": 2_000_000, "value": {"json": "[2]"}, **LOGGED},
        {"point": "1/a", "time": 3_000_000, "value": 3, **LOGGED},
    ]

    documents = LAYOUTS["point"](LayoutOptions()).documents(
        SinkRecord("t", 0, 0, {**COMMON, **body, "readings": logged})
    )

    assert [(key, d["point"], d["value"], d["time_us"]) for key, d in documents.items()] == [
        ("/0/a", "a", 1, 1_000_000),
        ("/1/a", "a", [2], 2_000_000),
        ("/2/1/a", "1/a", 3, 3_000_000),
    ]


@pytest.mark.parametrize("value", [None, "text", 5, [1], {}, {**COMMON}])
def test_a_record_that_is_not_from_the_bus_does_not_fit_the_layout_of_points(value):
    with pytest.raises(ValueError, match="layout=value takes any data"):
        LAYOUTS["point"](LayoutOptions()).documents(SinkRecord("t", 0, 0, value))


def test_a_message_of_the_bus_has_no_points():
    record = SinkRecord("t", 0, 0, {**COMMON, "headers": "{}", "body": "[1]"})

    assert LAYOUTS["point"](LayoutOptions()).documents(record) == {}


def test_a_data_log_in_the_layout_reading_keeps_its_message_and_says_its_device():
    record = SinkRecord(
        "t", 0, 0, {**COMMON, "headers": "{}", "body": '{"a": 1}', "device": "b/d", "readings": []}
    )

    stored = document("reading", record)

    assert (stored["device"], stored["message"]) == ("b/d", {"a": 1})


def test_the_layouts_store_their_own_kinds_unless_configured_otherwise():
    assert {name: layout(LayoutOptions()).kinds for name, layout in LAYOUTS.items()} == {
        "cloudagent": None,
        "command-history": None,
        "point": ("ALL", "MULTI", "POINT"),
        "reading": ("ALL", "MULTI"),
        "timeseries": ("ALL", "MULTI", "POINT"),
        "value": None,
    }
    assert LAYOUTS["point"](LayoutOptions(("OTHER",))).kinds == ("OTHER",)
