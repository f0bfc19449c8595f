"""Bad records on real servers: what a broker and a database refuse becomes a dead letter."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import pytest
from pymongo import MongoClient

from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import check_plan
from tieline.dead_letters.record import read_letter
from tieline.dead_letters.source_record import source_record
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

DEAD = {"errors.tolerance": "all", "errors.log.enable": "true"}


def letters(broker, topic):
    found: list[Any] = []
    broker.read(topic, lambda record: found.append(read_letter(record)))
    return found


@pytest.mark.kafka
def test_a_message_that_is_too_large_for_its_topic_on_kafka_is_a_letter_with_all_its_data(
    kafka_bootstrap, tmp_path
):
    name = f"large-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": kafka_bootstrap, "value.converter": "json"}
    broker = open_broker(check_plan("test", {**settings, "data.dir": str(tmp_path / "data")}, []))
    broker.create_topic(name, partitions=1, config={"max.message.bytes": "4000"})
    large = {20: os.urandom(3_000).hex(), 60: os.urandom(1_000_000).hex()}
    with FakeRouter() as bus:
        source = {
            "name": name,
            "connector.class": "volttron_bus",
            "volttron.address": bus.address,
            "volttron.identity": "tieline",
            "platform.name": "lab",
            "topic": name,
            "errors.deadletterqueue.topic.name": f"{name}-dead",
            **DEAD,
        }
        with WorkerProcess(tmp_path, settings, [source]) as worker:
            bus.wait_for_subscriber("tieline")
            for n in range(100):
                bus.publish("devices/campus/b/d/all", {}, [{"n": n, "filler": large.get(n, "x")}, {}])
            done = worker.wait_for_ledger(
                lambda ledger: ledger[name]["delivered"] + ledger[name]["dead_lettered"] == 100
            )
            assert worker.stop() == 0
    assert (done[name]["delivered"], done[name]["dead_lettered"], done[name]["state"]) == (98, 2, "RUNNING")
    assert done[name]["counters"]["dead_letters.KAFKA_PRODUCE"] == 2
    sent: list[Any] = []
    broker.read(name, lambda record: sent.append(json.loads(record.value or b"")["points"]["n"]))
    found = letters(broker, f"{name}-dead")
    broker.close()
    assert list(dict.fromkeys(sent)) == [n for n in range(100) if n not in large]
    assert [letter.cause.stage for letter in found] == ["KAFKA_PRODUCE"] * 2
    assert ["MSG_SIZE_TOO_LARGE" in letter.cause.message for letter in found] == [True] * 2
    points = [source_record(letter).value["points"] for letter in found]
    assert points == [{"n": n, "filler": filler} for n, filler in large.items()]


@pytest.mark.parametrize("backend", ["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_a_document_that_mongodb_refuses_and_a_text_that_is_not_json_cost_themselves_alone(
    request, mongo_uri, tmp_path, backend
):
    name = f"bad{uuid.uuid4().hex[:8]}"
    settings = {"value.converter": "json", "offset.flush.interval.ms": "100"}
    if backend == "kafka":
        settings["bootstrap.servers"] = request.getfixturevalue("kafka_bootstrap")
    plan = check_plan("test", {**settings, "data.dir": str(tmp_path / "data")}, [])
    values = [json.dumps({"n": n}).encode() for n in range(50)]
    values[17], values[31] = b'{"n": 16}', b"not JSON"  # two documents with one unique value
    broker = open_broker(plan)
    broker.create_topic(name, partitions=1)
    producer = broker.producer("test", {})
    producer.send(Unit([ProducerRecord(name, value) for value in values]))
    while not producer.poll(1.0):
        pass
    producer.close(1)
    broker.close()
    sink = {
        "name": name,
        "connector.class": "mongo",
        "connection.uri": mongo_uri,
        "database": name,
        "collection": "c",
        "layout": "value",
        "topics": name,
        "errors.deadletterqueue.topic.name": f"{name}-dead",
        **DEAD,
    }
    with MongoClient[Any](mongo_uri) as client:
        client[name]["c"].create_index("n", unique=True)
    with WorkerProcess(tmp_path, settings, [sink]) as worker:
        done = worker.wait_for_ledger(
            lambda ledger: ledger[name]["delivered"] + ledger[name]["dead_lettered"] == 50
        )
        assert worker.stop() == 0
    with MongoClient[Any](mongo_uri) as client:
        stored = sorted(document.get("n", -1) for document in client[name]["c"].find())
        client.drop_database(name)
    broker = open_broker(plan)
    found = letters(broker, f"{name}-dead")
    broker.close()
    assert (done[name]["delivered"], done[name]["dead_lettered"], done[name]["state"]) == (48, 2, "RUNNING")
    assert stored == [n for n in range(50) if n not in (17, 31)]
    by_offset = {letter.offset: (letter.cause.stage, letter.value) for letter in found}
    assert by_offset == {17: ("TASK_PUT", values[17]), 31: ("VALUE_CONVERTER", values[31])}
    assert len(found) == 2
