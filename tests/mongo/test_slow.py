"""The sink on a link, or with a server, that is slower than its time-outs allow for."""

import logging
import time

import pytest

from tieline.api import RetriableError
from tieline_connectors.mongo.writing.collection import CollectionWriter

pytestmark = pytest.mark.mongo

KIB = 1024


def test_on_a_slow_link_every_record_is_written_once_in_smaller_inserts_with_one_warning(
    slow_link, start_sink, database, reading, offer, caplog
):
    sink = start_sink(slow_link(64 * KIB), database.name, socket__timeout__ms="1000")
    batch = [reading(n) for n in range(500)]  # 210 kB: three seconds

    errors = offer(sink, batch)

    assert errors, "the link is not slow enough for this test"
    assert len(errors) < 10
    assert database.readings.count_documents({}) == 500
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING and " failed: " in r.message]
    assert len(warnings) == 1
    assert "max.batch.size" in warnings[0].message
    assert sink.counters["inserts.halved"] == len(errors)

    before = sink.counters["duplicates"]  # what arrived although its answer was late
    offer(sink, batch)
    assert database.readings.count_documents({}) == 500
    assert sink.counters["duplicates"] - before == 500


def test_a_document_that_exceeds_the_timeout_gets_more_time_up_to_the_limit(
    slow_link, start_sink, database, reading, offer
):
    large = reading(1, points={"text": "x" * 150 * KIB})  # two and a half seconds
    uri = slow_link(64 * KIB)
    short = start_sink(uri, database.name, socket__timeout__ms="400", socket__timeout__max__ms="800")
    for _ in range(2):
        with pytest.raises(RetriableError):
            short.put([large])
    with pytest.raises(RetriableError, match=r"socket\.timeout\.max\.ms"):
        short.put([large])
    time.sleep(2)  # what was sent is on its way still

    sink = start_sink(uri, database.name, socket__timeout__ms="400", socket__timeout__max__ms="20000")
    offer(sink, [reading(0), large, reading(2)])

    assert database.readings.count_documents({}) == 3


def test_what_is_written_before_a_time_out_is_reported_and_not_written_again(
    start_sink, mongo_uri, database, reading, monkeypatch
):
    """A server that needs a second for 100 documents, and answers nothing that takes longer."""
    sink = start_sink(mongo_uri, database.name, max__batch__size="100")
    sizes = []
    insert = CollectionWriter.insert_once

    def slowly(self, documents):
        sizes.append(len(documents))
        if len(sizes) == 3:
            from pymongo.errors import NetworkTimeout

            raise NetworkTimeout("timed out")
        return insert(self, documents)

    monkeypatch.setattr(CollectionWriter, "insert_once", slowly)
    batch = [reading(n) for n in range(250)]

    with pytest.raises(RetriableError) as raised:
        sink.put(batch)
    assert raised.value.reached == {batch[0].consumed_from: 200}
    sink.put(batch)  # also if all of it comes again

    assert sizes == [100, 100, 50, 25, 25]
    assert sink.counters == {"inserts.halved": 1}
    assert database.readings.count_documents({}) == 250


def test_an_interrupted_task_returns_the_rest_of_a_long_batch(sink, database, reading):
    stopped = sink(max__batch__size="10")
    stopped.context.stopping = True
    batch = [reading(n) for n in range(30)]

    with pytest.raises(RetriableError) as raised:
        stopped.put(batch)

    assert raised.value.reached == {batch[0].consumed_from: 10}
    assert database.readings.count_documents({}) == 10
