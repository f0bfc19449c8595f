"""The local log beside a naive model: whatever is done, in whatever order, both hold the same."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tieline.api import TopicPartition
from tieline.broker.local.file import LogSettings
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ConsumedRecord, ProducerRecord, Unit

TOPICS = {"a": 1, "b": 2}
PARTITIONS = [TopicPartition(topic, number) for topic, count in TOPICS.items() for number in range(count)]
partitions = st.sampled_from(PARTITIONS)
some_bytes = st.none() | st.binary(max_size=20)
headers = st.lists(st.tuples(st.text(max_size=5), some_bytes), max_size=3).map(tuple)


class LogModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.records: dict[TopicPartition, list[ConsumedRecord]] = {partition: [] for partition in PARTITIONS}
        self.next = dict.fromkeys(PARTITIONS, 0)
        self.committed: dict[TopicPartition, int] = {}
        self.source: dict[str, str] = {}
        self.open()
        for topic, count in TOPICS.items():
            self.log.create_topic(topic, partitions=count)

    def open(self) -> None:
        self.log = LocalLog.open(self.folder, settings=LogSettings(reserve_bytes=0))
        self.producer = self.log.producer("", {})

    @rule(
        batch=st.lists(st.tuples(partitions, some_bytes, some_bytes, headers), max_size=8),
        source=st.dictionaries(st.sampled_from("xy"), st.integers(0, 9).map(str)),
    )
    def produce(self, batch, source):
        records = [
            ProducerRecord(partition.topic, value, key, headers, n, partition.partition)
            for n, (partition, value, key, headers) in enumerate(batch)
        ]
        self.producer.send(Unit(records, "c", source))
        (delivery,) = self.producer.poll(10)
        assert not delivery.failures
        self.source |= source
        for n, (partition, value, key, headers) in enumerate(batch):
            assert delivery.metadata[n] == (*partition, self.next[partition])
            self.records[partition].append(
                ConsumedRecord(
                    partition.topic, partition.partition, self.next[partition], value, key, headers, n
                )
            )
            self.next[partition] += 1

    @rule(partition=partitions, before=st.integers(0, 40))
    def delete(self, partition, before):
        gone = [record for record in self.records[partition] if record.offset < before]
        removed = self.log.store.delete_before(partition.topic, partition.partition, before)
        assert removed.records == len(gone)
        self.records[partition] = self.records[partition][len(gone) :]

    @rule(partition=partitions, count=st.integers(1, 5))
    def drop_oldest(self, partition, count):
        removed = self.log.store.drop_oldest(partition.topic, partition.partition, count)
        assert removed.records == min(count, len(self.records[partition]))
        self.records[partition] = self.records[partition][count:]

    @rule(offsets=st.dictionaries(partitions, st.integers(0, 40)))
    def commit(self, offsets):
        self.log.store.commit("g", offsets)
        self.committed |= offsets

    @rule(topic=st.sampled_from(sorted(TOPICS)))
    def recreate(self, topic):
        assert self.log.delete_topic(topic)
        assert self.log.create_topic(topic, partitions=TOPICS[topic])
        for partition in [partition for partition in PARTITIONS if partition.topic == topic]:
            self.records[partition], self.next[partition] = [], 0
            self.committed.pop(partition, None)

    @rule()
    def reopen(self):
        self.log.close()
        self.open()

    @rule(topic=st.sampled_from(sorted(TOPICS)), values=st.lists(some_bytes, max_size=3))
    def append_exclusively(self, topic, values):
        with self.log.exclusive(topic) as held:
            held.append([ProducerRecord(topic, value, timestamp=0, partition=0) for value in values])
        partition = TopicPartition(topic, 0)
        for value in values:
            self.records[partition].append(ConsumedRecord(topic, 0, self.next[partition], value, None, (), 0))
            self.next[partition] += 1

    @rule(partition=partitions, offset=st.integers(0, 40), count=st.integers(1, 5))
    def read_some(self, partition, offset, count):
        expected = [record for record in self.records[partition] if record.offset >= offset][:count]
        assert self.log.store.read_from(partition.topic, partition.partition, offset, count) == expected

    @invariant()
    def all_is_equal(self):
        for topic, count in TOPICS.items():
            records: list[ConsumedRecord] = []
            ends = self.log.read(topic, records.append)
            mine = [TopicPartition(topic, number) for number in range(count)]
            assert records == [record for partition in mine for record in self.records[partition]]
            assert ends == {partition.partition: self.next[partition] for partition in mine}
            size = sum(len(self.records[partition]) for partition in mine)
            assert self.log.store.size(topic)[0] == size
            assert (self.log.store.size(topic)[1] == 0) or size
        assert self.log.store.committed("g") == self.committed
        assert self.log.source_offsets("c", 1) == self.source

    def teardown(self):
        self.log.close()
        shutil.rmtree(self.folder)


LogModel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLogModel = LogModel.TestCase
