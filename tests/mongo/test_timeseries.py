"""Layout timeseries: nothing but the sink keeps a document single there."""

import base64
import datetime as dt
import json
import random
import time
import zlib
from typing import Any

import pytest
import typer
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError
from typer.testing import CliRunner

from tieline.api import DIGEST_HEADER, ID_HEADER, DataError, FatalError, RetriableError
from tieline_connectors.mongo.query.dedupe import app

pytestmark = pytest.mark.mongo


def id_of(record):
    return dict(record.headers)[ID_HEADER].decode()


def other(record):
    """The same identity, another content."""
    headers = tuple((k, b"else" if k == DIGEST_HEADER else v) for k, v in record.headers)
    return record._replace(headers=headers)


def is_as_lax_as_mongodb(database):
    """Whether a time-series collection of this server takes an _id twice, as MongoDB's does."""
    probe = database.create_collection("probe", timeseries={"timeField": "time", "metaField": "series"})
    document = {"_id": 1, "time": dt.datetime(2026, 1, 1), "series": {"a": 1}}
    try:
        for _ in range(2):
            probe.insert_one(dict(document))
    except DuplicateKeyError:
        return False
    finally:
        probe.drop()
    return True


@pytest.fixture
def database(database):
    """Skips where the server itself refuses a doubled _id: nothing that passes would be proof of the sink."""
    if not is_as_lax_as_mongodb(database):
        pytest.skip("this server is stricter than MongoDB: it refuses a doubled _id in a time series")
    return database


@pytest.fixture
def series(sink, database):
    """Starts a sink with this layout."""

    def start(**settings):
        return sink(layout="timeseries", **settings)

    return start


def ids(database):
    return sorted(document["_id"] for document in database.readings.find({}, {"_id": 1}))


def test_a_reading_becomes_a_measurement_a_point_in_a_time_series_collection(series, database, reading):
    series().put([reading(7)])

    (collection,) = database.list_collections(filter={"name": "readings"})
    assert collection["options"]["timeseries"]["timeField"] == "time"
    assert collection["options"]["timeseries"]["metaField"] == "series"
    assert database.readings.count_documents({}) == 5
    assert database.readings.find_one({"series.point": "temp"}) == {
        "_id": id_of(reading(7)) + "/temp",
        "time": dt.datetime(2026, 1, 1, 0, 0, 7, tzinfo=dt.timezone.utc),
        "series": {"platform": "lab", "device": "campus/b1/ahu1", "point": "temp"},
        "value": 27.5,
        "units": "C",
        "time_us": 1_767_225_607_000_123,
        "time_source": "TIMESTAMP",
        "topic": "devices/campus/b1/ahu1/all",
        "received": dt.datetime(2026, 1, 1, 0, 0, 7, 5000, tzinfo=dt.timezone.utc),
        "_digest": dict(reading(7).headers)[DIGEST_HEADER].decode(),
    }


def test_a_redelivery_writes_nothing_and_new_records_beside_it_are_written(series, database, reading):
    task = series()
    task.put([reading(n) for n in range(20)])
    task.put([reading(n) for n in range(10, 30)])
    series().put([reading(n) for n in range(30)])

    assert task.counters == {"duplicates": 50}
    assert ids(database) == sorted(
        f"{id_of(reading(n))}/{point}" for n in range(30) for point in reading(n).value["points"]
    )


def test_a_record_twice_in_one_batch_is_written_once(series, database, reading):
    task = series()

    task.put([reading(1), reading(2), reading(1)])

    assert len(ids(database)) == 10
    assert task.counters == {"duplicates": 5}


@pytest.mark.parametrize("stored_before", [True, False])
def test_another_record_of_the_same_id_is_a_data_error_and_its_neighbours_are_written(
    series, database, reading, stored_before
):
    task = series()
    if stored_before:
        task.put([reading(1)])

    with pytest.raises(DataError, match="two records have one identity") as raised:
        task.put([reading(0), reading(1), other(reading(1)), reading(2)])

    assert list(raised.value.failures) == [2]
    assert len(ids(database)) == 15
    assert database.readings.count_documents({"_digest": "else"}) == 0


def test_a_document_that_cannot_be_written_is_a_data_error_and_all_others_are_written_once(
    series, database, reading
):
    task = series()
    task.put([reading(0)])
    noise = base64.b64encode(random.Random(7).randbytes(5_000_000)).decode()

    with pytest.raises(DataError) as raised:
        task.put(
            [
                reading(0),
                reading(1, points={"text": noise}),
                reading(2, points={"x" * 5000: 1}),
                reading(3, points={"big": {"json": str(2**70)}}),
                reading(4, time=2**62),
            ]
        )

    assert sorted(raised.value.failures) == [1, 2, 4]
    assert len(ids(database)) == 6
    assert task.counters == {"duplicates": 5}


def test_a_value_that_is_too_large_for_a_time_series_is_compressed_and_its_series_stays(
    series, database, reading
):
    text = "x" * (17 * 1024 * 1024)
    task = series()
    task.put([reading(0, points={"text": text})])
    task.put([reading(0, points={"text": text})])

    (stored,) = database.readings.find()
    assert json.loads(zlib.decompress(stored["value"]["_json_zlib"])) == text
    assert stored["series"] == {"platform": "lab", "device": "campus/b1/ahu1", "point": "text"}
    assert task.counters["duplicates"] == 1


def test_a_collection_that_is_not_a_time_series_is_rejected_at_the_start(series, database):
    database.readings.insert_one({"a": 1})

    with pytest.raises(FatalError, match="name another collection"):
        series()


def test_each_batch_is_read_before_the_insert_by_series_and_time(series, database, reading):
    series().put([reading(1)])

    (index,) = [keys for name, keys in database.readings.index_information().items() if name != "_id_"]
    assert list(dict(index["key"])) == ["series", "time"]


@pytest.fixture
def lax_faulty(faulty):
    """A server that fails on request, and its database."""
    with MongoClient[dict[str, Any]](faulty) as client:
        if not is_as_lax_as_mongodb(client["series"]):
            pytest.skip("this server is stricter than MongoDB")
        yield client["series"]
        client.drop_database("series")


@pytest.mark.parametrize(
    ("how", "takes_effect"),
    [
        ({"blockConnection": True, "blockTimeMS": 800}, True),
        ({"closeConnection": True}, False),
        ({"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}, True),
    ],
    ids=["late", "closed", "not yet safe"],
)
def test_after_an_insert_of_unknown_outcome_nothing_is_written_until_it_has_ended(
    faulty, lax_faulty, fail, start_sink, reading, how, takes_effect
):
    sink = start_sink(faulty, "series", layout="timeseries", socket__timeout__ms="500")
    batch = [reading(n) for n in range(20)]
    fail(1, **how)
    before = time.monotonic()
    with pytest.raises(RetriableError):
        sink.put(batch)

    waits = []
    while (after := _offered(sink, batch)) is not None:
        waits.append(after)
        time.sleep(after)

    assert waits
    assert max(waits) <= 1.0, "twice the time that a command may take"
    assert time.monotonic() - before >= 1.0
    assert lax_faulty.readings.count_documents({}) == 100
    assert sink.counters["duplicates"] == (100 if takes_effect else 0)


def _offered(sink, batch):
    """Offers a batch, as the runtime does: how long to wait before the next time; none if it is written."""
    try:
        sink.put(batch)
    except RetriableError as error:
        return error.after
    return None


def test_an_insert_that_was_never_sent_is_not_waited_for(start_sink, reading, tmp_path, another):
    with another(tmp_path) as address:
        sink = start_sink(
            f"mongodb://{address}", "x", layout="timeseries", server__selection__timeout__ms="300"
        )
        sink.put([reading(1)])
    with pytest.raises(RetriableError) as raised:
        sink.put([reading(2)])

    assert raised.value.after is None


@pytest.fixture
def dedupe(mongo_uri, database):
    """Runs the command: exit status, its output."""
    program = typer.Typer()
    program.add_typer(app, name="mongo")

    def run(*arguments):
        where = ["--uri", mongo_uri, "--database", database.name]
        result = CliRunner().invoke(program, ["mongo", "dedupe", *where, *arguments])
        return result.exit_code, result.stdout

    return run


def test_dedupe_removes_all_copies_but_one_and_leaves_everything_else(series, database, reading, dedupe):
    series().put([reading(n) for n in range(10)])
    before = ids(database)
    twice = list(database.readings.find({"series.point": "temp"}))
    database.readings.insert_many(twice)
    database.readings.insert_many(twice[:1])

    assert dedupe() == (0, "11 surplus documents found\n")
    assert database.readings.count_documents({}) == 61
    assert dedupe("--delete") == (0, "11 surplus documents deleted\n")
    assert ids(database) == before
    assert dedupe("--delete") == (0, "0 surplus documents deleted\n")


def test_dedupe_reports_different_contents_under_one_id_and_keeps_them(series, database, reading, dedupe):
    series().put([reading(1)])
    document = database.readings.find_one({"series.point": "temp"})
    database.readings.insert_one(document | {"_digest": "else"})

    assert dedupe("--delete") == (6, "0 surplus documents deleted\n")
    assert database.readings.count_documents({}) == 6
