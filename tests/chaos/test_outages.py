"""Outages of the registry, the broker, MongoDB and the link to the platform, under load, on real servers.

Each outage exceeds a limit: MongoDB's is longer than ``max.poll.interval.ms``, and during Kafka's more data
arrives than may be in memory. Reception continues, the group keeps its member and its generation, memory
does not grow, and every message is counted.
"""

import json
import os
import re
import struct
import threading
import time
import uuid
from collections import defaultdict
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import psutil
import pymongo
import pytest
from confluent_kafka.admin import AdminClient

from tieline.broker.records import ConsumedRecord
from tieline.config.plan import check_plan
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.worker.factory import open_broker
from tieline.testing.proxy import TcpProxy
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab.process import free_port

pytest.importorskip("confluent_kafka.schema_registry", reason="the extra 'registry' is not installed")
pytestmark = [pytest.mark.kafka, pytest.mark.mongo]

POLL_INTERVAL = 10.0
OUTAGE = 25.0
DEVICES = 7
FILLER = "x" * 4_000
START = datetime.now(timezone.utc)


@contextmanager
def registry(port, schemas):
    """A schema registry with two of Confluent's calls; its schemas stay in ``schemas`` when it stops."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
            if text not in schemas:
                schemas.append(text)
            self.answer({"id": schemas.index(text) + 1})

        def do_GET(self):
            self.answer({"schema": schemas[int(self.path.partition("?")[0].rpartition("/")[2]) - 1]})

        def answer(self, content):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def message(number, filler=""):
    # The present time: Kafka's retention, and how long it knows a producer, depend on records' timestamps.
    time = START + timedelta(milliseconds=number)
    topic = f"devices/campus/b/d{number % DEVICES}/all"
    return topic, {"TimeStamp": time.isoformat()}, [{"n": number, "filler": filler}, {}]


def bus_source(topic, address, **settings):
    return {
        "name": "bus",
        "connector.class": "volttron_bus",
        "volttron.address": address,
        "volttron.identity": "tieline",
        "platform.name": "lab",
        "ping.interval.ms": "500",
        "ping.timeout.ms": "500",
        "topic": topic,
        "topic.creation.default.partitions": "3",
        **settings,
    }


def mongo_sink(topic, uri, database, **settings):
    return {
        "name": "mongo",
        "connector.class": "mongo",
        "topics": topic,
        "connection.uri": uri,
        "server.selection.timeout.ms": "500",
        "database": database,
        "collection": "readings",
        "layout": "cloudagent",
        "errors.retry.delay.max.ms": "2000",
        **settings,
    }


def spooled(ledger):
    return ledger["bus"]["counters"].get("spooled", 0)


def members(bootstrap, group):
    """Return a group's state and its members' ids; a member that rejoins gets another id."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    description = client.describe_consumer_groups([group])[group].result(10)
    return description.state.name, sorted(member.member_id for member in description.members)


def open_kafka(server, folder):
    return open_broker(
        check_plan("test", {"bootstrap.servers": server.bootstrap, "data.dir": str(folder)}, [])
    )


def records_of(broker, topic):
    """Return the records of a topic; retry while the broker starts."""

    def read():
        records: list[ConsumedRecord] = []
        broker.read(topic, records.append)
        return records

    return TaskEnvironment("look", 0).retry(Stage.KAFKA_CONSUME, read)


def generation(broker, group):
    """Return the group's generation, which grows with every rebalance, from Kafka's own topic."""
    generations = [0]
    for record in records_of(broker, "__consumer_offsets"):
        # key: version (2: a group's metadata), name; value: version, protocol type, generation, …
        if record.key[:2] == b"\0\2" and record.key[4:] == group.encode() and record.value:
            (length,) = struct.unpack_from(">h", record.value, 2)
            generations.append(struct.unpack_from(">i", record.value, 4 + length)[0])
    return generations[-1]


def numbers_by_key(broker, topic):
    """Return each device's numbers in a topic, in order."""
    numbers = defaultdict(list)
    for record in records_of(broker, topic):
        text = record.value.replace(b'\\"', b'"')  # a body that is not a reading is stored as JSON text
        numbers[record.key].append(int(re.split(rb"[,}]", text.partition(b'"n":')[2])[0]))
    return numbers


def logged_outages(worker, stage):
    """Return the worker's messages about outages in a stage."""
    return [e["event"] for e in worker.events if e.get("stage") == stage]


def memory(worker):
    return psutil.Process(worker.pid).memory_info().rss


class Publisher:
    """Publishes consecutive numbers at a steady rate until it stops; ``sent`` has the published ones."""

    def __init__(self, bus, first, rate=250):
        self.sent, self._bus, self._rate, self._next = [], bus, rate, first
        self._stop = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(10 / self._rate):
            for _ in range(10):
                self._bus.publish(*message(self._next, FILLER))
                self.sent.append(self._next)
                self._next += 1


def test_a_sink_keeps_its_partitions_during_an_outage_longer_than_the_poll_interval(
    own_kafka, own_mongo, tmp_path
):
    """MongoDB is down for 25 s. Meanwhile the registry is down, and the connection to the platform hangs."""
    topic, registry_port = "waits", free_port()
    schemas: list[str] = []
    url = f"http://127.0.0.1:{registry_port}"
    with FakeRouter() as bus, TcpProxy("127.0.0.1", int(bus.address.rpartition(":")[2])) as proxy:
        worker = WorkerProcess(
            tmp_path,
            {
                "bootstrap.servers": own_kafka.bootstrap,
                "offset.storage.topic": f"offsets-{topic}",
                "offset.storage.partitions": "1",
                "schema.registry.url": url,
            },
            [
                bus_source(topic, f"tcp://127.0.0.1:{proxy.port}"),
                mongo_sink(
                    topic,
                    own_mongo.uri,
                    topic,
                    **{
                        "consumer.override.max.poll.interval.ms": str(int(POLL_INTERVAL * 1000)),
                        "consumer.override.session.timeout.ms": "6000",
                    },
                ),
            ],
        )
        with worker:
            # The registry is unavailable from the start: received messages wait in the spool.
            bus.wait_for_subscriber("tieline")
            for number in range(100):
                bus.publish(*message(number))
            ledger = worker.wait_for_ledger(
                lambda ledger: spooled(ledger) == 100 and logged_outages(worker, "VALUE_CONVERTER")
            )
            assert ledger["bus"]["delivered"] == 0
            with registry(registry_port, schemas):
                worker.wait_for_ledger(lambda ledger: ledger["mongo"]["delivered"] == 100)
            # It is unavailable again: known schemas do not need it, a new one waits for it (below).
            look = open_kafka(own_kafka, tmp_path / "look")
            before = members(own_kafka.bootstrap, "connect-mongo"), generation(look, "connect-mongo")
            joined = [e for e in worker.events if e["event"].startswith("partitions ")]

            own_mongo.kill()
            down_since = time.monotonic()
            with Publisher(bus, 100) as first:
                worker.wait_for_ledger(lambda ledger: ledger["bus"]["delivered"] > 1_100)
            memory_before = memory(worker)
            worker.wait_for_ledger(lambda ledger: spooled(ledger) == 100 + len(first.sent))

            # The connection hangs: neither end notices, and what is published into it is lost.
            proxy.freeze()
            hangs_since = time.monotonic()
            for number in range(50_000, 50_010):
                bus.publish(*message(number))
            bus.wait_for_subscriber("tieline.2")
            noticed = time.monotonic() - hangs_since
            ledger = worker.wait_for_ledger(lambda ledger: ledger["bus"]["counters"].get("reconnects"))
            assert ledger["bus"]["counters"]["reconnects"] == 1
            assert noticed < 10, noticed  # by ping.interval.ms and ping.timeout.ms; otherwise never

            with Publisher(bus, first.sent[-1] + 1) as second:
                # a message of another kind has a schema that the registry does not know yet
                bus.publish("analysis/report", {"TimeStamp": START.isoformat()}, "new")
                worker.wait_for_ledger(
                    lambda _: time.monotonic() - down_since > OUTAGE, timeout=OUTAGE + POLL_INTERVAL
                )
            total = 100 + len(first.sent) + len(second.sent) + 1
            ledger = worker.wait_for_ledger(lambda ledger: spooled(ledger) == total)
            memory_after = memory(worker)
            received = (total - 1_100) * len(FILLER)
            growth = memory_after - memory_before
            print(f"{received >> 20} MB in {OUTAGE:g} s, memory grew by {growth >> 20} MB")
            assert received > 10 << 20
            assert growth < 24 << 20

            # No rebalance happened.
            assert ledger["mongo"]["delivered"] == 100
            assert ledger["mongo"]["state"] == "RUNNING"
            assert [e for e in worker.events if e["event"].startswith("partitions ")] == joined
            after = members(own_kafka.bootstrap, "connect-mongo"), generation(look, "connect-mongo")
            assert after == before
            print(f"the group before and after: {before}")

            own_mongo.start()
            with registry(registry_port, schemas):
                worker.wait_for_ledger(
                    lambda ledger: (
                        ledger["bus"]["spool_records"] == 0
                        and ledger["mongo"]["delivered"] == total
                        and ledger["mongo"]["in_flight"] == 0
                    )
                )
            assert [e for e in worker.events if e["event"].startswith("partitions ")] == joined
            assert generation(look, "connect-mongo") == before[1] > 0
            look.close()
            assert worker.stop() == 0
        assert bus.dropped == 0
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(own_mongo.uri) as client:
        documents: list[Any] = list(
            client[topic]["readings"].find({}, {"topic": 1, "message.n": 1}, sort=[("$natural", 1)])
        )
    sent = [*range(100), *first.sent, *second.sent]
    assert len(documents) == len(sent) + 1
    by_device = defaultdict(list)
    for document in documents:
        if document["topic"] != "analysis/report":
            by_device[document["topic"]].append(document["message"][0]["n"])
    assert len(by_device) == DEVICES
    for numbers in by_device.values():  # complete, and in the device's order
        assert numbers == [n for n in sent if n % DEVICES == numbers[0] % DEVICES]


@pytest.fixture(scope="module")
def killed(own_kafka, mongo_uri, tmp_path_factory):
    """The broker is killed under load, and one partition loses its last batch, which it had acknowledged.

    The source ``bus`` has the load, and ``torn`` the torn partition. Return what was delivered and logged.
    """
    folder = tmp_path_factory.mktemp("killed")
    database = f"killed_{uuid.uuid4().hex[:8]}"
    worker = {
        "bootstrap.servers": own_kafka.bootstrap,
        "offset.storage.topic": "offsets-killed",
        "offset.storage.partitions": "1",
        "value.converter": "json",
    }
    with FakeRouter() as bus:
        torn = bus_source("torn", bus.address, **{"topic.creation.default.partitions": "1"})
        torn |= {"name": "torn", "volttron.identity": "torn", "bus.prefixes": "analysis"}
        loaded = bus_source("killed", bus.address, **{"producer.in.flight.bytes": str(1 << 20)})
        loaded |= {"bus.prefixes": "devices"}
        sink = mongo_sink("killed", mongo_uri, database)

        def report(numbers):
            for number in numbers:
                bus.publish(f"analysis/{number % DEVICES}", message(number)[1], {"n": number, "of": "torn"})

        def settled(ledger, number):
            return ledger["torn"]["delivered"] == number and ledger["torn"]["spool_records"] == 0

        with WorkerProcess(folder, worker, [torn, loaded, sink]) as process:
            bus.wait_for_subscriber("tieline")
            bus.wait_for_subscriber("torn")
            report(range(200))
            process.wait_for_ledger(lambda ledger: settled(ledger, 200))
            report([200])
            process.wait_for_ledger(lambda ledger: settled(ledger, 201))
            with Publisher(bus, 0, rate=2_500) as publisher:
                process.wait_for_ledger(lambda ledger: ledger["mongo"]["delivered"] > 500)
                own_kafka.kill()
                (segment,) = (own_kafka.work / "data" / "torn-0").glob("*.log")
                os.truncate(segment, segment.stat().st_size - 1)  # its last batch, so 200 alone
                at_kill = len(publisher.sent)
                process.wait_for_ledger(lambda ledger: spooled(ledger) > at_kill + 500)
                report(range(201, 1_000))
                memory_before = memory(process)
                waiting = process.wait_for_ledger(lambda ledger: spooled(ledger) > at_kill + 7_000)
                memory_after = memory(process)
            total = len(publisher.sent)
            own_kafka.start()
            process.wait_for_ledger(
                lambda ledger: (
                    ledger["bus"]["spool_records"] == 0
                    and ledger["mongo"]["delivered"] >= total
                    and settled(ledger, 1_000)
                )
            )
            assert process.stop() == 0
        assert bus.dropped == 0
    look = open_kafka(own_kafka, folder / "look")
    topics = {topic: numbers_by_key(look, topic) for topic in ("killed", "torn")}
    look.close()
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(mongo_uri) as client:
        documents: list[Any] = list(client[database]["readings"].find({}, {"message.n": 1}))
        client.drop_database(database)
    return SimpleNamespace(
        total=total,
        waiting=waiting,
        growth=(memory_after - memory_before) >> 20,
        topics=topics,
        stored=sorted(document["message"][0]["n"] for document in documents),
        outages=logged_outages(process, "KAFKA_PRODUCE"),
    )


def test_a_broker_killed_under_load_loses_no_message_and_changes_neither_order_nor_memory(killed):
    waited = killed.waiting["bus"]["spool_bytes"] >> 20
    print(f"{waited} MB waited in the spool, memory grew by {killed.growth} MB")
    assert waited > 25
    assert killed.growth < 15  # MB, while more than 25 waited
    assert {connector["state"] for connector in killed.waiting.values()} == {"RUNNING"}
    by_key = killed.topics["killed"]
    assert len(by_key) == DEVICES
    for device, numbers in enumerate(sorted(by_key.values())):
        assert numbers == list(range(device, killed.total, DEVICES))
    assert killed.stored == list(range(killed.total))


def test_a_fatal_error_of_the_producer_loses_no_unacknowledged_record(killed):
    """A broker that lost acknowledged records, as after a power failure, rejects the producer's next sequence
    number. The producer cannot recover, and is replaced.
    """
    assert "OUT_OF_ORDER_SEQUENCE_NUMBER" in killed.outages[0]
    by_key = killed.topics["torn"]
    for numbers in by_key.values():
        assert numbers == sorted(numbers)
    assert sorted(n for numbers in by_key.values() for n in numbers) == [n for n in range(1_000) if n != 200]
