"""``tieline mongo rollup`` and the state of rollups: complete, or known not to be."""

from typing import Any

import pytest
import typer
from pymongo import MongoClient
from typer.testing import CliRunner

from tieline.api import RetriableError
from tieline_connectors.mongo.query.dedupe import app
from tieline_connectors.mongo.query.rollup import build
from tieline_connectors.mongo.query.store import MongoStore
from tieline_connectors.points.questions import PointName

START = 1_767_225_600_000_000
HOUR = 3_600_000_000
TEMP = PointName("lab", "campus/b1/ahu1", "temp")


@pytest.fixture
def rollup(mongo_uri, database):
    """Runs the command: exit status, standard output, standard error."""
    program = typer.Typer()
    program.add_typer(app, name="mongo")

    def run(*arguments):
        where = ["--uri", mongo_uri, "--database", database.name]
        result = CliRunner().invoke(program, ["mongo", "rollup", *where, *arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def is_complete(database):
    return lambda: (database["readings.points"].find_one({"_id": "state"}) or {}).get("complete")


def last_of_chart(mongo_uri, database):
    store = MongoStore(mongo_uri, database.name, "readings", 60.0)
    buckets = store.series(TEMP, START, START + 100 * HOUR, 10).buckets
    store.close()
    return [bucket.last for bucket in buckets]


def test_documents_of_before_are_added_while_the_sink_runs(
    sink, database, reading, rollup, is_complete, mongo_uri
):
    sink().put([reading(n) for n in range(30)])
    running = sink(rollups="true")
    running.put([reading(n) for n in range(30, 40)])

    assert is_complete() is False
    assert rollup() == (0, "the rollups contain 40 documents\n", "") or is_complete()
    running.put([reading(n) for n in range(40, 50)])
    running.task.flush({})
    before = list(database["readings.rollup"].find().sort("_id"))

    assert last_of_chart(mongo_uri, database) == [69.5]
    assert rollup("--rebuild")[0] == 0
    assert list(database["readings.rollup"].find().sort("_id")) == before


def test_a_sink_that_writes_the_first_document_has_complete_rollups(sink, reading, is_complete):
    sink(rollups="true")
    assert is_complete()
    sink(rollups="true").put([reading(1)])
    assert is_complete()


def test_a_sink_without_rollups_ends_their_completeness_and_charts_read_documents(
    sink, database, reading, rollup, is_complete, mongo_uri
):
    first = sink(rollups="true")
    first.put([reading(1)])
    first.task.flush({})
    sink().put([reading(2)])

    assert is_complete() is False
    assert last_of_chart(mongo_uri, database)[-1] == 22.5
    status, _, output = rollup()
    assert status == 2
    assert "rollups=true" in output
    sink(rollups="true")
    assert is_complete() is False
    assert rollup()[0] == 0
    assert is_complete()


def test_a_sink_that_starts_without_rollups_during_the_build_is_noticed(sink, database, reading, is_complete):
    sink(rollups="true").put([reading(n) for n in range(1000)])

    def start_another(done):
        if done == 1000:
            sink()

    with pytest.raises(ValueError, match="began to write"):
        build(database.readings, rebuild=False, report=start_another)

    assert is_complete() is False


def test_a_collection_of_another_layout_cannot_have_rollups(sink, reading, rollup):
    sink(layout="cloudagent").put([reading(1)])

    status, _, output = rollup()

    assert status == 2
    assert "none of the layouts" in output


def test_rollups_of_a_failed_write_are_kept_and_written_by_the_next_flush(start_sink, faulty, fail, reading):
    sink = start_sink(faulty, "rollups_retry", rollups="true")
    sink.put([reading(n) for n in range(3)])
    fail(1, failCommands=["update"], errorCode=91)

    with pytest.raises(RetriableError):
        sink.task.flush({})
    sink.task.flush({})

    with MongoClient[dict[str, Any]](faulty) as client:
        documents = client.rollups_retry["readings.rollup"].find({"s.0.n": 20.5})
        assert {document["s"]["0"]["x"] for document in documents} == {22.5}
        client.drop_database("rollups_retry")
