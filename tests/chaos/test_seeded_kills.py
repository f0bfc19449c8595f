"""kill -9 of the worker, the broker and MongoDB at random moments under load; every message is counted.

The seed, which is in the test's name, decides the victims, the moments, how long each is down, and whether
the next one dies before it is back.
"""

import itertools
import random
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
import pytest

from tieline.api import ID_HEADER
from tieline.config.plan import check_plan
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab import kafka, mongo

PER_SECOND = 1000
DEVICES = 7
BATCH = 2000  # max.poll.records
MOST_MEMORY = 200 << 20

pytestmark = [pytest.mark.mongo, pytest.mark.seeds(1)]


class Kill(NamedTuple):
    """One kill of the schedule; times are in seconds."""

    victim: str
    after: float
    down: float
    next_goes_first: bool


def schedule(seed, victims, times):
    """Return a kill of each victim so many times, in random order."""
    dice = random.Random(seed)
    order = list(victims) * times
    dice.shuffle(order)
    return [Kill(v, dice.uniform(0.2, 1.5), dice.uniform(0, 1.0), dice.random() < 0.3) for v in order]


class Talk:
    """Publishes numbered messages until it is stopped."""

    def __init__(self, bus):
        self.published = 0
        self._bus = bus
        self._start = datetime.now(timezone.utc)  # a topic soon deletes old records
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        self._thread.join()

    def say(self, count):
        for number in range(self.published, self.published + count):
            time_stamp = self._start + timedelta(microseconds=number)
            headers = {"TimeStamp": time_stamp.isoformat(), "n": number}
            self._bus.publish(f"devices/campus/b/d{number % DEVICES}/all", headers, [{"n": number}, {}])
        self.published += count

    def _run(self):
        while not self._stop.wait(0.01):
            self.say(PER_SECOND // 100)


class Journey:
    """bus → spool → topic → MongoDB, on a broker (``None``: the local log) and its own MongoDB."""

    def __init__(self, folder, bus, server, broker=None):
        self.settings = {"data.dir": str(folder / "data"), "offset.flush.interval.ms": "100"}
        if broker is not None:
            self.settings |= {"bootstrap.servers": broker.bootstrap, "offset.storage.partitions": "1"}
        source = {
            "name": "bus",
            "connector.class": "volttron_bus",
            "volttron.address": bus.address,
            "volttron.identity": "tieline",
            "platform.name": "lab",
            "bus.prefixes": "devices",
            "topic": "readings",
            "topic.creation.default.partitions": "2",
            "errors.retry.delay.max.ms": "1000",
        }
        sink = {
            "name": "mongo",
            "connector.class": "mongo",
            "topics": "readings",
            "connection.uri": server.uri,
            "database": "lab",
            "collection": "readings",
            "layout": "cloudagent",
            "consumer.override.group.instance.id": "mongo",
            "errors.retry.delay.max.ms": "1000",
        }
        self.worker = WorkerProcess(folder, self.settings, [source, sink])
        self.victims: dict[str, Any] = {"worker": self.worker, "mongo": server, "broker": broker}
        self.waiting: list[set[str]] = []
        self.memory: list[int] = []
        self._spools = folder / "data" / "spools"
        self._uri = server.uri

    def run(self, kills):
        down: list[str] = []
        for kill in kills:
            time.sleep(kill.after)  # this and the next are random moments; they wait for nothing
            if kill.victim in down:
                self._bring_back(down)
            self._kill(kill.victim)
            down.append(kill.victim)
            if not kill.next_goes_first:
                time.sleep(kill.down)
                self._bring_back(down)
        self._bring_back(down)

    def wait_until_through(self, published):
        """Wait until the last message of each device, and so every earlier one, is stored and committed."""
        last = {"headers.n": {"$gte": published - DEVICES}}
        end = time.monotonic() + 60
        with pymongo.MongoClient[dict[str, Any]](self._uri) as client:
            while True:
                self.worker.wait_for_ledger(
                    lambda ledger: (
                        ledger["bus"]["spool_records"] == 0
                        and ledger["mongo"]["lag"] == 0
                        and ledger["mongo"]["in_flight"] == 0
                    )
                )
                if client["lab"]["readings"].count_documents(last) == DEVICES:  # a slow scan
                    return
                assert time.monotonic() < end, "nothing is in flight, and the last messages are missing"

    def look(self):
        """Note the worker's peak memory in bytes: RSS, which is more than PSS."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        self.memory.append(int(status.split("\nVmHWM:")[1].split()[0]) << 10)

    def in_topic(self):
        """Count the records of each identity in the topic. The worker must have ended."""
        patient = {"task.shutdown.graceful.timeout.ms": "120000"}  # a call may take a quarter of this
        broker = open_broker(check_plan("test", {**self.settings, **patient}, []))
        ids: Counter[str] = Counter()
        broker.read("readings", lambda record: ids.update([identity_of(record)]))
        broker.close()
        return ids

    def in_mongo(self):
        """Return the number of each document by its ``_id``."""
        with pymongo.MongoClient[dict[str, Any]](self._uri) as client:
            documents = client["lab"]["readings"].find({}, {"headers.n": 1})
            return {document["_id"]: document["headers"]["n"] for document in documents}

    def _kill(self, victim):
        if victim == "worker":
            self.look()
        self.victims[victim].kill()
        if victim == "worker":
            self.waiting.append(self._in_spool())

    def _bring_back(self, down):
        while down:
            self.victims[down.pop()].start()

    def _in_spool(self):
        """Return the identities of the records that a dead worker left in its spools."""
        ids: set[str] = set()
        for path in self._spools.glob("*.db"):
            spool = Spool(path, Limits(1 << 40, True, 0), Counters())
            batch, position, *_ = spool.read(spool.start, BATCH, 0)
            while batch:
                ids |= {identity_of(record) for record in batch}
                batch, position, *_ = spool.read(position, BATCH, 0)
            spool.close()
        return ids


def identity_of(record):
    return dict(record.headers)[ID_HEADER].decode()


def gaps(numbers):
    """Count the gaps in a sequence of numbers."""
    return sum(b - a > 1 for a, b in itertools.pairwise(sorted(numbers)))


def check(journey, bus, kills):
    """Run the schedule, and check that every record that was ever in the spool is stored once."""
    with journey.worker:
        journey.worker.wait_for("subscribed")
        with Talk(bus) as talk:
            journey.run(kills)
            journey.worker.wait_for("subscribed")
        talk.say(DEVICES)
        journey.wait_until_through(talk.published)
        journey.look()
        assert journey.worker.stop() == 0
    topic, documents = journey.in_topic(), journey.in_mongo()
    deaths = len(journey.waiting)
    doubled = Counter({record: count - 1 for record, count in topic.items() if count > 1})
    megabytes = [size >> 20 for size in journey.memory]
    print(f"{len(kills)} kills, {talk.published} published, {len(documents)} documents")
    print(f"{doubled.total()} twice in the topic, {deaths} deaths of the worker, its memory {megabytes} MB")
    assert bus.dropped == 0
    assert topic.keys() == documents.keys()
    assert topic.keys() >= set().union(*journey.waiting)
    # Each life of the worker receives every message from its first to its last; a gap is between two lives.
    numbers = list(documents.values())
    assert len(set(numbers)) == len(numbers)
    assert (min(numbers), max(numbers)) == (0, talk.published - 1)
    assert gaps(numbers) <= deaths
    # Only records whose acknowledgement a killed worker had not seen or saved are duplicates in the topic.
    assert doubled.keys() <= set().union(*journey.waiting)
    assert doubled.total() <= deaths * BATCH
    assert max(journey.memory) < MOST_MEMORY


@pytest.fixture
def server(tmp_path):
    if reason := mongo.why_not():
        pytest.skip(reason)
    with mongo.MongoServer(tmp_path / "mongo") as server:
        yield server


@pytest.mark.kafka
def test_worker_broker_and_mongo_are_killed_a_dozen_times_and_every_message_is_stored_once(
    seed, tmp_path, server
):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path / "kafka") as broker, FakeRouter() as bus:
        journey = Journey(tmp_path, bus, server, broker)
        check(journey, bus, schedule(seed, journey.victims, 4))


def test_on_the_local_log_worker_and_mongo_are_killed_and_every_message_is_stored_once(
    seed, tmp_path, server
):
    with FakeRouter() as bus:
        check(Journey(tmp_path, bus, server), bus, schedule(seed, ("worker", "mongo"), 3))
