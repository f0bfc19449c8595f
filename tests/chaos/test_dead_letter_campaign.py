"""One record in a thousand is bad while worker, broker and stores fail at random: everything is counted.

Two sources (a file that can be read again, and a spooled one) fill a topic that two sinks read (MongoDB and a
file). Records fail in transforms, converters, at the broker and in ``put``; others are filtered. On Kafka a
second worker joins and leaves the groups of the sinks. In the end received = delivered + dead-lettered +
filtered, and the sets of records are exact.

``TIELINE_TEST_CHAOS_SECONDS``: how long faults come, at least one of each kind; `make chaos` sets it.
"""

import itertools
import json
import os
import random
import shutil
import signal
import threading
import time
import uuid
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pymongo
import pytest
from confluent_kafka import Consumer, TopicPartition

from tieline.config.plan import check_plan
from tieline.dead_letters.record import read_letter
from tieline.plugins.unpackaged import write_entry_points
from tieline.runtime.worker.factory import open_broker
from tieline.testing.proxy import TcpProxy
from tieline.testing.worker_process import WorkerProcess
from tieline_lab import kafka, mongo

CONNECTORS = Path(__file__).with_name("campaign_connectors.py")
SECONDS = float(os.environ.get("TIELINE_TEST_CHAOS_SECONDS", "8"))
PER_SECOND = 500  # lines of each file
BAD, FILTERED = 1000, 50  # one record in so many
MOST_LINES = 200  # that a kill can make the spooled source receive twice
SOURCE_BAD = ["source_transform", "source_converter"]
SINK_BAD = ["sink_converter", "sink_transform", "put"]
STAGES = {
    "source_transform": "TRANSFORMATION",
    "source_converter": "VALUE_CONVERTER",
    "too_large": "KAFKA_PRODUCE",
    "sink_converter": "VALUE_CONVERTER",
    "sink_transform": "TRANSFORMATION",
    "put": "TASK_PUT",
}
LETTERS = {"errors.tolerance": "all", "errors.deadletterqueue.topic.name": "letters"}
NUMBERED = {"n": {"$exists": True}}
PARTITIONS = 3  # on Kafka, where two workers share them
SOURCES, SINKS = ("file", "spooled"), ("store", "append")

pytestmark = [pytest.mark.mongo, pytest.mark.seeds(1)]


class Writer:
    """Appends lines to the files of both sources until it is stopped; ``kinds`` has each line's kind."""

    def __init__(self, folder, seed, bad):
        self.kinds: dict[str, dict[int, str]] = {"file": {}, "spooled": {}}
        self._files = {name: (folder / f"{name}.txt").open("a", encoding="ascii") for name in self.kinds}
        self._dice = random.Random(seed)
        self._bad = itertools.cycle(bad)
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join()

    def finish(self):
        """Stop, and end both files with a good line. Return the numbers of these lines."""
        self.stop()
        last = [self._write(name, "good") for name in self.kinds]
        for file in self._files.values():
            file.close()
        return last

    def _run(self):
        while not self._stop.wait(0.02):
            for name, _ in itertools.product(self.kinds, range(PER_SECOND // 50)):
                self._write(name, self._kind())
            for file in self._files.values():
                file.flush()

    def _kind(self):
        if self._dice.random() < 1 / BAD:
            return next(self._bad)
        if self._dice.random() < 1 / FILTERED:
            return self._dice.choice(["source_filter", "sink_filter"])
        return "good"

    def _write(self, name, kind):
        number = next(self._numbers)
        self.kinds[name][number] = kind
        self._files[name].write(f"{number} {kind}\n")
        return number


class Campaign:
    """The worker, its stores and its broker (``None``: the local log), and the faults of all."""

    def __init__(self, folder, server, proxy, broker):
        self.topic = f"numbers-{uuid.uuid4().hex[:8]}"
        self.settings = {"data.dir": str(folder / "data")}
        if broker is not None:
            self.settings |= {"bootstrap.servers": broker.bootstrap, "offset.storage.partitions": "1"}
        plugin = folder / "plugin"
        groups = {
            "tieline.sources": {"tail": f"{CONNECTORS.stem}:TailSource"},
            "tieline.sinks": {"append": f"{CONNECTORS.stem}:AppendSink"},
            "tieline.transforms": {
                "to_json": f"{CONNECTORS.stem}:ToJson",
                "checked": f"{CONNECTORS.stem}:Checked",
            },
        }
        write_entry_points(plugin, "campaign", groups)
        shutil.copy(CONNECTORS, plugin)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]),
            "CAMPAIGN_FOLDER": str(folder),
            "CAMPAIGN_TOPIC": self.topic,
        }
        connectors = self._connectors(proxy)
        self.worker = WorkerProcess(folder, self.settings, connectors, environment=environment)
        (folder / "second").mkdir()
        self.second = WorkerProcess(
            folder / "second",
            {**self.settings, "data.dir": str(folder / "second" / "data")},
            [
                {**each, "consumer.override.group.instance.id": f"{each['name']}-2"}
                for each in connectors
                if each["name"] in SINKS
            ],
            environment={**environment, "CAMPAIGN_FOLDER": str(folder / "second")},
        )
        self._folder, self._uri, self._broker, self._proxy = folder, server.uri, broker, proxy
        self._server = server
        self.faults = [self._kill_worker, self._kill_store, self._cut_store, self._file_outage]
        if broker is not None:
            self.faults += [self._kill_broker, self._pause_broker, self._rebalance]
        self.counts: Counter[str] = Counter()

    def run(self, dice, seconds):
        """Let each fault come once in random order, and so again until the time is over."""
        end = time.monotonic() + seconds
        while True:
            for fault in dice.sample(self.faults, len(self.faults)):
                time.sleep(dice.uniform(0.2, 1.5))  # a random moment; it waits for nothing
                fault(dice)
                self.counts[fault.__name__] += 1
                if dice.random() < 0.2:  # the worker has just begun to recover
                    self._kill_worker(dice)
                    self.counts["_kill_worker"] += 1
                if time.monotonic() > end and len(self.counts) == len(self.faults):
                    return

    def wait_until_through(self, last):
        """Wait until the last line of each file is stored and committed, and so all lines before them."""
        with pymongo.MongoClient[dict[str, Any]](self._uri) as client:
            collection = client["lab"]["numbers"]

            def through(ledger):
                received = [ledger[sink]["totals"]["received"] for sink in SINKS]
                return (
                    (self._broker is None or received == [self._written()] * len(SINKS))
                    and ledger["spooled"]["spool_records"] == 0
                    and all(ledger[sink]["lag"] == 0 and ledger[sink]["in_flight"] == 0 for sink in SINKS)
                    and collection.count_documents({"n": {"$in": last}}) == len(last)
                )

            self.worker.wait_for_ledger(through, timeout=120.0)

    def read(self):
        """Return the values of the topic by position, and all dead letters. The worker must have ended."""
        patient = {"task.shutdown.graceful.timeout.ms": "120000"}  # a call may take a quarter of this
        broker = open_broker(check_plan("test", {**self.settings, **patient}, []))
        values: dict[str, bytes] = {}
        letters: list[Any] = []
        try:
            broker.read(
                self.topic,
                lambda r: values.update({f"{r.topic}-{r.partition}@{r.offset}": r.value or b""}),
                timeout=300.0,
            )
            broker.read("letters", lambda record: letters.append(read_letter(record)), timeout=300.0)
        finally:
            broker.close()
        return values, letters

    def _written(self):
        """Return how many records the topic on Kafka has. A worker that owns all partitions received all."""
        client = Consumer({"bootstrap.servers": self._broker.bootstrap, "group.id": "campaign"})
        places = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        try:
            return sum(client.get_watermark_offsets(place, timeout=10.0)[1] for place in places)
        finally:
            client.close()

    def stored(self):
        """Return how often each number is stored by each sink."""
        with pymongo.MongoClient[dict[str, Any]](self._uri) as client:
            documents = Counter(d["n"] for d in client["lab"]["numbers"].find(NUMBERED, {"n": 1}))
        appended: Counter[int] = Counter()
        for path in self._folder.glob("**/appended.txt"):
            appended.update(int(line) for line in path.read_text("utf-8").split())
        return {"store": documents, "append": appended}

    def log(self):
        logs = [path.read_text("utf-8").splitlines() for path in self._folder.glob("**/worker.log")]
        return [json.loads(line) for lines in logs for line in lines]

    def _connectors(self, proxy):
        sources: list[dict[str, str]] = [
            {"name": "file", "connector.class": "file", "file": f"{self.settings['data.dir']}/../file.txt"},
            {"name": "spooled", "connector.class": "tail"},
        ]
        for source in sources:
            if "bootstrap.servers" in self.settings:
                source["topic.creation.default.partitions"] = str(PARTITIONS)
            source |= {"value.converter": "string", "transforms": "json", "transforms.json.type": "to_json"}
        sources[0]["topic"] = self.topic
        sinks: list[dict[str, str]] = [
            {
                "name": "store",
                "connector.class": "mongo",
                "connection.uri": f"mongodb://127.0.0.1:{proxy.port}",
                "server.selection.timeout.ms": "500",
                "socket.timeout.ms": "1000",
                "database": "lab",
                "collection": "numbers",
                "layout": "value",
            },
            {"name": "append", "connector.class": "append"},
        ]
        for sink in sinks:
            sink |= {
                "topics": self.topic,
                "value.converter": "json",
                "transforms": "checked",
                "transforms.checked.type": "checked",
                "consumer.override.group.instance.id": sink["name"],
                "consumer.override.session.timeout.ms": "6000",  # the shortest that a broker permits
            }
        return [{**each, **LETTERS, "errors.retry.delay.max.ms": "1000"} for each in sources + sinks]

    def _kill_worker(self, dice):
        self.worker.kill()
        time.sleep(dice.uniform(0, 0.5))
        self.worker.start()

    def _rebalance(self, dice):
        """Let the second worker join the groups, or leave them in one of two ways."""
        if not self.second.running:
            self.second.start()
            self.second.wait_for("started")  # before that, SIGTERM would just end it
        elif dice.random() < 0.5:
            self.second.kill()
        else:
            assert self.second.stop() == 0

    def _kill_store(self, dice):
        self._server.kill()
        time.sleep(dice.uniform(0, 1.0))
        self._server.start()

    def _cut_store(self, dice):
        self._proxy.refuse()
        time.sleep(dice.uniform(0, 1.5))
        self._proxy.accept()

    def _file_outage(self, dice):
        (self._folder / "outage").touch()
        time.sleep(dice.uniform(0.2, 1.5))
        (self._folder / "outage").unlink()

    def _kill_broker(self, dice):
        self._broker.kill()
        time.sleep(dice.uniform(0, 1.0))
        self._broker.start()

    def _pause_broker(self, dice):
        self._broker.process.signal(signal.SIGSTOP)
        time.sleep(dice.uniform(0.2, 2.0))
        self._broker.process.signal(signal.SIGCONT)


def number_of(value):
    """Return the number in a record of the topic, and its kind."""
    text = value.decode("utf-8", "surrogatepass")
    if text.startswith("no JSON "):
        return int(text.rpartition(" ")[2]), "sink_converter"
    content = json.loads(text)
    return content["n"], content["kind"]


def check_sources(kinds, numbers, letters, kills):
    """Each line is in the topic or a letter or filtered, as its kind says; the file's letters come once."""
    bad = {*SOURCE_BAD, "too_large"}
    for source in SOURCES:
        by_number = defaultdict(set)
        for letter in letters:
            if letter.connector == source:
                number, kind = letter.value.decode("utf-8", "replace").split()
                assert (letter.cause.stage, kind) == (STAGES[kind], kinds[source][int(number)])
                by_number[int(number)].add(letter.id)
        assert sorted(by_number) == sorted(n for n, kind in kinds[source].items() if kind in bad)
        again = sum(len(ids) - 1 for ids in by_number.values())
        assert again <= (kills * MOST_LINES if source == "spooled" else 0)
        arriving = {n for n, kind in kinds[source].items() if kind not in (*bad, "source_filter")}
        assert numbers[source] == arriving


def check_spool(ledger, kinds, letters, kills):
    """The durable ledger of the spooled source counts each line from the spool on."""
    totals = ledger["totals"]
    ended = sum(totals[part] for part in ("delivered", "dead_lettered", "filtered"))
    assert (totals["received"], totals["in_flight"], totals["mismatch"]) == (ended, 0, 0)
    assert 0 <= totals["received"] - len(kinds) <= kills * MOST_LINES
    assert totals["dead_lettered"] == len({each.id for each in letters if each.connector == "spooled"})


def check_sink(sink, ledger, kinds, stored, letters):
    """Each record of the topic was stored or is a letter or filtered, and the durable ledger says so.

    ``kinds``: number and kind of each record of the topic, by position.
    """
    bad = {f"{sink}:{position}" for position, (_, kind) in kinds.items() if kind in SINK_BAD}
    own = [letter for letter in letters if letter.connector == sink]
    assert {letter.id for letter in own} == bad
    for letter in own:
        number, kind = kinds[letter.id.partition(":")[2]]
        assert number_of(letter.value) == (number, kind)
        assert letter.cause.stage == STAGES[kind]
    good = {number for number, kind in kinds.values() if kind == "good"}
    assert stored.keys() == good
    number = Counter(
        "dead_lettered" if kind in SINK_BAD else "filtered" if kind == "sink_filter" else "delivered"
        for _, kind in kinds.values()
    )
    totals = {key: ledger["totals"][key] for key in ("received", "in_flight", "mismatch", *number)}
    assert totals == {"received": len(kinds), "in_flight": 0, "mismatch": 0, **number}


def check_log(lines):
    """At every moment of every life the numbers added up, and no task failed."""
    parts = ("delivered", "dead_lettered", "filtered", "in_flight")
    for line in lines:
        assert "task failed" not in line["event"], line
        for name, ledger in line.get("ledger", {}).items():
            assert ledger["received"] == sum(ledger[part] for part in parts), (name, ledger)
            totals = ledger.get("totals", {"received": 0, **dict.fromkeys(parts, 0)})
            assert totals["received"] == sum(totals[part] for part in parts), (name, totals)
            assert totals.get("mismatch", 0) == 0, (name, totals)


def run(folder, seed, server, broker=None):
    dice = random.Random(seed)
    bad = SOURCE_BAD + SINK_BAD + (["too_large"] if broker is not None else [])
    with TcpProxy("127.0.0.1", server.port) as proxy, ExitStack() as stack:
        for name in SOURCES:
            (folder / f"{name}.txt").touch()
        with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
            client["lab"]["numbers"].insert_one({"_id": "taken", "_digest": "first"})
        campaign = Campaign(folder, server, proxy, broker)
        writer = Writer(folder, seed, dice.sample(bad, len(bad)))
        stack.callback(writer.stop)
        with campaign.worker as worker:
            stack.callback(lambda: campaign.second.running and campaign.second.kill())
            campaign.run(dice, SECONDS)
            last = writer.finish()
            if campaign.second.running:
                assert campaign.second.stop() == 0
            campaign.wait_until_through(last)
            assert worker.stop() == 0
        values, letters = campaign.read()
        stored = campaign.stored()
    kinds = {position: number_of(value) for position, value in values.items()}
    source_of = {number: source for source in SOURCES for number in writer.kinds[source]}
    numbers: dict[str, set[int]] = {source: set() for source in SOURCES}
    for number, _ in kinds.values():
        numbers[source_of[number]].add(number)
    kills = campaign.counts["_kill_worker"]
    print(f"seed {seed}: {len(source_of)} lines, {len(kinds)} records, {len(letters)} letters, faults:")
    print(f"{dict(campaign.counts)}; letters by stage {Counter(x.cause.stage for x in letters)}")
    print(f"{len(letters) - len({x.id for x in letters})} letters came twice")
    assert letters
    check_log(campaign.log())
    check_sources(writer.kinds, numbers, letters, kills)
    check_spool(campaign.worker.last_ledger["spooled"], writer.kinds["spooled"], letters, kills)
    for sink in SINKS:
        check_sink(sink, campaign.worker.last_ledger[sink], kinds, stored[sink], letters)
    assert set(stored["store"].values()) == {1}


@pytest.fixture
def server(tmp_path):
    if reason := mongo.why_not():
        pytest.skip(reason)
    with mongo.MongoServer(tmp_path / "mongo") as server:
        yield server


def test_on_the_local_log_bad_records_outages_and_kills_end_in_an_exact_ledger(seed, tmp_path, server):
    run(tmp_path, seed, server)


@pytest.mark.kafka
def test_on_kafka_bad_records_outages_and_kills_end_in_an_exact_ledger(seed, tmp_path, server):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path / "kafka") as broker:
        run(tmp_path, seed, server, broker)
