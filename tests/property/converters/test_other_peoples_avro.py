"""Any valid datum of any schema with logical types: it is read, and MongoDB's documents hold it."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import math
import uuid
from typing import Any

import avro.io
import avro.schema
import bson
import fastavro
import pytest
from bson import Decimal128
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tieline.api import Schema, SinkRecord
from tieline.converters.codec import AvroCodec
from tieline_connectors.mongo.client import CODEC
from tieline_connectors.mongo.documents.layouts import value as value_layout
from tieline_connectors.mongo.documents.values import storable

INT = st.integers(-(2**31), 2**31 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
RAW = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": INT,
    "long": LONG,
    "double": st.floats(allow_nan=False),
    "string": TEXT | st.uuids().map(str) | st.uuids().map(lambda u: u.hex),
    "bytes": st.binary(max_size=40) | st.just(b"\x7f" * 3000),
}
LOGICAL = [
    *("date", "time-millis", "time-micros", "decimal", "uuid", "duration", "unknown"),
    *("timestamp-millis", "timestamp-micros", "timestamp-nanos"),
    *("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"),
]


@st.composite
def typed(draw, counter, depth=2):
    """A schema with logical types wherever they may stand, the same without any, and a raw datum."""
    kind = draw(st.sampled_from([*RAW, "fixed", *(("array", "map", "record", "union") if depth else ())]))
    if kind in ("array", "map"):
        inner, plain, raw = draw(typed(counter, depth - 1))
        name = "items" if kind == "array" else "values"
        datum = [raw] if kind == "array" else {"k": raw}
        return {"type": kind, name: inner}, {"type": kind, name: plain}, datum
    if kind == "record":
        parts = draw(st.lists(typed(counter, depth - 1), min_size=1, max_size=3))
        name = f"R{next(counter)}"
        fields = [[{"name": f"f{n}", "type": p[index]} for n, p in enumerate(parts)] for index in (0, 1)]
        both = [{"type": "record", "name": name, "fields": of} for of in fields]
        return both[0], both[1], {f"f{n}": p[2] for n, p in enumerate(parts)}
    if kind == "union":
        inner, plain, raw = draw(typed(counter, 0))
        if plain == "null":
            return inner, plain, raw
        return ["null", inner], ["null", plain], raw
    if kind == "fixed":
        size = draw(st.sampled_from([0, 1, 12, 16]))
        plain = {"type": "fixed", "name": f"F{next(counter)}", "size": size}
        raw = draw(st.binary(min_size=size, max_size=size))
    else:
        plain, raw = kind, draw(RAW[kind])
    logical = draw(st.none() | st.sampled_from(LOGICAL))
    if logical is None:
        return plain, plain, raw
    schema = {**(plain if isinstance(plain, dict) else {"type": plain}), "logicalType": logical}
    if logical == "decimal":
        schema |= draw(
            st.fixed_dictionaries({"precision": st.integers(0, 60)}, optional={"scale": st.integers(-2, 60)})
        )
    return schema, plain, raw


@st.composite
def foreign(draw):
    return draw(typed(iter(range(10_000))))


def expected(schema: Any, raw: Any) -> Any:
    """What reading shall give for a leaf, computed from Avro's specification."""
    kind, logical = schema["type"], schema.get("logicalType")
    size = schema.get("size")
    micros = {"millis": 1000, "micros": 1}.get(str(logical).rpartition("-")[2])
    if logical == "date" and kind == "int":
        return dt.date(1970, 1, 1) + dt.timedelta(days=raw) if -719162 <= raw <= 2932896 else raw
    if str(logical).startswith(("timestamp", "local-timestamp")) and kind == "long" and micros:
        start = dt.datetime(1970, 1, 1, tzinfo=None if "local" in logical else dt.timezone.utc)
        inside = -62_135_596_800_000_000 <= raw * micros <= 253_402_300_799_999_999
        return start + dt.timedelta(microseconds=raw * micros) if inside else raw
    if (logical, kind) in (
        ("time-millis", "int"),
        ("time-micros", "long"),
    ) and 0 <= raw * micros < 86_400 * 10**6:
        seconds, rest = divmod(raw * micros, 10**6)
        return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest)
    if logical == "uuid" and kind == "string" and len(raw) == 36 and raw.count("-") == 4:
        try:
            return uuid.UUID(raw)
        except ValueError:
            return raw
    if logical == "uuid" and size == 16:
        return uuid.UUID(bytes=raw)
    if logical == "decimal" and kind in ("bytes", "fixed"):
        precision, scale = schema["precision"], schema.get("scale", 0)
        most = math.inf if kind == "bytes" else math.floor(math.log10(2) * (8 * size - 1))
        if not 0 <= scale <= precision or not 1 <= precision <= most or len(raw) > 1700:
            return raw
        return decimal.Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(
            -scale, decimal.Context(prec=5000)
        )
    return raw


def compare(schema: Any, raw: Any, read: Any) -> None:
    if isinstance(schema, list):
        schema = "null" if raw is None else next(s for s in schema if s != "null")
    if isinstance(schema, str):
        schema = {"type": schema}
    if schema["type"] == "record":
        for field in schema["fields"]:
            compare(field["type"], raw[field["name"]], read[field["name"]])
    elif schema["type"] == "array":
        compare(schema["items"], raw[0], read[0])
    elif schema["type"] == "map":
        compare(schema["values"], raw["k"], read["k"])
    else:
        wanted = expected(schema, raw)
        assert type(read) is type(wanted)
        assert read == wanted
        assert not isinstance(read, decimal.Decimal) or read.as_tuple() == wanted.as_tuple()


def by_fastavro(plain: Any, raw: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, plain, raw)
    return out.getvalue()


def by_apache_avro(plain: Any, raw: Any) -> bytes:
    out = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(json.dumps(plain))).write(raw, avro.io.BinaryEncoder(out))
    return out.getvalue()


def in_bson(read: Any) -> Any:
    """The value as it comes out of a document that the sink would write."""
    document = value_layout(SinkRecord("t", 0, 0, {"v": read}))
    options: CodecOptions[dict[str, Any]] = CodecOptions(
        uuid_representation=CODEC.uuid_representation, datetime_conversion=DatetimeConversion.DATETIME_MS
    )
    return bson.decode(bson.encode(storable(document), codec_options=CODEC), options)["v"]


def stored(read: Any) -> Any:
    """What of a value a document shall hold."""
    if isinstance(read, dict):
        return {key: stored(item) for key, item in read.items()}
    if isinstance(read, list):
        return [stored(item) for item in read]
    if isinstance(read, dt.datetime):
        start = dt.datetime(1970, 1, 1, tzinfo=read.tzinfo)
        return DatetimeMS((read - start) // dt.timedelta(milliseconds=1))
    if isinstance(read, dt.date):
        return DatetimeMS((read - dt.date(1970, 1, 1)).days * 86_400_000)
    if isinstance(read, dt.time):
        return str(read)
    if isinstance(read, decimal.Decimal):
        digits = str(read.as_tuple().digits and int("".join(map(str, read.as_tuple().digits))))
        return Decimal128(read) if len(digits) <= 34 else str(read)
    return read


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(foreign(), st.sampled_from([by_fastavro, by_apache_avro]))
@example(
    ({"type": "long", "logicalType": "timestamp-millis"}, "long", 253402300800000), by_fastavro
)  # the year 10000
@example(
    ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 8}, "bytes", b"9"), by_fastavro
)
def test_every_valid_datum_is_read_and_values_without_a_python_type_stay_as_stored(datum, write):
    schema, plain, raw = datum
    read = AvroCodec(Schema.lenient(json.dumps(schema))).decode(write(plain, raw))
    compare(schema, raw, read)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(foreign())
def test_every_valid_datum_fits_into_a_document_with_its_type(datum):
    schema, plain, raw = datum
    read = AvroCodec(Schema.lenient(json.dumps(schema))).decode(by_fastavro(plain, raw))
    assert in_bson(read) == stored(read)


RECORD = '{"type":"record","name":"R","fields":[%s]}'


@pytest.mark.parametrize(
    "schema",
    [
        RECORD % '{"name":"f","type":"int","default":"seven"}',
        RECORD % '{"name":"f","type":"int","aliases":"g"}',
        RECORD % '{"name":"f","type":"int","doc":["x"],"order":7,"made up":{}}',
        RECORD % '{"name":"f","type":{"type":"int","logicalType":"decimal","precision":-1,"scale":"x"}}',
        RECORD % '{"name":"f","type":{"type":"int","logicalType":["date"]}}',
        RECORD % '{"name":"f","type":{"type":{"type":"int"}}}',
        '{"type":"record","name":"my-name","namespace":"com.my-company.7",'
        '"fields":[{"name":"f","type":"int"}]}',
        '{"type":"record","name":"R","namespace":7,"fields":[{"name":"f","type":"int"}]}',
        '{"type":"record","name":"R","__x":1,"aliases":7,"fields":[{"name":"f","type":"int"}]}',
    ],
)
def test_reading_ignores_what_it_does_not_need_of_a_schema(schema):
    assert AvroCodec(Schema.lenient(schema)).decode(b"\x0e") == {"f": 7}


def test_invalid_symbol_names_are_read_wherever_their_enum_is():
    schema = Schema.lenient(
        '{"type":"record","name":"a.R","fields":[{"name":"f","type":{"type":"enum","name":"E",'
        '"symbols":["°C","kW h"],"default":7}},{"name":"g","type":"E"},{"name":"h","type":["null","a.E"]}]}'
    )
    assert AvroCodec(schema).decode(b"\x00\x02\x02\x00") == {"f": "°C", "g": "kW h", "h": "°C"}
    with pytest.raises(ValueError, match=r"a\.R"):
        AvroCodec(schema).decode(b"\x04\x02\x02\x00")


@pytest.mark.parametrize(
    "text", ["{", "7", "{}", '{"type":"record"}', '{"type":"made-up"}', '["null",7]', "null"]
)
def test_an_unusable_schema_is_rejected_even_by_a_lenient_reader(text):
    with pytest.raises(ValueError, match="not an Avro schema"):
        Schema.lenient(text)


def test_uuids_of_16_bytes_come_back_as_the_bytes_that_they_were():
    schema = Schema.parse('{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}')
    codec = AvroCodec(schema)
    raw = bytes(range(16))
    assert codec.decode(raw) == uuid.UUID(bytes=raw)
    assert codec.encode(codec.decode(raw)) == raw


def test_bytes_are_stored_as_binary():
    assert in_bson({"raw": b"\x00\xff"}) == {"raw": b"\x00\xff"}


MILLISECOND = st.integers(-62_135_596_800_000, 253_402_300_799_999)
UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
WRITTEN = [
    ({"type": "int", "logicalType": "date"}, st.dates()),
    ({"type": "long", "logicalType": "time-micros"}, st.times()),
    (
        {"type": "long", "logicalType": "timestamp-millis"},
        MILLISECOND.map(lambda ms: UTC + dt.timedelta(milliseconds=ms)),
    ),
    ({"type": "long", "logicalType": "timestamp-micros"}, st.datetimes(timezones=st.just(dt.timezone.utc))),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, st.datetimes()),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4},
        st.decimals(-(10**15), 10**15, places=4),
    ),
    (
        {"type": "fixed", "name": "D", "size": 12, "logicalType": "decimal", "precision": 20, "scale": 4},
        st.decimals(-(10**15), 10**15, places=4),
    ),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
]


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: str(kind[0]["logicalType"]))
@given(data=st.data())
def test_a_written_value_is_read_back_by_us_and_by_other_readers(kind, data):
    schema, values = kind
    value = data.draw(values)
    for form, whole in (
        (schema, value),
        (["null", schema], value),
        ({"type": "array", "items": schema}, [value]),
    ):
        codec = AvroCodec(Schema.parse(json.dumps(form)))
        written = codec.encode(whole)
        assert codec.decode(written) == whole
        assert fastavro.schemaless_reader(io.BytesIO(written), form, None) == whole


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        ({"type": "string", "logicalType": "uuid"}, "no uuid", "is not a UUID"),
        (
            {"type": "string", "logicalType": "uuid"},
            "{12345678-1234-5678-1234-567812345678",
            "is not a UUID",
        ),
        ({"type": "int", "logicalType": "time-millis"}, 86_400_000, "is not a time of a day"),
        ({"type": "long", "logicalType": "time-micros"}, -1, "is not a time of a day"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            decimal.Decimal("123.45"),
            "more than 2 digits before",
        ),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            b"\x30\x39",
            "more than 2 digits before",
        ),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            decimal.Decimal("1.234"),
            "more than 2 digits after",
        ),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            decimal.Decimal("NaN"),
            "is not a number",
        ),
        ({"type": "int", "logicalType": "date"}, "2026-01-02", "is a int"),
        ({"type": "int", "logicalType": "date"}, 2**31, "out of the range of int"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_value_that_could_not_be_read_back_is_rejected_with_its_path(schema, value, says, wrapped):
    form = {"type": "record", "name": "R", "fields": [{"name": "f", "type": schema}]} if wrapped else schema
    with pytest.raises(ValueError, match=says) as raised:
        AvroCodec(Schema.parse(json.dumps(form))).encode({"f": value} if wrapped else value)
    assert not wrapped or "R.f" in str(raised.value)
