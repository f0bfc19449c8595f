"""Layout point: a document a value, written once; and which publications the layouts take."""

import pytest

from tieline.api import DIGEST_HEADER, ID_HEADER, DataError


def id_of(record):
    return dict(record.headers)[ID_HEADER].decode()


def other(record, **points):
    """The same identity, another content."""
    headers = tuple((k, b"else" if k == DIGEST_HEADER else v) for k, v in record.headers)
    return record._replace(headers=headers, value=record.value | {"points": points})


def test_every_value_of_every_reading_is_one_document_and_a_redelivery_changes_nothing(
    sink, database, reading
):
    task = sink(layout="point")
    batch = [reading(n) for n in range(20)]
    task.put(batch)
    before = list(database.readings.find().sort("_id"))

    task.put(batch)

    assert len(before) == 100
    assert task.counters == {"duplicates": 100}
    assert list(database.readings.find().sort("_id")) == before
    temp = database.readings.find_one({"_id": id_of(reading(3)) + "/temp"})
    assert (temp["device"], temp["point"], temp["value"], temp["units"]) == (
        "campus/b1/ahu1", "temp", 23.5, "C",
    )  # fmt: skip


def test_a_single_point_is_accepted(sink, database, reading):
    task = sink(layout="point")

    task.put([reading(1, kind="POINT", points={"temp": 5}), reading(2, points={"temp": 6})])

    assert [d["value"] for d in database.readings.find().sort("time")] == [5, 6]
    assert task.counters == {}


def test_another_record_of_the_same_id_is_one_data_error_and_its_neighbours_are_written(
    sink, database, reading
):
    task = sink(layout="point")
    task.put([reading(1)])

    with pytest.raises(DataError) as raised:
        task.put([reading(0), other(reading(1), temp=1, fan=True), reading(2)])

    assert list(raised.value.failures) == [1]
    assert database.readings.count_documents({}) == 15
    assert database.readings.find_one({"_id": id_of(reading(1)) + "/temp"})["value"] == 21.5


def test_the_newest_values_of_a_point_come_from_an_index(sink, database, reading):
    sink(layout="point").put([reading(n) for n in range(30)])

    wanted = database.readings.find({"device": "campus/b1/ahu1", "point": "temp"}).sort("time", -1).limit(3)

    assert "IXSCAN" in str(wanted.explain()["queryPlanner"]["winningPlan"])
    assert [d["value"] for d in wanted] == [49.5, 48.5, 47.5]
    assert set(database.readings.index_information()) == {
        "_id_",
        "time_-1",
        "topic_1_time_-1",
        "device_1_point_1_time_-1",
    }


@pytest.mark.parametrize(
    ("settings", "stored", "skipped"),
    [
        ({}, {"ALL", "MULTI"}, {"POINT": 1, "OTHER": 1}),
        ({"publishes": "MULTI"}, {"MULTI"}, {"ALL": 1, "POINT": 1, "OTHER": 1}),
        ({"publishes": "ALL,MULTI,POINT,OTHER"}, {"ALL", "MULTI", "POINT", "OTHER"}, {}),
    ],
)
def test_the_layout_reading_stores_the_configured_publications_and_counts_the_others(
    sink, database, reading, settings, stored, skipped
):
    task = sink(**settings)

    task.put(
        [reading(n, kind=kind, device=kind) for n, kind in enumerate(("ALL", "MULTI", "POINT", "OTHER"))]
    )

    assert {d["kind"] for d in database.readings.find()} == stored
    assert task.counters == {f"skipped.{kind}": number for kind, number in skipped.items()}


def test_a_message_without_points_is_counted_and_skipped(sink, database, reading):
    task = sink(layout="point")
    common = {k: reading(1).value[k] for k in ("platform", "sender", "time", "time_source", "received")}
    message = {"topic": "analysis/x", "headers": "{}", "body": "1", **common}

    task.put([reading(1)._replace(value=message), reading(2)])

    assert database.readings.count_documents({}) == 5
    assert task.counters == {"skipped.no_points": 1}


def test_a_device_that_arrives_in_two_forms_is_reported_once(sink, reading, caplog):
    task = sink()

    batch = [reading(n, kind=kind) for n, kind in enumerate(("ALL", "MULTI") * 3)]
    task.put([r._replace(value=r.value | {"topic": f"devices/x/{r.value['kind']}"}) for r in batch])

    reported = [record for record in caplog.records if "stored twice" in record.getMessage()]
    assert len(reported) == 1
