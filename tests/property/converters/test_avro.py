"""Generated schemas with values that are true to them: what is written is what is read, by two readers."""

from __future__ import annotations

import io
import json
import math
import struct
import time

import avro.io
import avro.schema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tieline.api import DataError, Datum, Encoded, Schema
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.codec import MAX_ITEMS, AvroCodec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(width=32, allow_nan=False)
PRIMITIVES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": FLOATS,
    "double": st.floats(allow_nan=False),
    "string": TEXT,
    "bytes": st.binary(max_size=12),
}
# One of a union's branches a Python type; int before long would take long's small values.
UNION = ["null", "boolean", "long", "double", "string", "bytes"]


class Names:
    """Named types need names of their own within a schema."""

    def __init__(self):
        self.count = 0

    def new(self):
        self.count += 1
        return f"lab.T{self.count}"


def schemas_with_values(names, depth=3):
    """Pairs of a schema and the strategy of its values."""
    leaves = st.sampled_from(list(PRIMITIVES.items()))
    named = st.builds(
        lambda kind, size: _named(kind, size, names.new()),
        st.sampled_from(["enum", "fixed"]),
        st.integers(1, 4),
    )
    leaf = st.one_of(leaves, named)
    if depth == 0:
        return leaf
    inner = st.deferred(lambda: schemas_with_values(names, depth - 1))
    array = inner.map(lambda p: ({"type": "array", "items": p[0]}, st.lists(p[1], max_size=3)))
    mapping = inner.map(lambda p: ({"type": "map", "values": p[0]}, st.dictionaries(TEXT, p[1], max_size=3)))
    record = st.lists(inner, max_size=4).map(lambda pairs: _record(names.new(), pairs))
    union = (
        st.tuples(st.lists(st.sampled_from(UNION), unique=True, max_size=5), st.none() | array | mapping)
        .filter(lambda p: len(p[0]) + (p[1] is not None) > 0)
        .map(lambda p: _union(*p))
    )
    return st.one_of(leaf, array, mapping, record, union)


def _named(kind, size, name):
    if kind == "enum":
        symbols = [f"S{n}" for n in range(size)]
        return {"type": "enum", "name": name, "symbols": symbols}, st.sampled_from(symbols)
    return {"type": "fixed", "name": name, "size": size}, st.binary(min_size=size, max_size=size)


def _record(name, pairs):
    fields = [{"name": f"f{n}", "type": schema} for n, (schema, _) in enumerate(pairs)]
    values = st.fixed_dictionaries({f"f{n}": value for n, (_, value) in enumerate(pairs)})
    return {"type": "record", "name": name, "fields": fields}, values


def _union(names, complex_branch):
    branches = list(names) + ([complex_branch[0]] if complex_branch else [])
    values = [PRIMITIVES[name] for name in names] + ([complex_branch[1]] if complex_branch else [])
    return branches, st.one_of(values)


@st.composite
def pairs(draw):
    schema, values = draw(schemas_with_values(Names()))
    return Schema(json.dumps(schema)), draw(values)


def same(one, other):
    """Equal, and of the same types all the way down; -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(pairs())
def test_values_are_decoded_with_their_exact_types(pair):
    schema, value = pair
    codec = AvroCodec(schema)
    assert same(codec.decode(codec.encode(value)), value)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(pairs())
def test_apache_avro_reads_the_same_value_from_the_same_bytes(pair):
    schema, value = pair
    data = AvroCodec(schema).encode(value)
    source = io.BytesIO(data)
    read = avro.io.DatumReader(avro.schema.parse(schema.text)).read(avro.io.BinaryDecoder(source))
    assert source.tell() == len(data)
    assert same(read, value)


class OneSchema:
    """A schema store for one test: each schema has the id under which it was put in."""

    def __init__(self, *schemas):
        self.by_id = dict(enumerate(schemas, start=1))

    def register(self, subject, schema):
        return next(schema_id for schema_id, known in self.by_id.items() if known == schema)

    def schema(self, schema_id):
        return self.by_id.get(schema_id)


NODE = Schema(
    json.dumps(
        {"type": "record", "name": "lab.Node", "fields": [{"name": "next", "type": ["null", "lab.Node"]}]}
    )
)
TREE = Schema(
    json.dumps(
        {
            "type": "record",
            "name": "lab.Tree",
            "fields": [{"name": "kids", "type": {"type": "array", "items": "lab.Tree"}}],
        }
    )
)
NULLS = Schema('{"type": "array", "items": "null"}')
EMPTIES = Schema('{"type": "array", "items": {"type": "record", "name": "lab.Empty", "fields": []}}')
ZEROS = Schema(
    '{"type": "map", "values": {"type": "array", "items": {"type": "fixed", "name": "Z", "size": 0}}}'
)
STORE = OneSchema(
    Schema.named("volttron.DeviceReading"),
    Schema.named("volttron.BusMessage"),
    NODE,
    TREE,
    NULLS,
    EMPTIES,
    ZEROS,
    Schema('["null", "boolean", "long", "double", "string", "bytes"]'),
    Schema(
        '{"type": "map", "values": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}'
    ),
    Schema('{"type": "long", "logicalType": "timestamp-micros"}'),
    Schema('{"type": "array", "items": "long"}'),
)


def converter():
    converter = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=STORE)
    return converter


def outcome(data):
    """The datum, or the data error; any other error is the test's end."""
    try:
        return converter().deserialize([Encoded("t", data)])[0]
    except DataError as error:
        return error


def frame(schema_id, body):
    return b"\x00" + struct.pack(">I", schema_id) + body


@settings(max_examples=200, deadline=2000)
@given(st.integers(1, len(STORE.by_id)), st.binary(max_size=200))
def test_any_bytes_raise_at_most_a_data_error(schema_id, body):
    read = outcome(frame(schema_id, body))
    assert (
        list(read.failures) == [0] if isinstance(read, DataError) else read.schema is STORE.schema(schema_id)
    )


@given(st.binary(min_size=1, max_size=8))
def test_any_prefix_raises_at_most_a_data_error(data):
    read = outcome(data)
    assert isinstance(read, DataError)
    assert list(read.failures) == [0]


READING = {
    "platform": "p",
    "topic": "devices/a/b/all",
    "device": "a/b",
    "kind": "ALL",
    "sender": "driver",
    "headers": {"Date": "x", "other": {"json": "[1]"}},
    "time": 1,
    "time_source": "DATE",
    "received": 2,
    "points": {"a": None, "b": True, "c": 2**63 - 1, "d": 0.5, "e": "é", "f": {"json": str(2**70)}},
    "metadata": {"a": {"units": "F", "type": None, "tz": None}, "b": {"json": "3"}},
}


@given(st.data())
def test_a_reading_cut_short_or_with_a_flipped_bit_raises_only_a_data_error(data):
    schema = Schema.named("volttron.DeviceReading")
    good = frame(1, AvroCodec.of(schema).encode(READING))
    cut = good[: data.draw(st.integers(1, len(good) - 1))]
    assert isinstance(outcome(cut), DataError)
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    flipped = bytearray(good)
    flipped[bit // 8] ^= 1 << bit % 8
    assert isinstance(outcome(bytes(flipped)), DataError | Datum)


def zigzag(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number & ~0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("schema_id", "body"),
    [
        (5, zigzag(2**40) + b"\x00"),
        (5, zigzag(-(2**40)) + b"\x00\x00"),
        (6, zigzag(2**40) + b"\x00"),
        (7, b"\x02\x02a" + zigzag(2**40) + b"\x00\x00"),
        (11, zigzag(2**40) + b"\x02" * 50),
        (11, zigzag(-(2**62)) + b"\x02" * 50),
        (8, b"\x08" + zigzag(2**40) + b"abc"),
        (8, b"\x0a" + zigzag(-(2**62)) + b"abc"),
        (1, zigzag(2**60)),
        (3, b"\x02" * 2_000_000 + b"\x00"),
        (4, b"\x02" * 2_000_000 + b"\x00"),
    ],
    ids=[
        *("nulls", "nulls in a sized block", "empty records", "fixed of no bytes", "longs", "negative longs"),
        *("text", "bytes of negative length", "a reading", "a deep record", "a deep tree"),
    ],
)
def test_hostile_lengths_and_depths_cost_neither_time_nor_memory_nor_the_process(schema_id, body):
    started = time.monotonic()
    assert isinstance(outcome(frame(schema_id, body)), DataError)
    assert time.monotonic() - started < 2


def test_arrays_of_items_that_take_no_bytes_are_read_up_to_a_bound():
    codec = AvroCodec(NULLS)
    assert codec.decode(codec.encode([None] * MAX_ITEMS)) == [None] * MAX_ITEMS
    with pytest.raises(ValueError, match="more than 100000 items"):
        codec.decode(codec.encode([None] * (MAX_ITEMS + 1)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["long", "record", "lab.Node", "type", "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "values", "size", "symbols"]), inner
        )
    ),
    max_leaves=6,
)


def places(definition, path=()):
    yield path
    if isinstance(definition, dict):
        for key, item in definition.items():
            yield from places(item, (*path, key))
    if isinstance(definition, list):
        for index, item in enumerate(definition):
            yield from places(item, (*path, index))


def replaced(definition, path, other):
    if not path:
        return other
    copy = definition.copy()
    copy[path[0]] = replaced(copy[path[0]], path[1:], other)
    return copy


@settings(max_examples=200, deadline=2000)
@given(st.data())
def test_a_schema_with_anything_in_one_place_is_a_value_error_or_can_be_used(data):
    whole = data.draw(st.sampled_from([schema.definition for schema in STORE.by_id.values()]))
    path = data.draw(st.sampled_from([p for p in places(whole) if p] or [()]))
    definition = replaced(whole, path, data.draw(JSON))
    store = OneSchema()
    try:
        schema = Schema(json.dumps(definition))
    except ValueError:
        return
    store.by_id[1] = schema
    read = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=store)
    try:
        read.deserialize([Encoded("t", frame(1, data.draw(st.binary(max_size=20))))])
        read.serialize([Datum("t", data.draw(st.sampled_from([None, 1, {}, [], READING])), schema)])
    except DataError as error:
        assert set(error.failures) == {0}  # noqa: PT017 - both calls may go either way
