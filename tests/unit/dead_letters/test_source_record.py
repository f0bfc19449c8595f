"""A source's record is kept as bytes that say what they are, and can be read back for a replay."""

from __future__ import annotations

import pytest

from tieline.api import Schema, SourceRecord
from tieline.converters.codec import AvroBytes
from tieline.dead_letters.letter import Cause, DeadLetter
from tieline.dead_letters.source_record import source_form, source_record

LONG = Schema.parse('"long"')


def kept(record):
    value, key, form = source_form(record)
    cause = Cause("VALUE_CONVERTER", "ValueError", "")
    return DeadLetter(
        "i", record.topic, None, None, value, key, record.headers, record.timestamp, cause, form=form
    )


@pytest.mark.parametrize(
    ("value", "schema", "form"),
    [
        (None, None, "null"),
        (b"\xff", None, "bytes"),
        ("grün\ud800", None, "text"),
        ({"a": [1, 2.5, None]}, None, "json"),
        (7, LONG, "avro"),
        ("seven", LONG, "text"),
        ({"a": 1}, LONG, "json"),
    ],
)
def test_a_record_is_read_back_as_it_was(value, schema, form):
    record = SourceRecord("t", value, "k", headers=(("h", b"1"),), timestamp=5, value_schema=schema)
    letter = kept(record)
    assert (letter.form.value, letter.form.key, letter.key) == (form, "text", b"k")
    assert source_record(letter) == record


def test_avro_from_the_spool_stays_avro():
    letter = kept(SourceRecord("t", AvroBytes(b"\x0e"), value_schema=LONG))
    assert letter.form.value == "avro"
    assert source_record(letter).value == 7


class Broken:
    def __repr__(self):
        raise RuntimeError("no")


def test_numbers_that_only_pythons_json_has_are_kept():
    letter = kept(SourceRecord("t", {"a": float("nan"), "b": 2**70}))
    assert letter.form.value == "json"
    assert repr(source_record(letter).value) == "{'a': nan, 'b': 1180591620717411303424}"


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, object(), Broken(), (1, 2)])
def test_what_is_not_json_is_shown_and_never_read_back(value):
    letter = kept(SourceRecord("t", value))
    assert letter.form.value == "python"
    with pytest.raises(ValueError, match="kept as python, which cannot be read back"):
        source_record(letter)


def test_lists_nested_too_deep_do_not_raise():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert kept(SourceRecord("t", deep)).form.value == "python"
