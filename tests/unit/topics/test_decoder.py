"""What a record says, found out for each by itself."""

import json

import pytest

from tieline.api import Datum, Schema
from tieline.broker.local.log import LocalLog
from tieline.broker.local.store import Store
from tieline.broker.records import ConsumedRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TOPIC, TopicSchemaStore
from tieline.topics.decoder import Decoder, ValueFormat
from tieline.topics.printable import json_text

READING = Schema.parse('{"type": "record", "name": "x.R", "fields": [{"name": "n", "type": "long"}]}')


class CountingLog(LocalLog):
    """The real one, which counts how often a topic is read to its end."""

    def __init__(self, store):
        super().__init__(store)
        self.reads = 0

    def read(self, *arguments, **options):
        self.reads += 1
        return super().read(*arguments, **options)


@pytest.fixture
def log(tmp_path):
    opened = CountingLog(Store(tmp_path / "log.db"))
    yield opened
    opened.close()


def avro(log, data, schema=READING):
    converter = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=TopicSchemaStore(log))
    return converter.serialize([Datum("t", data, schema)])[0]


def records(*values, key=None):
    return [ConsumedRecord("t", 0, n, value, key, (), 0) for n, value in enumerate(values)]


def values(log, *data, form=ValueFormat.AUTO):
    return [decoded.value for decoded in Decoder(form, log, None).decode(records(*data))]


def test_each_record_of_a_topic_is_known_by_itself(log):
    decoded = values(
        log, avro(log, {"n": 7}), b'{"a": 1}', b"21.5", b"two words", b"\xff\xfe", None, b"", b"a\x1b[2J"
    )
    assert [(record.format, record.data) for record in decoded] == [
        ("avro", {"n": 7}),
        ("json", {"a": 1}),
        ("json", 21.5),
        ("text", "two words"),
        ("bytes", b"\xff\xfe"),
        ("null", None),
        ("text", ""),
        ("bytes", b"a\x1b[2J"),
    ]
    assert decoded[0].schema == "x.R"
    assert [record.error for record in decoded] == [None] * 8


def test_what_cannot_be_decoded_is_shown_as_bytes_with_the_reason(log):
    unknown, broken = b"\x00\x00\x00\x00\x63abc", avro(log, {"n": 7}) + b"more"
    first, second = values(log, unknown, broken)
    assert [(record.format, record.data) for record in (first, second)] == [
        ("bytes", unknown),
        ("bytes", broken),
    ]
    assert "no schema has the id 99" in (first.error or "")
    assert "x.R" in (second.error or "")


@pytest.mark.parametrize(
    ("form", "data", "format_", "is_wrong"),
    [
        ("json", b"{", "bytes", True),
        ("avro", b"{}", "bytes", True),
        ("text", b"\xff", "bytes", True),
        ("text", b"21.5", "text", False),
        ("text", b"a\x1b[2J", "text", False),
        ("bytes", b"{}", "bytes", False),
    ],
)
def test_a_requested_format_is_not_guessed(log, form, data, format_, is_wrong):
    (decoded,) = values(log, data, form=ValueFormat(form))
    assert (decoded.format, decoded.error is not None) == (format_, is_wrong)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000 + b"]" * 100_000, b"9" * 10_000, b'"' + b"\\ud800" * 10 + b'"'], ids=len
)
def test_hostile_json_is_shown_and_ends_nothing(log, data):
    (decoded,) = Decoder(ValueFormat.AUTO, log, None).decode(records(data))
    assert json.loads(json_text(decoded.as_json()))["format"] in ("json", "text")


def test_a_key_stays_text_even_if_it_looks_like_a_number(log):
    decoder = Decoder(ValueFormat.AUTO, log, None)

    def key(data):
        (decoded,) = decoder.decode(records(b"1", key=data))
        return decoded.key.format, decoded.key.data

    assert key(b"7") == ("text", "7")
    assert key(b"\xff") == ("bytes", b"\xff")
    assert key(avro(log, "k", Schema.parse('"string"'))) == ("avro", "k")
    assert key(None) == ("null", None)


def test_a_schema_that_is_registered_later_is_found(log):
    decoder = Decoder(ValueFormat.AUTO, log, None)
    (before,) = decoder.decode(records(b"\x00\x00\x00\x00\x01\x0e"))
    assert before.value.format == "bytes"
    (after,) = decoder.decode(records(avro(log, {"n": 7})))
    assert after.value.data == {"n": 7}


def test_a_batch_of_unknown_ids_takes_one_lookup_and_creates_no_topic(log):
    garbage = [b"\x00" + number.to_bytes(4, "big") + b"x" for number in range(1, 200)]
    assert {record.format for record in values(log, *garbage)} == {"bytes"}
    assert log.reads == 1
    assert TOPIC not in log.topics()


def test_a_line_of_json_states_the_formats_of_key_and_value(log):
    (decoded,) = Decoder(ValueFormat.AUTO, log, None).decode(
        [ConsumedRecord("t", 3, 9, b"\xff", b"\xfe", (("a", b"1"), ("a", b"\xff"), ("b", None)), 1000)]
    )
    assert json.loads(json_text(decoded.as_json())) == {
        "topic": "t",
        "partition": 3,
        "offset": 9,
        "timestamp": "1970-01-01T00:00:01.000Z",
        "key": "/g==",
        "headers": [["a", "1"], ["a", {"base64": "/w=="}], ["b", None]],
        "value": "/w==",
        "format": "bytes",
        "key_format": "bytes",
    }
