"""The sink while its server is unavailable, or rejects requests."""

import logging
import time
from typing import Any

import pytest
from pymongo import MongoClient

from tieline.api import ConfigError, DataError, FatalError, RetriableError
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_lab.mongo import MongoServer
from tieline_lab.process import free_port

pytestmark = pytest.mark.mongo


@pytest.fixture
def server(tmp_path):
    with MongoServer(tmp_path) as server:
        yield server


def test_a_killed_server_is_an_outage_and_after_its_restart_the_same_batch_counts_exactly(
    server, start_sink, reading
):
    sink = start_sink(server.uri, "outage", server__selection__timeout__ms="1000")
    sink.put([reading(n) for n in range(100)])
    server.kill()

    for _ in range(2):
        with pytest.raises(RetriableError, match="not available"):
            sink.put([reading(n) for n in range(50, 150)])
    server.start()
    put_after_outage(sink, [reading(n) for n in range(50, 150)])

    assert sink.counters == {"duplicates": 50}
    with MongoClient[dict[str, Any]](server.uri) as client:
        assert client["outage"]["readings"].count_documents({}) == 150


def put_after_outage(sink, batch):
    """Offer a batch as the runtime does: the driver looks for its server twice a second at most."""
    end = time.monotonic() + 30
    while True:
        try:
            return sink.put(batch)
        except RetriableError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_server_that_is_unavailable_at_the_start_is_an_outage_and_a_later_start_succeeds(
    server, start_sink, reading
):
    server.kill()
    with pytest.raises(RetriableError):
        start_sink(server.uri, "outage", server__selection__timeout__ms="300")
    server.start()

    start_sink(server.uri, "outage").put([reading(1)])


def test_no_secret_of_the_uri_is_in_any_error_or_log(start_sink, reading, caplog):
    caplog.set_level(logging.DEBUG)
    uri = f"mongodb://operator:s3cr%40t-word@127.0.0.1:{free_port()}/?authSource=admin"

    with pytest.raises(RetriableError) as raised:
        start_sink(uri, "x", server__selection__timeout__ms="200")

    for text in (str(raised.value), repr(raised.value), caplog.text):
        assert "s3cr" not in text


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mongodb://operator:s3cr/t@127.0.0.1/", "percent-encoded"),
        ("mongodb://operator:s3cr:t@127.0.0.1/", "percent-encoded"),
        ("mongo://operator:s3crt@127.0.0.1/", "not a MongoDB URI"),
        ("mongodb://operator:s3crt@127.0.0.1:port/", "not a MongoDB URI"),
        ("mongodb://operator:s3crt@127.0.0.1/?w=1;wtimeout=1&x=s3crt", "not a MongoDB URI"),
    ],
)
def test_a_wrong_uri_is_a_configuration_problem_without_its_secret(uri, says):
    with pytest.raises(ConfigError) as raised:
        MongoSinkConfig.parse({"connection.uri": uri, "database": "x"})

    assert says in str(raised.value)
    assert "s3cr" not in str(raised.value)


def test_wrong_credentials_are_fatal_and_the_message_names_the_fix(tmp_path, start_sink, another):
    with MongoServer(tmp_path) as server, MongoClient[dict[str, Any]](server.uri) as client:
        client.admin.command("createUser", "operator", pwd="right-word", roles=["root"])
    with another(tmp_path, "--auth") as address:
        with pytest.raises(FatalError, match="check user, password and authSource") as raised:
            start_sink(f"mongodb://operator:wrong-word@{address}/?authSource=admin", "x")
        start_sink(f"mongodb://operator:right-word@{address}/?authSource=admin", "x")

    assert "wrong-word" not in str(raised.value)


@pytest.mark.parametrize(
    "how",
    [
        {"closeConnection": True},
        {"errorCode": 189},
        {"errorCode": 11600},
        {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
        {"blockConnection": True, "blockTimeMS": 1500},
    ],
    ids=["closed", "stepped down", "shutting down", "not yet safe", "slow"],
)
def test_a_transient_fault_is_an_outage_and_the_repeated_batch_counts_exactly(
    faulty, fail, start_sink, reading, request, how
):
    sink = start_sink(faulty, "faults", collection=request.node.name, socket__timeout__ms="500")
    fail(1, **how)

    with pytest.raises(RetriableError):
        sink.put([reading(n) for n in range(20)])
    sink.put([reading(n) for n in range(20)])

    with MongoClient[dict[str, Any]](faulty) as client:
        assert client["faults"][request.node.name].count_documents({}) == 20


def test_a_batch_refused_as_a_whole_is_halved_until_the_culprit_is_alone(faulty, fail, start_sink, reading):
    sink = start_sink(faulty, "faults", collection="halves")
    fail(5, errorCode=10334)  # all of it, all again, 8 of it, 4, 2

    sink.put([reading(n) for n in range(16)])
    fail(6, errorCode=10334)  # and 1
    with pytest.raises(DataError) as raised:
        sink.put([reading(n) for n in range(100, 116)])

    assert list(raised.value.failures) == [0]
    with MongoClient[dict[str, Any]](faulty) as client:
        assert client["faults"]["halves"].count_documents({}) == 31


def test_a_server_that_refuses_everything_is_fatal_and_no_record_is_blamed(faulty, fail, start_sink, reading):
    sink = start_sink(faulty, "faults")
    fail(1, errorCode=13)

    with pytest.raises(FatalError, match="readWrite"):
        sink.put([reading(1)])
