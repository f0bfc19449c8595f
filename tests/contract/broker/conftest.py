"""Both backends of the broker interface, and the steps that the tests of the suite are made of."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from tieline.api import TopicPartition
from tieline.broker.kafka.broker import KafkaBroker
from tieline.broker.local.log import LocalLog
from tieline.broker.port import Broker, Consumer, Producer
from tieline.broker.records import ConsumedRecord, Delivery, ProducerRecord, Unit

PATIENCE = 60.0
OFFSETS = "suite-offsets"


class Listener:
    """Records the events of a consumer. ``on_assigned`` and ``on_revoked`` run inside the callbacks."""

    def __init__(self) -> None:
        self.owned: set[TopicPartition] = set()
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self.on_assigned: Callable[[Collection[TopicPartition]], None] = lambda partitions: None
        self.on_revoked: Callable[[Collection[TopicPartition]], None] = lambda partitions: None

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("assigned", frozenset(partitions)))
        self.owned |= set(partitions)
        self.on_assigned(partitions)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("revoked", frozenset(partitions)))
        self.on_revoked(partitions)
        self.owned -= set(partitions)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("lost", frozenset(partitions)))
        self.owned -= set(partitions)


class Kit:
    """A backend, and the few steps that every test is made of."""

    def __init__(self, broker: Broker, delete_topic: Callable[[str], bool]) -> None:
        self.broker = broker
        self.delete_topic = delete_topic
        self.at_close: list[Callable[[], None]] = []

    def name(self) -> str:
        return f"t{uuid.uuid4().hex[:12]}"

    def topic(self, partitions: int = 1, **config: str) -> str:
        name = self.name()
        settings = {key.replace("_", "."): value for key, value in config.items()}
        assert self.broker.create_topic(name, partitions=partitions, config=settings)
        return name

    def producer(self, **overrides: str) -> Producer:
        settings = {key.replace("_", "."): value for key, value in overrides.items()}
        producer = self.broker.producer("suite", settings)
        self.at_close.append(lambda: producer.close(0))
        return producer

    def ends(self, producer: Producer, count: int) -> list[Delivery]:
        """Return the next ``count`` deliveries."""
        deliveries: list[Delivery] = []
        deadline = time.monotonic() + PATIENCE
        while len(deliveries) < count:
            assert time.monotonic() < deadline, f"{len(deliveries)} of {count} units ended"
            deliveries += producer.poll(0.5)
        assert len(deliveries) == count
        return deliveries

    def produce(self, *records: ProducerRecord) -> Delivery:
        """Send one unit, and wait for its end."""
        producer = self.broker.producer("suite", {})
        producer.send(Unit(records))
        (delivery,) = self.ends(producer, 1)
        producer.close(5)
        assert not delivery.failures
        return delivery

    def fill(self, topic: str, count: int, start: int = 0, partition: int = 0) -> None:
        """Write records whose values count up."""
        self.produce(
            *(ProducerRecord(topic, b"%d" % n, partition=partition) for n in range(start, start + count))
        )

    def member(
        self, group: str, topics: Sequence[str] = (), pattern: str | None = None
    ) -> tuple[Consumer, Listener]:
        quick = {"metadata.max.age.ms": "500", "heartbeat.interval.ms": "200"}
        consumer = self.broker.consumer(group, "suite", quick)
        self.at_close.append(lambda: consumer.close(10))
        listener = Listener()
        consumer.subscribe(topics, pattern, listener)
        return consumer, listener

    def recreate(self, topic: str, partitions: int = 1) -> None:
        """Delete a topic, and create another of its name as soon as possible."""
        assert self.delete_topic(topic)
        deadline = time.monotonic() + 30
        while not self.broker.create_topic(topic, partitions=partitions):
            assert time.monotonic() < deadline

    def having_read(self, topic: str, count: int, group: str = "") -> tuple[Consumer, Listener]:
        """Write ``count`` records, and return a new member that has read them all."""
        self.fill(topic, count)
        consumer, listener = self.member(group or self.name(), [topic])
        self.take(consumer, count)
        return consumer, listener

    def take(self, consumer: Consumer, count: int, at_once: int = 100) -> list[ConsumedRecord]:
        """Return the next ``count`` records, and no more."""
        records: list[ConsumedRecord] = []
        deadline = time.monotonic() + PATIENCE
        while len(records) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
            records += consumer.poll(min(at_once, count - len(records)), 0.5)
        assert len(records) == count
        return records

    def until(self, condition: Callable[[], bool], *consumers: Consumer) -> list[ConsumedRecord]:
        """Poll the consumers in turn until something is true. Return the records that came meanwhile."""
        records: list[ConsumedRecord] = []
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            for consumer in consumers:
                records += consumer.poll(100, 0.05)
        return records

    def read(self, topic: str, start: dict[int, int] | None = None) -> list[ConsumedRecord]:
        records: list[ConsumedRecord] = []
        self.broker.read(topic, records.append, start=start)
        return records

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records below an offset, as retention does."""
        raise NotImplementedError

    def groups(self) -> list[str]:
        """Return the names of all groups that the backend knows."""
        raise NotImplementedError

    def close(self) -> None:
        for close in reversed(self.at_close):
            close()
        self.broker.close()


class LocalKit(Kit):
    def __init__(self, folder: Path) -> None:
        self.log = LocalLog.open(folder)
        super().__init__(self.log, self.log.delete_topic)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.log.store.delete_before(topic, partition, offset)

    def groups(self) -> list[str]:
        return self.log.store.groups()


class KafkaKit(Kit):
    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        broker = KafkaBroker(
            bootstrap, {}, offsets_topic=OFFSETS, offsets_partitions=2, offsets_replication=1
        )
        super().__init__(broker, broker.delete_topic)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for future in admin.delete_records([KafkaPartition(topic, partition, offset)]).values():
            future.result(PATIENCE)

    def groups(self) -> list[str]:
        listing = AdminClient({"bootstrap.servers": self.bootstrap}).list_consumer_groups()
        return [group.group_id for group in listing.result(PATIENCE).valid]


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    if request.param == "local":
        kit: Kit = LocalKit(tmp_path)
    else:
        kit = KafkaKit(request.getfixturevalue("kafka_bootstrap"))
    yield kit
    kit.close()


@pytest.fixture
def kafka_kit(kafka_bootstrap: str) -> Iterator[Kit]:
    kit = KafkaKit(kafka_bootstrap)
    yield kit
    kit.close()
