from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from tieline.api import FatalError, RetriableError
from tieline_connectors.mongo.writing.collection import CollectionWriter
from tieline_connectors.mongo.writing.failures import error_of_code, to_tieline_error


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("closed"),
        NetworkTimeout("slow"),
        NotPrimaryError("not primary"),
        ServerSelectionTimeoutError("nobody"),
        WaitQueueTimeoutError("full"),
        ExecutionTimeout("slow", 50),
        OperationFailure("down", 91),
        OperationFailure("disk", 14031),
        OperationFailure("busy", 462),
        OperationFailure("odd", 4711, {"errorLabels": ["RetryableWriteError"]}),
    ],
)
def test_a_transient_error_is_an_outage(error):
    assert isinstance(to_tieline_error(error), RetriableError)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (OperationFailure("no", 13), "readWrite"),
        (OperationFailure("no", 18), "authSource"),
        (OperationFailure("no", 100), "write.concern"),
        (OperationFailure("no", 166), "view"),
        (OperationFailure("no", 4711), "server's log"),
        (ConfigurationError("no"), "connection.uri"),
    ],
)
def test_an_error_that_does_not_end_by_waiting_is_fatal_and_names_the_fix(error, fix):
    answer = to_tieline_error(error)

    assert isinstance(answer, FatalError)
    assert fix in str(answer)


def test_a_long_answer_is_cut():
    assert len(str(to_tieline_error(OperationFailure("x" * 10_000, 1)))) < 500


@pytest.fixture
def writer():
    from pymongo import MongoClient

    with MongoClient[dict[str, Any]]("mongodb://127.0.0.1:1", connect=False) as client:
        yield CollectionWriter(client.a.b, 16_000_000)


def answer(*write_errors, concern=()):
    return {"writeErrors": list(write_errors), "writeConcernErrors": list(concern)}


def test_written_but_not_yet_safe_is_an_outage(writer):
    late = {"code": 64, "errmsg": "waiting for replication timed out"}

    with pytest.raises(RetriableError, match="timed out"):
        writer.to_result([{"_id": "1"}], answer(concern=[late]))


def test_a_write_concern_that_can_never_be_reached_is_fatal(writer):
    with pytest.raises(FatalError, match=r"write\.concern"):
        writer.to_result([{"_id": "1"}], answer(concern=[{"code": 100, "errmsg": "not enough"}]))


def test_an_outage_reported_for_one_document_is_an_outage_of_the_batch(writer):
    bad, down = {"index": 0, "code": 121, "errmsg": "no"}, {"index": 1, "code": 11600, "errmsg": "down"}

    with pytest.raises(RetriableError):
        writer.to_result([{"_id": "1"}, {"_id": "2"}], answer(bad, down))


def test_an_error_code_is_shown_with_its_name():
    assert "PrimarySteppedDown" in str(error_of_code(189, "x"))
