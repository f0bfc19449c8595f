"""The sink against a MongoDB-wire server: what is written once stays once."""

import base64
import datetime as dt
import json
import random
import re

import pytest
from bson import Decimal128

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    DataError,
    RetriableError,
    Schema,
    SinkRecord,
    TopicPartition,
    identity,
)


def other(record, digest):
    """The same identity, another content."""
    headers = tuple((k, digest if k == DIGEST_HEADER else v) for k, v in record.headers)
    return record._replace(headers=headers)


def id_of(record):
    return dict(record.headers)[ID_HEADER].decode()


def test_a_reading_becomes_one_document_with_device_time_points_and_units(sink, database, reading):
    record = reading(7)

    sink().put([record])

    (document,) = database.readings.find()
    assert document == {
        "_id": id_of(record),
        "topic": "devices/campus/b1/ahu1/all",
        "time": dt.datetime(2026, 1, 1, 0, 0, 7, tzinfo=dt.timezone.utc),
        "time_us": 1_767_225_607_000_123,
        "time_source": "TIMESTAMP",
        "received": dt.datetime(2026, 1, 1, 0, 0, 7, 5000, tzinfo=dt.timezone.utc),
        "platform": "lab",
        "sender": "platform.driver",
        "device": "campus/b1/ahu1",
        "kind": "ALL",
        "points": {"temp": 27.5, "fan": True, "mode": "auto", "count": 7, "none": None},
        "units": {"temp": "C"},
        "_digest": dict(record.headers)[DIGEST_HEADER].decode(),
    }


def test_a_redelivery_changes_nothing_and_its_duplicates_are_counted_exactly(sink, database, reading):
    task = sink()
    first, second = [reading(n) for n in range(50)], [reading(n) for n in range(40, 60)]
    task.put(first)
    before = list(database.readings.find().sort("_id"))

    task.put(first)
    task.put(second)

    assert task.counters == {"duplicates": 60}
    assert database.readings.count_documents({}) == 60
    after = {document["_id"]: document for document in database.readings.find()}
    assert all(after[document["_id"]] == document for document in before)


def test_a_record_twice_in_one_batch_is_written_once(sink, database, reading):
    task = sink()

    task.put([reading(1), reading(2), reading(1)])

    assert database.readings.count_documents({}) == 2
    assert task.counters == {"duplicates": 1}


def test_the_same_id_with_another_digest_is_a_data_error_and_its_neighbours_are_written(
    sink, database, reading
):
    task = sink()
    task.put([reading(1), reading(2)])

    with pytest.raises(DataError) as raised:
        task.put([reading(0), other(reading(1), b"else"), reading(2), reading(3)])

    assert list(raised.value.failures) == [1]
    assert id_of(reading(1)) in str(raised.value)
    assert "'else'" in str(raised.value)
    assert task.counters == {"duplicates": 1}
    assert {d["_id"] for d in database.readings.find()} == {id_of(reading(n)) for n in range(4)}


def test_of_two_records_of_one_id_in_one_batch_the_second_is_the_data_error(sink, database, reading):
    with pytest.raises(DataError) as raised:
        sink().put([reading(1), other(reading(1), b"else"), reading(2)])

    assert list(raised.value.failures) == [1]
    assert database.readings.count_documents({"_digest": "else"}) == 0
    assert database.readings.count_documents({}) == 2


def test_an_id_that_another_program_wrote_is_a_data_error(sink, database, reading):
    database.readings.insert_one({"_id": id_of(reading(1)), "mine": True})

    with pytest.raises(DataError, match="another record"):
        sink().put([reading(1)])


def test_a_conflict_on_the_users_own_index_is_a_data_error_of_that_record(sink, database, reading):
    database.readings.create_index("points.temp", unique=True)
    points = reading(0).value["points"]

    with pytest.raises(DataError) as raised:
        sink().put([reading(0), reading(1, points=points), reading(2)])

    assert list(raised.value.failures) == [1]
    assert "points.temp" in str(raised.value)
    assert database.readings.count_documents({}) == 2


def test_a_document_that_the_collections_validator_refuses_is_a_data_error(sink, database, reading):
    database.create_collection("readings", validator={"points.count": {"$type": "int"}})

    with pytest.raises(DataError) as raised:
        sink().put([reading(0), reading(1, points={"count": "x"}), reading(2)])

    assert list(raised.value.failures) == [1]
    assert database.readings.count_documents({}) == 2


def test_a_document_that_is_too_large_is_a_data_error_and_all_others_are_written(sink, database, reading):
    large = reading(1, points={"text": noise(23_000_000)})

    with pytest.raises(DataError) as raised:
        sink().put([reading(0), large, reading(2)])

    assert list(raised.value.failures) == [1]
    assert database.readings.count_documents({}) == 2


def test_a_document_larger_than_a_message_is_a_data_error_and_all_others_are_written(sink, database, reading):
    huge = reading(1, points={"text": noise(49_000_000)})

    with pytest.raises(DataError, match="still more than the server's limit of 16777216") as raised:
        sink().put([reading(0), huge, reading(2)])

    assert list(raised.value.failures) == [1]
    assert database.readings.count_documents({}) == 2


def test_failures_of_the_sink_and_of_the_server_keep_their_indexes(sink, database, reading):
    task = sink()
    task.put([reading(5)])
    huge = {"text": noise(49_000_000)}

    with pytest.raises(DataError) as raised:
        task.put([reading(1, points=huge), reading(2), other(reading(5), b"else"), reading(3), reading(5)])

    assert sorted(raised.value.failures) == [0, 2]
    assert "bytes" in str(raised.value.failures[0])
    assert "have one identity" in str(raised.value.failures[2])
    assert task.counters == {"duplicates": 1}
    assert database.readings.count_documents({}) == 3


def test_values_without_a_bson_type_are_stored_in_a_readable_form_beside_their_neighbours(
    sink, database, reading
):
    odd = {
        "big": {"json": str(2**70)},
        "huge": {"json": str(10**40)},
        "nul\0key": 1,
        "half": {"json": '"\\udc00"'},
        "$a.b": {"json": '{"$in": [1, {"x.y": null}]}'},
        "inf": float("-inf"),
    }

    sink().put([reading(0), reading(1, points=odd), reading(2)])

    assert database.readings.count_documents({}) == 3
    points = database.readings.find_one({"_id": id_of(reading(1))})["points"]
    assert points == {
        "big": Decimal128(str(2**70)),
        "huge": str(10**40),
        "nul\\u0000key": 1,
        "half": "\\udc00",
        "$a.b": {"$in": [1, {"x.y": None}]},
        "inf": float("-inf"),
    }


def test_a_batch_over_two_topics_goes_to_two_collections_and_failures_keep_their_index(
    sink, database, reading
):
    task = sink(collection="")
    batch = [reading(n, topic=("a", "b.c")[n % 2], device=f"d{n}") for n in range(10)]
    batch[3] = batch[3]._replace(value={"no": "reading"}, value_schema=None)
    batch[6] = batch[6]._replace(value=None)
    batch[8] = other(batch[2], b"else")._replace(topic="a")

    with pytest.raises(DataError) as raised:
        task.put(batch)

    assert sorted(raised.value.failures) == [3, 6, 8]
    assert database["a"].count_documents({}) == 3
    assert database["b.c"].count_documents({}) == 4


def test_a_topic_may_have_a_database_a_collection_and_a_layout_of_its_own(sink, database, reading, mongo_uri):
    task = sink(
        **{
            "topic__override__old.devices__collection": "old",
            "topic__override__old.devices__layout": "cloudagent",
        }
    )

    task.put([reading(1), reading(1, topic="old.devices")])

    assert database.readings.count_documents({}) == 1
    (old,) = database["old"].find()
    assert list(old) == ["_id", "author", "source", "date", "topic", "headers", "message", "_digest"]
    assert (old["author"], old["source"]) == ("volttron.cloudagnet", "lab")


def test_more_records_than_one_insert_takes_are_all_written(sink, database, reading):
    sink(max__batch__size="7").put([reading(n) for n in range(50)])

    assert database.readings.count_documents({}) == 50


def test_any_other_data_is_stored_unchanged(sink, database):
    def record(number, value):
        return SinkRecord("x", 0, number, value, headers=identity("x", number))

    sink(layout="value").put(
        [
            record(0, {"_id": 5, "a": [1, {"b": None}]}),
            record(1, "text"),
            record(2, None)._replace(value_schema=Schema.parse('["null","long"]')),
        ]
    )

    documents = [
        {k: v for k, v in d.items() if k not in ("_id", "_digest")} for d in database.readings.find()
    ]
    assert sorted(documents, key=str) == [
        {"__id": 5, "a": [1, {"b": None}]},
        {"value": "text"},
        {"value": None},
    ]


def test_a_record_without_an_identity_is_a_data_error(sink, database, reading):
    with pytest.raises(DataError, match=r"tieline\.id"):
        sink().put([reading(1)._replace(headers=())])


def test_the_indexes_of_the_queries_exist_and_creating_them_again_is_not_an_error(sink, database):
    sink()
    sink()
    sink(collection="old", layout="cloudagent")

    def keys(collection):
        return {name for name in database[collection].index_information() if name != "_id_"}

    assert keys("readings") == {"time_-1", "topic_1_time_-1", "device_1_time_-1"}
    assert keys("old") == {"date_-1", "topic_1_date_-1"}


def test_a_collection_whose_name_is_the_topics_gets_its_indexes_too(sink, database, reading):
    sink(collection="").put([reading(1, topic="t")])

    assert len(database.t.index_information()) == 4


def test_no_index_is_created_if_indexes_are_disabled(sink, database, reading):
    sink(create__indexes="false").put([reading(1)])

    assert set(database.readings.index_information()) == {"_id_"}


def test_a_conflicting_index_of_the_user_is_reported(sink, database, reading, caplog):
    database.readings.create_index([("time", -1)], unique=True)

    sink().put([reading(1)])

    assert database.readings.count_documents({}) == 1
    assert "indexes not created" in caplog.text


@pytest.mark.parametrize("question", [{"topic": "devices/campus/b1/ahu1/all"}, {"device": "campus/b1/ahu1"}])
def test_the_queries_use_an_index(sink, database, reading, question):
    sink().put([reading(n, device=f"campus/b1/ahu{n % 3}") for n in range(30)])

    plan = database.readings.find(question).sort("time", -1).limit(5).explain()

    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])


def test_newest_first_returns_the_newest(sink, database, reading):
    sink().put([reading(n) for n in (3, 1, 9, 5)])

    assert [d["points"]["count"] for d in database.readings.find().sort("time", -1)] == [9, 5, 3, 1]


def test_a_bus_message_in_the_reading_layout_keeps_its_message_and_headers(sink, database, reading):
    common = {k: reading(1).value[k] for k in ("platform", "sender", "time", "time_source", "received")}
    value = {"topic": "analysis/x", "headers": '{"a": 1}', "body": '[1, {"k": NaN}]', **common}

    sink().put([reading(1)._replace(value=value, value_schema=Schema.named("volttron.BusMessage"))])

    (document,) = database.readings.find()
    assert document["headers"] == {"a": 1}
    assert document["message"][0] == 1
    assert document["message"][1]["k"] != document["message"][1]["k"]


def tombstone(number, key):
    headers = identity("tombstone", number)
    return SinkRecord("orders", 0, number, None, key, headers)


@pytest.mark.parametrize("layout", ["reading", "point", "cloudagent", "command-history", "value"])
def test_a_tombstone_is_skipped_and_counted_in_every_layout(sink, database, reading, layout):
    running = sink(layout=layout)
    good = {"a": 1} if layout == "value" else {"device_point": "a/b", "new_value": 1}
    record = reading(2) if layout in ("reading", "point", "cloudagent") else reading(2)._replace(value=good)

    running.put([tombstone(0, "k"), record, tombstone(1, b"\xff")])

    assert running.counters == {"skipped.tombstone": 2}
    assert database.readings.count_documents({}) == (5 if layout == "point" else 1)


def test_a_tombstone_that_is_stored_keeps_its_key_whatever_the_key_is(sink, database):
    running = sink(layout="value", tombstones="store")
    keys = ["text", 7, b"\xff\x00", {"id": 1}, None]

    running.put([tombstone(number, key) for number, key in enumerate(keys)])

    stored = database.readings.find({}, {"_id": 0, "_digest": 0})
    assert list(stored) == [{"key": key, "value": None} for key in keys]
    assert running.counters == {}


def test_a_message_that_is_too_large_as_bson_is_stored_as_text_and_the_history_continues(sink, database):
    body = json.dumps([1] * 1_700_000)  # 5.1 MB, as BSON 21 MB
    bus = {"platform": "lab", "topic": "analysis/x", "sender": "a", "headers": "{}", "time": 0}
    value = {**bus, "time_source": "DATE", "received": 0, "body": body}
    large = [SinkRecord("t", 0, n, value, headers=identity("large", n)) for n in range(2)]
    small = [SinkRecord("t", 0, 2, {**value, "body": "[1]"}, headers=identity("small"))]

    running = sink(layout="reading")
    running.put(large + small)
    running.put(large)

    stored = list(database.readings.find({}, {"message": 1}).sort("_id"))
    assert len(stored) == 3
    texts = [document["message"]["_json"] for document in stored if isinstance(document["message"], dict)]
    assert [json.loads(text) for text in texts] == [[1] * 1_700_000] * 2
    assert running.counters == {"compacted": 4, "duplicates": 2}


def noise(length):
    """Text that no compression makes much shorter: six bits a letter, of eight."""
    return base64.b64encode(random.Random(7).randbytes(length * 3 // 4)).decode()


def test_a_document_too_large_even_compressed_is_a_data_error_with_its_size_and_the_fix(
    sink, database, reading
):
    huge = SinkRecord("t", 0, 0, {"noise": noise(23_000_000).encode()}, headers=identity("huge"))
    fine = SinkRecord("t", 0, 1, {"a": 1}, headers=identity("fine"))

    with pytest.raises(DataError) as raised:
        sink(layout="value").put([huge, fine])

    assert list(raised.value.failures) == [0]
    assert re.search(r"23000\d+ bytes.*Split or shorten", str(raised.value.failures[0]))
    assert database.readings.count_documents({}) == 1


@pytest.mark.parametrize("name", ["plant.x.", ".x", "a..b", "system.users"])
def test_a_topic_without_a_valid_collection_name_waits_with_the_fix_and_blocks_no_other(sink, database, name):
    def of(topic, number):
        headers = identity(topic, number, digest_of=b"")
        return SinkRecord(topic, 0, number, {"n": number}, None, headers, 0)

    task = sink(layout="value", collection="")
    batch = [of("good", 1), of(name, 2), of("other", 3), of(name, 4)]

    with pytest.raises(RetriableError) as raised:
        task.put(batch)

    assert raised.value.partitions == frozenset({TopicPartition(name, 0)})
    assert f"Set topic.override.{name}.collection" in str(raised.value)
    assert sorted(database.list_collection_names()) == ["good", "other"]
    assert [d["n"] for d in database.good.find()] == [1]
