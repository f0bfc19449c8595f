"""What a schema becomes in Arrow, and that every value comes back as it was."""

import datetime
import decimal
import json
import uuid

import pyarrow as pa
import pytest
from tieline_parquet.columns import column
from tieline_parquet.rows import Layout

from tieline.api import Schema, SinkRecord, identity

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.timezone.utc)


def schema(definition):
    return Schema.parse(json.dumps(definition))


def record(*fields):
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def row(definition, value, **more):
    value_schema = None if definition is None else schema(definition)
    sink_record = SinkRecord("t", 1, 7, value, headers=identity("x"), value_schema=value_schema, **more)
    result = Layout.of(value_schema, frozenset()).rows([sink_record])
    if result.failures:
        raise result.failures[0]
    return result.batch.to_pylist()[0]


def there_and_back(kind, value):
    return row(record(("x", kind)), {"x": value})["x"]


@pytest.mark.parametrize(
    ("kind", "value", "type_"),
    [
        ("boolean", True, pa.bool_()),
        ("int", -(2**31), pa.int32()),
        ("long", 2**63 - 1, pa.int64()),
        ("float", 1.5, pa.float32()),
        ("double", 1e300, pa.float64()),
        ("string", "grün", pa.string()),
        ("bytes", b"\x00\xff", pa.binary()),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", pa.string()),
        ({"type": "fixed", "name": "F", "size": 3}, b"abc", pa.binary(3)),
        ({"type": "array", "items": "long"}, [1, 2], pa.list_(pa.int64())),
        (["null", "string"], None, pa.string()),
        (["null", "string"], "x", pa.string()),
        ({"type": "int", "logicalType": "date"}, datetime.date(2026, 1, 31), pa.date32()),
        ({"type": "int", "logicalType": "time-millis"}, datetime.time(1, 2, 3, 4000), pa.time32("ms")),
        ({"type": "long", "logicalType": "time-micros"}, datetime.time(1, 2, 3, 4), pa.time64("us")),
        ({"type": "long", "logicalType": "timestamp-micros"}, NOW, pa.timestamp("us", "UTC")),
        ({"type": "long", "logicalType": "timestamp-millis"}, NOW.replace(microsecond=123000),
         pa.timestamp("ms", "UTC")),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, NOW.replace(tzinfo=None),
         pa.timestamp("us")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, decimal.Decimal("-1.25"),
         pa.decimal128(9, 2)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 0}, decimal.Decimal(10**39),
         pa.decimal256(40, 0)),
        ({"type": "long", "logicalType": "nobody-knows"}, 5, pa.int64()),
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was_and_its_column_has_its_type(kind, value, type_):
    assert column(schema(kind).parsed).type == type_
    restored = there_and_back(kind, value)
    assert (restored, type(restored)) == (value, type(value))


def test_a_map_keeps_its_order_and_its_keys():
    assert there_and_back({"type": "map", "values": "long"}, {"b": 1, "a": 2}) == [("b", 1), ("a", 2)]


def test_a_uuid_is_its_text():
    number = uuid.uuid4()
    assert there_and_back({"type": "string", "logicalType": "uuid"}, number) == str(number)


def test_a_record_in_a_list_in_a_map_keeps_its_shape():
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "a", "type": ["null", "long"]}]}
    kind = {"type": "map", "values": {"type": "array", "items": inner}}
    assert there_and_back(kind, {"k": [{"a": 1}, {"a": None}]}) == [("k", [{"a": 1}, {"a": None}])]


JSON_TEXT = {"type": "record", "name": "JsonText", "fields": [{"name": "json", "type": "string"}]}
UNION = ["null", "boolean", "long", "double", "string", JSON_TEXT]


@pytest.mark.parametrize(
    ("value", "branch"),
    [(True, "boolean"), (5, "long"), (1.5, "double"), ("x", "string"), ({"json": "[1]"}, "JsonText")],
)
def test_a_value_of_a_union_is_in_the_field_of_its_branch(value, branch):
    nothing = dict.fromkeys(["boolean", "long", "double", "string", "JsonText"])
    assert there_and_back(UNION, value) == {**nothing, branch: value}


def test_null_in_a_union_is_null():
    assert there_and_back(UNION, None) is None


def test_numbers_choose_the_branch_that_holds_them():
    assert there_and_back(["int", "long"], 5) == {"int": 5, "long": None}
    assert there_and_back(["int", "long"], 2**40) == {"int": None, "long": 2**40}
    assert there_and_back(["string", "double"], 5) == {"string": None, "double": 5.0}


def test_two_types_of_one_name_are_told_apart():
    a, b = ({"type": "record", "name": "N", "namespace": space, "fields": [{"name": space, "type": "long"}]}
            for space in "ab")  # fmt: skip
    assert there_and_back([a, b], {"b": 1}) == {"N_0": None, "N_1": {"b": 1}}


def test_a_named_type_can_be_used_again():
    assert (
        row(record(("x", JSON_TEXT), ("y", ["null", "JsonText"])), {"x": {"json": "1"}, "y": None})["y"]
        is None
    )


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (record(("inside", ["null", "R"])), "contains itself"),
        (record(("x", {"type": "record", "name": "Empty", "fields": []})), "has no field"),
        (record(("_kafka", "long")), "a field is named _kafka"),
        (record(("x", {"type": "bytes", "logicalType": "decimal", "precision": 77})), "77 digits"),
    ],
)
def test_what_no_table_can_hold_is_refused_with_a_sentence(definition, why):
    with pytest.raises(ValueError, match=why):
        Layout(schema(definition), frozenset())


def test_a_field_named_as_the_date_folders_is_refused():
    with pytest.raises(ValueError, match="a field is named date"):
        Layout(schema(record(("date", "long"))), frozenset({"date"}))


def test_a_null_that_the_schema_does_not_allow_is_found_wherever_it_is():
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "a", "type": "long"}]}
    for kind, value in (
        (inner, {"a": None}),
        ({"type": "array", "items": ["null", inner]}, [None, {"a": None}]),
    ):
        with pytest.raises(ValueError, match="is null"):
            there_and_back(kind, value)
    assert there_and_back({"type": "array", "items": ["null", inner]}, [None]) == [None]


def test_where_a_record_came_from_stands_beside_it():
    found = row(record(("x", "long")), {"x": 1}, key="campus/ahu1", timestamp=1_700_000_000_000)
    assert found["_kafka"] == {
        "topic": "t", "partition": 1, "offset": 7, "key": "campus/ahu1", "id": identity("x")[0][1].decode(),
        "timestamp": datetime.datetime.fromtimestamp(1_700_000_000, datetime.timezone.utc),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [("a text", "a text"), ({"b": [1, None]}, '{"b": [1, null]}'), (5, "5"), (b"\xff", '"/w=="')],
)
def test_a_value_without_a_schema_is_text_or_json(value, text):
    assert row(None, value)["value"] == text


def test_a_value_that_is_no_record_is_the_column_value():
    assert row("long", 5)["value"] == 5
    assert row(["null", "long"], 5)["value"] == 5


@pytest.mark.parametrize("value", [{"x": "text"}, {"x": 2**63}, {"x": None}, {}, [1], "text"])
def test_a_value_that_is_not_true_to_its_schema_is_named_and_the_others_are_rows(value):
    kind = schema(record(("x", "long")))
    records = [
        SinkRecord("t", 0, n, each, value_schema=kind) for n, each in enumerate([{"x": 1}, value, {"x": 3}])
    ]
    result = Layout.of(kind, frozenset()).rows(records)
    assert list(result.failures) == [1]
    assert [each["x"] for each in result.batch.to_pylist()] == [1, 3]


@pytest.mark.parametrize(
    ("logical", "base", "value", "beyond"),
    [
        ("date", "int", datetime.date(2026, 1, 31), 2**31 - 1),
        ("timestamp-millis", "long", NOW, 253402300800000),
        ("timestamp-micros", "long", NOW, -(2**62)),
        ("local-timestamp-millis", "long", NOW.replace(tzinfo=None), 253402300800000),
    ],
)
@pytest.mark.parametrize(
    "wrap", [lambda kind: kind, lambda kind: ["null", kind], lambda kind: ["string", kind]]
)
def test_a_time_that_python_has_no_place_for_is_a_row_beside_its_neighbours(
    logical, base, value, beyond, wrap
):
    kind = {"type": base, "logicalType": logical}
    value_schema = schema(record(("x", wrap(kind))))
    records = [
        SinkRecord("t", 1, n, {"x": each}, headers=identity(n), value_schema=value_schema)
        for n, each in enumerate([value, beyond, value])
    ]
    result = Layout.of(value_schema, frozenset()).rows(records)
    assert not result.failures
    column_of = result.batch.column(0)
    if pa.types.is_struct(column_of.type):
        column_of = column_of.field(1)
    whole = pa.int32() if base == "int" else pa.int64()
    assert column_of.cast(whole)[1].as_py() == beyond


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ({"type": "string", "logicalType": "date"}, "x"),
        ({"type": "long", "logicalType": "time-millis"}, 7),
        ({"type": "int", "logicalType": "uuid"}, 7),
        ({"type": "string", "logicalType": "decimal"}, "x"),
    ],
)
def test_a_logical_type_that_is_invalid_where_it_stands_is_ignored(kind, value):
    assert there_and_back(kind, value) == value
