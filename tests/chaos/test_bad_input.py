"""Bad input causes a clear error and loses nothing.

Its neighbours arrive, counts are exact, and the message has the problem, the place and the fix. The input is
kept: raw in the quarantine, or in its topic, where the offset of the stopped task is not committed.

These tests send bad messages over the bus, and read bad records from a topic, with whole workers. Other tests
cover the rest of the list; ``ELSEWHERE`` names them, and the last test checks that they exist.
"""

import base64
import json
import math
import random
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tieline.api import Datum, Schema, TopicPartition
from tieline.broker.local.log import LocalLog
from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.frames import pack

pytestmark = pytest.mark.mongo
ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "malformed VIP frames": [
        "tests/unit/volttron_bus/test_source.py::test_malformed_messages_are_quarantined_raw_and_reception_continues",
        "tests/property/volttron_bus/test_bus_properties.py::test_any_frames_are_a_message_or_malformed",
    ],
    "non-JSON bodies": [
        "tests/unit/volttron_bus/messages/test_message.py::test_an_invalid_message_is_rejected_with_its_reason"
    ],
    "NaN and infinities": [
        "tests/contract/bus/test_vip.py::test_nan_and_infinities_travel",
        "tests/property/mongo/test_old_documents.py::"
        "test_any_json_body_becomes_the_document_that_the_old_agent_would_have_stored",
    ],
    "16 MB messages": [
        "tests/contract/broker/test_producing.py::test_a_record_that_is_too_large_fails_alone",
        "tests/contract/broker/test_kafka_alone.py::test_records_refused_with_their_batch_are_sent_again_alone",
    ],
    "keys with $ and .": [
        "tests/mongo/test_sink.py::test_values_without_a_bson_type_are_stored_in_a_readable_form_beside_their_neighbours"
    ],
    "documents over Mongo's limit": [
        "tests/mongo/test_sink.py::test_a_document_that_is_too_large_is_a_data_error_and_all_others_are_written",
        "tests/mongo/test_sink.py::test_a_document_larger_than_a_message_is_a_data_error_and_all_others_are_written",
    ],
    "unknown schema ids": [
        "tests/unit/converters/test_converters.py::test_avro_names_every_record_that_cannot_be_read_and_only_these"
    ],
    "truncated Avro": [
        "tests/property/converters/test_avro.py::"
        "test_a_reading_cut_short_or_with_a_flipped_bit_raises_only_a_data_error"
    ],
    "broken configuration files": [
        "tests/unit/config/test_files.py::test_a_file_that_cannot_be_parsed_says_why",
        "tests/unit/config/test_files.py::test_a_file_that_is_not_utf_8_is_a_problem",
        "tests/unit/config/test_files.py::test_a_billion_laughs_cost_nothing",
        "tests/unit/config/test_files.py::test_no_text_of_a_broken_file_is_in_the_message",
        "tests/unit/config/test_plan.py::test_all_problems_of_all_files_are_reported_together",
        "tests/unit/config/test_plan.py::test_run_check_prints_every_problem_to_standard_error_and_exits_with_2",
    ],
    "an unwritable or full disk under the spool": [
        "tests/chaos/test_spool_disk.py::test_a_file_in_place_of_a_folder_is_reported_before_anything_starts",
        "tests/chaos/test_spool_disk.py::test_a_read_only_disk_is_reported_before_anything_starts",
        "tests/chaos/test_spool_disk.py::"
        "test_a_full_disk_drops_records_with_a_count_and_an_alarm_and_the_others_arrive_once",
    ],
}


def mongo_sink(name, topic, uri, database, **more):
    return {
        "name": name,
        "connector.class": "mongo",
        "topics": topic,
        "connection.uri": uri,
        "database": database,
        "collection": name,
        **more,
    }


def bus_source(address, **more):
    return {
        "name": "bus",
        "connector.class": "volttron_bus",
        "volttron.address": address,
        "volttron.identity": "tieline",
        "platform.name": "lab",
        "topic": "bus",
        **more,
    }


# -- messages of the bus


class Pipeline:
    """The bus, a worker and its collection. Each case sends a neighbour, the bad message, and a neighbour."""

    def __init__(self, bus, worker, collection):
        self.bus, self.worker, self.collection = bus, worker, collection
        self.sent = 0

    def neighbour(self):
        self.bus.publish("devices/a/all", {}, [{"n": self.sent}, {}])
        self.sent += 1

    def arrived(self, arriving=0):
        """Wait until all neighbours, and ``arriving`` other messages, are in MongoDB; return the ledger."""
        self.sent += arriving
        return self.worker.wait_for_ledger(
            lambda ledger: (
                ledger["bus"]["counters"].get("spooled", 0) == self.sent
                and ledger["bus"]["spool_records"] == 0
                and ledger["mongo"]["delivered"] == self.sent
                and self.collection.count_documents({}) == self.sent
            )
        )

    def logged(self, words):
        return [e["event"] for e in self.worker.events if words in e["event"]]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, mongo_uri):
    folder = tmp_path_factory.mktemp("pipeline")
    client: pymongo.MongoClient[dict[str, Any]]
    with FakeRouter() as bus, pymongo.MongoClient(mongo_uri) as client:
        connectors = [
            bus_source(bus.address, **{"buffer.max.bytes": str(128 << 20)}),
            mongo_sink("mongo", "bus", mongo_uri, "bad_input", layout="cloudagent"),
        ]
        with WorkerProcess(folder, {}, connectors) as worker:
            bus.wait_for_subscriber("tieline")
            yield Pipeline(bus, worker, client["bad_input"]["mongo"])
            assert worker.stop() == 0
        client.drop_database("bad_input")
        assert bus.dropped == 0
    # The bad messages are kept unchanged.
    store = Store(folder / "data" / "spools" / "bus-0.db")
    kept = {((r.key or b"").decode(), r.value) for r in store.read_from("quarantine", 0, 0)}
    store.close()
    assert kept == {(reason, pack(parts)) for reason, messages in HOSTILE.items() for parts in messages}


HEAD = [b"", b"VIP1", b"", b"p", b"pubsub", b"publish"]
HOSTILE = {
    "frames": [HEAD, [*HEAD, b"devices/a"], [b"x"], [b"", b"VIP9", *HEAD[2:], b"devices/a", b"{}"]],
    "not_json": [
        [*HEAD, b"devices/a", b"{'a'}"],
        [*HEAD, b"devices/a", b"\xff\xfe"],
        [*HEAD, b"devices/a", b""],
    ],
}


@pytest.mark.parametrize(
    ("case", "reason"), [("malformed VIP frames", "frames"), ("non-JSON bodies", "not_json")]
)
def test_invalid_frames_are_quarantined_raw_and_reported_and_their_neighbours_arrive(pipeline, case, reason):
    for parts in HOSTILE[reason]:
        pipeline.neighbour()
        pipeline.bus.deliver("tieline", parts)
    pipeline.neighbour()
    ledger = pipeline.arrived()
    assert ledger["bus"]["counters"][f"quarantined.{reason}"] == len(HOSTILE[reason])
    path = pipeline.worker.folder / "data" / "spools" / "bus-0.db"
    (sentence,) = pipeline.logged(f"what cannot be used ({reason})")  # once, not for each message
    assert f"quarantine of {path}" in sentence
    assert "tieline status" in sentence


@pytest.mark.parametrize(
    ("case", "body"),
    [
        ("NaN and infinities", [{"nan": math.nan, "up": math.inf, "down": -math.inf, "n": 0.5}, {}]),
        (
            "keys with $ and .",
            [{"$set": 1, "a.b": {"$where": "x", "": 2, ".": 3}, "$": 4}, {"$set": {"x.y": "C"}}],
        ),
        ("16 MB messages", [{"text": "x" * 15_500_000}, {}]),
    ],
    ids=["NaN and infinities", "keys with $ and .", "15.5 MB"],
)
def test_a_valid_message_that_looks_bad_arrives_unchanged_with_its_neighbours(pipeline, case, body):
    topic = f"devices/{case.replace(' ', '')}/all"
    pipeline.neighbour()
    pipeline.bus.publish(topic, {"$header": "a.b"}, body)
    pipeline.neighbour()
    pipeline.arrived(arriving=1)
    document = pipeline.collection.find_one({"topic": topic})
    assert json.dumps(document["message"]) == json.dumps(body)  # NaN is equal to NaN there
    assert document["headers"]["$header"] == "a.b"


def test_a_message_over_16_mb_is_dropped_counted_and_reported_and_its_neighbours_arrive(pipeline):
    pipeline.neighbour()
    pipeline.bus.publish("devices/large/all", {}, [{"text": "x" * (16 << 20)}, {}])
    pipeline.neighbour()
    ledger = pipeline.arrived()
    assert ledger["bus"]["counters"]["dropped.too_large"] == 1
    (sentence,) = pipeline.logged("devices/large/all")
    assert "larger than bus.max.message.bytes (16777216) and is dropped" in sentence


def test_a_message_that_the_log_rejects_stops_the_pump_and_stays_in_the_spool(tmp_path):
    """The source accepts it because of a larger ``bus.max.message.bytes``. Nothing after it is lost, and the
    reception continues."""
    settings = {"bus.max.message.bytes": str(40 << 20), "buffer.max.bytes": str(128 << 20)}
    with FakeRouter() as bus, WorkerProcess(tmp_path, {}, [bus_source(bus.address, **settings)]) as worker:
        bus.wait_for_subscriber("tieline")
        bus.publish("devices/a/all", {}, [{"n": 0}, {}])
        worker.wait_for_ledger(
            lambda ledger: ledger["bus"]["spool_records"] == 0 < ledger["bus"]["delivered"]
        )
        bus.publish("devices/large/all", {}, [{"text": "x" * (17 << 20)}, {}])
        worker.wait_for_ledger(lambda ledger: ledger["bus"]["state"] == "FAILED")
        bus.publish("devices/a/all", {}, [{"n": 1}, {}])
        ledger = worker.wait_for_ledger(lambda ledger: ledger["bus"]["counters"]["spooled"] == 3)
        assert worker.stop() == 1
    assert ledger["bus"]["spool_records"] == 2
    assert ledger["bus"]["trace"].startswith(
        "KAFKA_PRODUCE: the record of the connector bus for the topic bus at spool position 1 cannot be "
        "handled: "
    )
    assert "a record of 17826010 bytes; its max.message.bytes is 16777216" in ledger["bus"]["trace"]
    assert ledger["bus"]["trace"].endswith(
        "its batch and everything behind it wait where they are. "
        "Change the topic's settings, or filter the record with a transform"
    )


# -- records in a sink's topic

R = Schema.parse(
    '{"type":"record","name":"t.R","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"}]}'
)
BAD = {
    "unknown schema ids": (
        "VALUE_CONVERTER: the record unknown-0@3 cannot be handled: no schema has the id 4711; was it "
        "written with another registry?",
        "Correct the converter's settings",
    ),
    "truncated Avro": (
        "VALUE_CONVERTER: the record truncated-0@3 cannot be handled: ",
        "Correct the converter's settings",
    ),
    "documents over Mongo's limit": (
        "TASK_PUT: the record documents-0@3 cannot be handled: ",
        "Repair or remove the record, or filter it with a transform",
    ),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, mongo_uri):
    """A worker with a sink for each kind of bad record, each among six good ones, and with a neighbour.

    Return the ledger when all three have failed, the committed offsets, and the documents after an operator
    has applied the fix of each error and restarted the worker.
    """
    folder = tmp_path_factory.mktemp("stopped")
    log = LocalLog.open(folder / "data")
    avro = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=TopicSchemaStore(log))
    good = avro.serialize([Datum("t", {"n": n, "s": "text"}, R) for n in range(6)])
    truncated = avro.serialize([Datum("t", {"n": 9, "s": "cut"}, R)])[0]
    unknown = struct.pack(">bI", 0, 4711) + (good[0] or b"")[5:]
    noise = base64.b64encode(random.Random(1).randbytes(17 << 20)).decode()  # no compression saves it
    large = json.dumps({"n": 9, "text": noise}).encode()
    as_json = [b'{"n":%d}' % n for n in range(6)]
    topics: dict[str, list[bytes | None]] = {
        "unknown": [*good[:3], unknown, *good[3:]],
        "truncated": [*good[:3], (truncated or b"")[:-2], *good[3:]],
        "documents": [*as_json[:3], large, *as_json[3:]],
        "neighbour": good,
    }
    for topic, values in topics.items():
        log.create_topic(topic, partitions=1, config={"max.message.bytes": str(32 << 20)})
        keys = [b"bad" if index == 3 and len(values) == 7 else b"good" for index in range(len(values))]
        log.store.append(
            [ProducerRecord(topic, value, key, partition=0) for key, value in zip(keys, values, strict=True)]
        )
    log.close()
    sinks = {topic: mongo_sink(topic, topic, mongo_uri, "bad_records", layout="value") for topic in topics}
    sinks["documents"]["value.converter"] = "json"
    failed = set(topics) - {"neighbour"}

    with WorkerProcess(folder, {}, list(sinks.values())) as worker:
        ledger = worker.wait_for_ledger(
            lambda ledger: (
                all(ledger[name]["state"] == "FAILED" for name in failed)
                and ledger["neighbour"]["delivered"] == 6
            )
        )
        assert worker.stop() == 1
    log = LocalLog.open(folder / "data")
    committed = {topic: log.store.committed(f"connect-{topic}") for topic in topics}
    log.close()
    # The fixes: for two of them the command in the error, for the third a filter.
    for topic in ("unknown", "truncated"):
        command = shlex.split(ledger[topic]["trace"].rpartition("pass over the record: ")[2])
        assert command[:4] == ["tieline", "offsets", "set", topic]
        command[command.index("FILE")] = str(folder / "worker.json")
        subprocess.run([sys.executable, "-m", "tieline.cli.main", *command[1:]], check=True, timeout=60)
    sinks["documents"] |= {
        "transforms": "skip",
        "transforms.skip.type": "filter",
        "transforms.skip.key.regex": "bad",
    }
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(mongo_uri) as client:
        with WorkerProcess(folder, {}, list(sinks.values())) as worker:
            worker.wait_for_ledger(
                lambda ledger: all(ledger[n]["lag"] == ledger[n]["in_flight"] == 0 for n in topics)
            )
            assert worker.stop() == 0
        stored: dict[str, list[Any]] = {topic: list(client["bad_records"][topic].find()) for topic in topics}
        client.drop_database("bad_records")
    numbers = {topic: sorted(d["n"] for d in documents) for topic, documents in stored.items()}
    return ledger, committed, numbers


@pytest.mark.parametrize("case", BAD)
def test_a_record_that_can_never_be_handled_stops_its_sink_before_it_with_the_fix(stopped, case):
    ledger, committed, numbers = stopped
    topic = case.split()[0]
    problem, fix = BAD[case]
    assert ledger[topic]["trace"].startswith(problem)
    assert ledger[topic]["trace"].endswith(
        f"; everything before it is written and committed. {fix}; or stop the worker and pass over the "
        f"record: tieline offsets set {topic} --worker FILE --topic {topic} --partition 0 --to 4"
    )
    assert ledger[topic]["delivered"] == 3
    assert committed[topic] == {TopicPartition(topic, 0): 3}
    assert numbers[topic] == list(range(6))


def test_a_neighbour_of_sinks_that_stopped_continues(stopped):
    ledger, committed, numbers = stopped
    assert ledger["neighbour"]["state"] == "RUNNING"
    assert committed["neighbour"] == {TopicPartition("neighbour", 0): 6}
    assert numbers["neighbour"] == list(range(6))


def test_the_named_tests_exist():
    for place in (place for places in ELSEWHERE.values() for place in places):
        path, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), place
