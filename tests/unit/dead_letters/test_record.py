"""What a dead letter topic holds: the record as it arrived, and headers that other programs can read."""

from __future__ import annotations

import json

import pytest

from tieline.api import RecordError, Schema
from tieline.broker.records import ConsumedRecord
from tieline.converters.codec import AvroCodec
from tieline.dead_letters.letter import Cause, DeadLetter, Form, consumed_id, source_id
from tieline.dead_letters.record import Replayed, letter_record, origin_of, read_letter, replayed, shorten

NOW = 1_800_000_000_000
HEADERS = (("tieline.id", b"x"), ("a", None), ("a", b"\xff"))


def letter(**changes):
    cause = Cause(
        "VALUE_CONVERTER",
        "tieline.api.errors.RecordError",
        "points.t: is a long, not str",
        "tieline.converters.avro.AvroConverter",
        "points.t",
        7,
        "a long",
        "Correct the converter's settings",
        "Traceback …",
    )
    fields = {
        "id": consumed_id("store", "bus", 2, 41),
        "topic": "bus",
        "partition": 2,
        "offset": 41,
        "value": b"\x00\x01",
        "key": None,
        "headers": HEADERS,
        "timestamp": 5,
        "cause": cause,
        "connector": "store",
        "task": 3,
        "failed_at": NOW,
    }
    return DeadLetter(**{**fields, **changes})


def stored(record, offset=9):
    return ConsumedRecord(
        record.topic,
        0,
        offset,
        record.value,
        record.key,
        record.headers,
        NOW if record.timestamp is None else record.timestamp,
    )


def test_the_record_is_unchanged_and_kafka_connects_headers_follow_its_own():
    record = letter_record(letter(), "dead")
    assert record[:3] == ("dead", b"\x00\x01", None)
    assert record.headers[:3] == HEADERS
    assert [(name, value) for name, value in record.headers if name.startswith("__connect.errors.")] == [
        ("__connect.errors.topic", b"bus"),
        ("__connect.errors.partition", b"2"),
        ("__connect.errors.offset", b"41"),
        ("__connect.errors.connector.name", b"store"),
        ("__connect.errors.task.id", b"3"),
        ("__connect.errors.stage", b"VALUE_CONVERTER"),
        ("__connect.errors.class.name", b"tieline.converters.avro.AvroConverter"),
        ("__connect.errors.exception.class.name", b"tieline.api.errors.RecordError"),
        ("__connect.errors.exception.message", b"points.t: is a long, not str"),
        ("__connect.errors.exception.stacktrace", "Traceback …".encode()),
    ]


def test_a_letter_that_is_read_is_the_one_that_was_written():
    original = letter(
        form=Form("avro", "text", '"long"'), position="spool position 4", attempts=2, replay_of="r"
    )
    assert read_letter(stored(letter_record(original, "dead"))) == original


def test_a_letter_about_a_letter_has_the_headers_of_the_first_one_as_its_own():
    first = letter_record(letter(), "dead")
    cause = Cause("TASK_PUT", "ValueError", "too old")
    second = letter(headers=first.headers, cause=cause, partition=0, offset=9, topic="dead")
    assert read_letter(stored(letter_record(second, "dead2"))) == second


def test_the_time_of_a_letter_is_that_of_its_writing_so_that_retention_counts_from_it():
    assert letter_record(letter(timestamp=5), "dead").timestamp is None
    assert letter_record(letter(timestamp=NOW), "dead").timestamp is None


@pytest.mark.parametrize(
    ("timestamp", "kept"), [(NOW - 1, NOW - 1), (5, None), (None, None), (-1, None), (1 << 70, None)]
)
def test_without_context_only_the_record_is_written_with_its_time_if_that_is_near(timestamp, kept):
    record = letter_record(letter(timestamp=timestamp), "dead", context=False)
    assert record == ("dead", b"\x00\x01", None, HEADERS, kept, None)


def test_a_shortened_letter_has_no_traceback_and_the_begin_of_the_message():
    long = letter(cause=letter().cause._replace(message="m" * 5000, traceback="t" * 9000))
    whole = letter_record(long, "dead")
    short = shorten(whole)
    assert short is not None
    sizes = [sum(len(value or b"") for _, value in record.headers) for record in (whole, short)]
    assert sizes[0] > 12_000
    assert sizes[1] < 1_000
    assert read_letter(stored(short)).id == long.id
    assert shorten(short) is None


def test_shortening_leaves_the_records_own_headers():
    first = letter_record(letter(), "dead")
    short = shorten(letter_record(letter(headers=first.headers), "dead2"))
    assert short is not None
    assert read_letter(stored(short)).headers == first.headers


def test_a_letter_without_context_cannot_be_shortened():
    assert shorten(letter_record(letter(), "dead", context=False)) is None


def test_the_fingerprint_is_stage_error_field_and_schema_and_not_the_message():
    cause = letter().cause
    assert cause.fingerprint == cause._replace(message="other", traceback="", fix="").fingerprint
    changed = [
        cause._replace(stage="TASK_PUT"),
        cause._replace(error="E"),
        cause._replace(field="points.u"),
        cause._replace(schema_id=8),
        cause._replace(schema_id=None),
    ]
    assert len({c.fingerprint for c in [cause, *changed]}) == 6


def test_indexes_within_a_path_do_not_divide_a_cause():
    cause = letter().cause
    one, two = cause._replace(field="readings[3].value"), cause._replace(field="readings[14].value")
    assert one.fingerprint == two.fingerprint


def test_a_cause_takes_field_expectation_and_fix_from_the_error():
    error = RecordError("t: is text", field="t", expected="a number", fix="Repair the driver")
    cause = Cause.of("TASK_PUT", error, raised_by="Sink", fix="by default")
    assert cause[:8] == (
        "TASK_PUT",
        "tieline.api.errors.RecordError",
        "t: is text",
        "Sink",
        "t",
        None,
        "a number",
        "Repair the driver",
    )
    assert Cause.of("TASK_PUT", ValueError("x"), fix="by default")[1:8] == (
        "ValueError",
        "x",
        "",
        "",
        None,
        "",
        "by default",
    )


def test_a_source_tells_equal_records_at_one_position_apart_by_their_number():
    ids = {source_id("c", p, v, n) for p in ("1", "2") for v in (b"", b"x") for n in (0, 1)}
    assert len(ids) == 8


def test_a_letter_of_kafka_connect_is_read():
    headers = (
        ("own", b"1"),
        ("__connect.errors.topic", b"bus"),
        ("__connect.errors.partition", b"1"),
        ("__connect.errors.offset", b"77"),
        ("__connect.errors.connector.name", b"jdbc"),
        ("__connect.errors.task.id", b"0"),
        ("__connect.errors.stage", b"TASK_PUT"),
        ("__connect.errors.class.name", b"org.example.Task"),
        ("__connect.errors.exception.class.name", b"java.lang.E"),
        ("__connect.errors.exception.message", b"boom"),
        ("__connect.errors.exception.stacktrace", b"at"),
    )
    read = read_letter(ConsumedRecord("dead", 0, 3, b"v", b"k", headers, 99))
    assert read == DeadLetter(
        "jdbc:bus-1@77",
        "bus",
        1,
        77,
        b"v",
        b"k",
        (("own", b"1"),),
        99,
        Cause("TASK_PUT", "java.lang.E", "boom", "org.example.Task", traceback="at"),
        "jdbc",
        0,
        failed_at=99,
        family="connect",
    )
    assert read.stored == ("dead", 0, 3)


def test_a_letter_of_kafka_streams_is_read():
    headers = (
        ("__streams.errors.exception", b"java.lang.E: boom"),
        ("__streams.errors.message", b"boom"),
        ("__streams.errors.stacktrace", b"at"),
        ("__streams.errors.topic", b"bus"),
        ("__streams.errors.partition", b"1"),
        ("__streams.errors.offset", b"7"),
    )
    read = read_letter(ConsumedRecord("dead", 0, 3, b"v", None, headers, 99))
    assert (read.family, read.where, read.headers) == ("streams", "bus-1@7", ())
    assert read.cause == Cause("", "java.lang.E", "boom", traceback="at")


def test_a_letter_of_spring_is_read_with_its_binary_numbers():
    headers = (
        ("kafka_dlt-original-topic", b"bus"),
        ("kafka_dlt-original-partition", bytes([0, 0, 0, 1])),
        ("kafka_dlt-original-offset", bytes([0] * 6 + [1, 0])),
        ("kafka_dlt-original-timestamp", bytes(7) + b"\x05"),
        ("kafka_dlt-exception-fqcn", b"Outer"),
        ("kafka_dlt-exception-cause-fqcn", b"Inner"),
        ("kafka_dlt-exception-message", b"boom"),
        ("kafka_dlt-exception-stacktrace", b"at"),
        ("kafka_dlt-original-consumer-group", b"group"),
    )
    read = read_letter(ConsumedRecord("dead", 0, 3, b"v", None, headers, 99))
    assert (read.family, read.where, read.timestamp, read.connector) == ("spring", "bus-1@256", 5, "group")
    assert (read.cause.error, read.cause.message) == ("Inner", "boom")


def test_a_record_without_such_headers_is_a_letter_about_itself():
    read = read_letter(ConsumedRecord("dead", 0, 3, b"v", None, (("own", b"1"),), 99))
    assert (read.id, read.family, read.topic, read.headers) == ("dead-0@3", "", "dead", (("own", b"1"),))


def test_a_replay_leaves_its_headers_to_the_next_letter():
    headers = (*HEADERS, ("tieline.dlq.attempts", b"2"), ("tieline.dlq.replay.of", b"store:bus-2@41"))
    assert replayed(headers) == Replayed(2, "store:bus-2@41", HEADERS)
    assert replayed(HEADERS) == Replayed(0, "", HEADERS)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (b"plant-7.x-2@41", ("plant-7.x", 2, 41)),
        (b"bus", ("bus", None, None)),
        (b"bus-x@y", ("bus-x@y", None, None)),
        (b"", None),
        (None, None),
    ],
)
def test_a_replay_to_a_connector_names_the_first_place_of_its_record(text, origin):
    headers = (*HEADERS, ("tieline.dlq.replay.origin", text), ("tieline.dlq.replay.job", b"j"))
    assert replayed(headers) == Replayed(0, "", HEADERS, origin)
    assert origin_of(headers) == origin


def test_a_value_that_does_not_fit_its_schema_names_the_field_and_what_was_expected():
    field = {"name": "n", "type": {"type": "array", "items": "long"}}
    schema = Schema.parse(json.dumps({"type": "record", "name": "a.N", "fields": [field]}))
    with pytest.raises(RecordError) as raised:
        AvroCodec.of(schema).encode({"n": [1, "x"]})
    cause = Cause.of("VALUE_CONVERTER", raised.value)
    assert (cause.field, cause.expected) == ("a.N.n[]", "a long")
    assert cause.message == "a.N.n[]: is a long, not str"
