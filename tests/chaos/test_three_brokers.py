"""Three brokers, of which two must store each record: without one, work continues; without two, it waits."""

import itertools
import threading
import time
import uuid
from collections import Counter

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_lab import kafka
from tieline_lab.kafka_cluster import KafkaCluster

pytestmark = pytest.mark.kafka
KEYS = ("a", "b", "c")
PER_SECOND = 1000  # lines of each key


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class Journey:
    """A file and a topic for each key, and one sink for all. Lines are appended until ``stop``."""

    def __init__(self, cluster, folder):
        own = uuid.uuid4().hex[:8]
        self.topics = [f"{key}-{own}" for key in KEYS]
        self.sources = [f"in-{topic}" for topic in self.topics]
        self.sink = f"out-{own}"
        self.out = folder / "out.txt"
        self.settings = {"bootstrap.servers": cluster.bootstrap, "offset.storage.topic": f"offsets-{own}"}
        self.written = 0
        self._folder = folder
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write)
        string = {"value.converter": "string"}
        connectors = [
            {"name": name, "connector.class": "file", "file": str(folder / key), "topic": topic, **string}
            for name, key, topic in zip(self.sources, KEYS, self.topics, strict=True)
        ]
        out = {"connector.class": "file", "file": str(self.out), "topics": ",".join(self.topics)}
        connectors.append({"name": self.sink, **out, **string})
        self.worker = WorkerProcess(folder, self.settings, connectors)

    def __enter__(self):
        self.worker.start()
        self._writer.start()
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if self.worker.running:
            self.worker.kill()

    def stop(self):
        self._stop.set()
        self._writer.join()

    def _write(self):
        files = {key: (self._folder / key).open("a") for key in KEYS}
        step = PER_SECOND // 100
        while not self._stop.wait(0.01):
            for key, file in files.items():
                lines = range(self.written, self.written + step)
                file.write("".join(f"{key} {n} {'x' * 100}\n" for n in lines))
                file.flush()
            self.written += step
        for file in files.values():
            file.close()

    def partitions(self):
        """Return the partition of each topic, with its leader and its replicas in sync."""
        topics = self._admin.describe_topics(TopicCollection(self.topics), request_timeout=5)
        return [future.result().partitions[0] for future in topics.values()]

    def leader(self):
        return self.partitions()[0].leader.id

    def coordinator(self):
        group = f"connect-{self.sink}"
        description = self._admin.describe_consumer_groups([group], request_timeout=5)[group].result()
        return description.coordinator.id

    def wait_until_flowing(self):
        """Wait until the sink owns all topics, and each source and the sink have worked for a second.

        The topics are created one after the other. If a broker dies while the group adds one, the group loses
        its members, and uncommitted records are read again.
        """
        for count in itertools.count(1):
            self.worker.wait_for("partitions assigned", timeout=60, count=count)
            assigned = [
                e["partitions"] for e in self.worker.events if e.get("event") == "partitions assigned"
            ]
            if {name for names in assigned for name in names} == {f"{topic}-0" for topic in self.topics}:
                break
        self.worker.wait_for_ledger(
            lambda ledger: all(ledger[n]["delivered"] > PER_SECOND for n in (*self.sources, self.sink))
        )

    def wait_until_resumed(self):
        """Wait until lines that are not written yet have arrived."""
        enough = len(KEYS) * (self.written + PER_SECOND // 2)
        self.worker.wait_for_ledger(lambda ledger: ledger[self.sink]["delivered"] > enough, timeout=60)

    def wait_until_stuck(self, lines):
        """Wait until each source has more than so many unacknowledged lines."""
        return self.worker.wait_for_ledger(
            lambda ledger: all(ledger[name]["in_flight"] > lines for name in self.sources)
        )

    def wait_until_in_sync(self):
        end = time.monotonic() + 30
        while any(len(partition.isr) < 3 for partition in self.partitions()):
            assert time.monotonic() < end, "a broker that came back does not catch up"
            time.sleep(0.1)

    def finish(self):
        """Check that every line has arrived in order; return the number of duplicates in topics and file."""
        self.stop()
        total = self.written * len(KEYS)
        self.worker.wait_for_ledger(
            lambda ledger: (
                ledger[self.sink]["lag"] == 0
                and ledger[self.sink]["delivered"] >= total
                and all(ledger[name]["delivered"] == self.written for name in self.sources)
            ),
            timeout=60,
        )
        assert self.worker.stop() == 0
        broker = open_broker(
            check_plan("test", {**self.settings, "data.dir": str(self._folder / "look")}, [])
        )
        in_topics = []
        for topic in self.topics:
            broker.read(topic, lambda record: in_topics.append((record.value or b"").decode()))
        broker.close()
        in_file = self.out.read_text().splitlines()
        return count_duplicates(in_topics, self.written), count_duplicates(in_file, self.written)


def count_duplicates(lines, total):
    """Return how many lines are duplicates. Check that none is missing, and each key is in order."""
    last = dict.fromkeys(KEYS, -1)
    for line in lines:
        key, number = line.split()[:2]
        assert int(number) <= last[key] + 1, f"after {last[key]} of key {key} comes {number}"
        last[key] = max(last[key], int(number))
    assert last == dict.fromkeys(KEYS, total - 1)
    return len(lines) - total * len(KEYS)


def test_two_brokers_killed_and_restarted_in_turn_under_load_lose_nothing(cluster, tmp_path):
    with Journey(cluster, tmp_path) as journey:
        journey.wait_until_flowing()
        for which in (journey.leader, journey.coordinator):
            node = cluster.nodes[which()]
            killed = time.monotonic()
            node.kill()
            journey.wait_until_resumed()
            print(f"{which.__name__} killed, resumed after {time.monotonic() - killed:.1f} s")
            node.start()
            journey.wait_until_in_sync()
            journey.wait_until_resumed()
        in_topics, in_file = journey.finish()
    states = Counter(part["state"] for part in journey.worker.last_ledger.values())
    print(f"{journey.written} lines a key; twice in the topics: {in_topics}, in the file: {in_file}")
    assert states == {"STOPPED": 4}
    assert in_topics == 0
    assert in_file == 0


def test_with_two_of_three_brokers_unavailable_a_worker_waits_and_resumes_when_they_return(cluster, tmp_path):
    with Journey(cluster, tmp_path) as journey:
        journey.wait_until_flowing()
        down = [node for number, node in cluster.nodes.items() if number != journey.coordinator()]
        for node in down:
            node.kill()
        killed = time.monotonic()
        one_second, three_seconds = (journey.wait_until_stuck(n * PER_SECOND) for n in (1, 3))
        for name in journey.sources:
            assert three_seconds[name]["delivered"] == one_second[name]["delivered"]
        assert {part["state"] for part in three_seconds.values()} == {"RUNNING"}
        down[0].start()
        returned = time.monotonic()
        journey.wait_until_resumed()
        print(f"down for {returned - killed:.1f} s, resumed after {time.monotonic() - returned:.1f} s")
        down[1].start()
        journey.wait_until_in_sync()
        in_topics, in_file = journey.finish()
    print(f"{journey.written} lines a key; twice in the topics: {in_topics}, in the file: {in_file}")
    assert in_topics == 0
    assert in_file == 0
