"""Two workers on one Kafka run the same sink: no record is missing, and duplicates are counted."""

import uuid

from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess

TOTAL = 40_000
PARTITIONS = 4


def written(folder):
    path = folder / "out.txt"
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text[: text.rfind("\n") + 1].split()]


def test_a_second_worker_takes_over_without_loss_when_it_comes_and_when_the_first_is_killed(
    kafka_bootstrap, tmp_path
):
    topic = f"two-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": kafka_bootstrap, "offset.storage.topic": f"offsets-{topic}"}
    broker = open_broker(check_plan("test", {**settings, "data.dir": str(tmp_path / "data")}, []))
    broker.create_topic(topic, partitions=PARTITIONS)
    producer = broker.producer("numbers", {})

    def produce(numbers):
        producer.send(Unit([ProducerRecord(topic, b"%d" % n, b"%d" % n) for n in numbers]))
        while not producer.poll(1):
            pass

    def worker(folder):
        return WorkerProcess(
            folder,
            settings,
            [
                {
                    "name": topic,
                    "connector.class": "file",
                    "file": str(folder / "out.txt"),
                    "topics": topic,
                    "tasks.max": "2",
                    "value.converter": "string",
                    "max.poll.records": "500",
                    "consumer.override.session.timeout.ms": "6000",
                }
            ],
        )

    one, two = worker(tmp_path / "one"), worker(tmp_path / "two")
    produce(range(TOTAL // 2))
    with one, two:
        one.wait_for("partitions assigned", timeout=60)
        two.wait_for("partitions assigned", timeout=60)
        produce(range(TOTAL // 2, TOTAL))
        two.wait_for_ledger(lambda ledger: ledger[topic]["received"] > 0, timeout=60)
        one.kill()
        produce(range(TOTAL, TOTAL + 1000))
        two.wait_for_ledger(
            lambda ledger: (
                {*written(tmp_path / "one"), *written(tmp_path / "two")} >= set(range(TOTAL + 1000))
                and ledger[topic]["in_flight"] == 0
            ),
            timeout=60,
        )
        assert two.stop() == 0
    producer.close(5)
    broker.close()
    both = written(tmp_path / "one") + written(tmp_path / "two")
    assert set(both) == set(range(TOTAL + 1000))
    duplicates = len(both) - len(set(both))
    print(f"duplicates after a rebalance and a kill: {duplicates}")


def test_two_tasks_of_a_static_member_do_not_fence_each_other(kafka_bootstrap, tmp_path):
    topic = f"static-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": kafka_bootstrap, "offset.storage.topic": f"offsets-{topic}"}
    broker = open_broker(check_plan("test", {**settings, "data.dir": str(tmp_path / "data")}, []))
    broker.create_topic(topic, partitions=2)
    sink = {
        "name": topic,
        "connector.class": "file",
        "file": str(tmp_path / "out.txt"),
        "topics": topic,
        "tasks.max": "2",
        "value.converter": "string",
        "consumer.override.group.instance.id": "static",
    }
    with WorkerProcess(tmp_path, settings, [sink]) as worker:
        worker.wait_for("partitions assigned", count=2, timeout=60)
        producer = broker.producer("numbers", {})
        producer.send(Unit([ProducerRecord(topic, b"%d" % n, partition=n % 2) for n in range(100)]))
        while not producer.poll(1):
            pass
        producer.close(5)
        worker.wait_for_ledger(lambda ledger: ledger[topic]["delivered"] == 100)
        assert worker.stop() == 0
    broker.close()
    assert sorted(written(tmp_path)) == list(range(100))
