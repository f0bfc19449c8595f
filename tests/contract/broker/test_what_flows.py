"""Whatever happens to the partitions of a sink: exactly those flow that it wants, and none loses a record.

The consumer and Kafka's client are the real ones; the test calls what the client calls in a rebalance, so
that hundreds of them take seconds.
"""

from collections import defaultdict
from typing import Any

import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tieline.api import TopicPartition
from tieline.broker.records import ProducerRecord, Unit
from tieline.runtime.sink.records_to_retry import RecordsToRetry

pytestmark = pytest.mark.kafka
PARTITIONS = range(3)
subsets = st.sets(st.sampled_from(PARTITIONS), min_size=1)


class WhatFlows(RuleBasedStateMachine):
    """The model: what is owned, why each partition stands still, and which numbers were handed over."""

    def __init__(self, kit, topic, producer, written):
        super().__init__()
        self.kit, self.topic, self.producer, self.written = kit, topic, producer, written
        self.flow = RecordsToRetry()
        self.consumer = kit.broker.consumer(kit.name(), "suite", {})
        self.consumer.membership.listener = self
        self.flow.reset(self.consumer)
        self.position = {p: len(written[p]) for p in PARTITIONS}  # the next number to be handed over
        self.paused, self.holding, self.stopped = set(), {}, False
        self.hold = False
        self.assign(set(PARTITIONS))

    # the listener, as the sink's task is one

    def assigned(self, partitions):
        self.flow.assign(partitions)

    def revoked(self, partitions):
        self.flow.unassign(partitions)

    lost = revoked

    @property
    def owned(self):
        return {topic_partition.partition for topic_partition in self.flow.owned}

    def partitions_of(self, partitions):
        return [TopicPartition(self.topic, p) for p in sorted(partitions)]

    @rule(partitions=subsets)
    def assign(self, partitions):
        coming = [KafkaPartition(self.topic, p, self.position[p]) for p in partitions - self.owned]
        self.consumer.membership.on_assign(None, coming)

    @rule(partitions=subsets, lost=st.booleans())
    def leave(self, partitions, lost):
        going = partitions & self.owned
        membership = self.consumer.membership
        leave = membership.on_lost if lost else membership.on_revoke
        leave(None, [KafkaPartition(*partition) for partition in self.partitions_of(going)])
        self.paused -= going
        for p in going & self.holding.keys():  # what was held was not committed: it comes again
            self.position[p] = self.holding.pop(p)

    @rule(partitions=subsets, lost=st.booleans())
    def leave_and_come_back(self, partitions, lost):
        self.leave(partitions, lost)
        self.assign(partitions)

    @rule(partitions=subsets)
    def pause(self, partitions):
        self.flow.pause(self.partitions_of(partitions & self.owned))
        self.paused |= partitions & self.owned

    @rule(partitions=subsets)
    def resume(self, partitions):
        self.flow.resume(self.partitions_of(partitions & self.owned))
        self.paused -= partitions

    @rule()
    def stop(self):
        self.flow.pause_all()
        self.stopped = True

    @rule()
    def go_on(self):
        self.flow.resume_all()
        self.stopped = False

    @precondition(lambda self: self.flow and not self.stopped)
    @rule()
    def offer_again(self):
        held = self.flow.take()
        assert {r.partition: r.offset for r in reversed(held)} == self.holding
        self.flow.release({TopicPartition(r.topic, r.partition) for r in held})
        self.holding.clear()

    @rule()
    def hold_what_comes_next(self):
        self.hold = True

    @invariant()
    def look(self):
        records = []
        for p in PARTITIONS:
            records.append(ProducerRecord(self.topic, b"%d" % len(self.written[p]), partition=p))
            self.written[p].append(None)
        self.producer.send(Unit(records))
        self.kit.ends(self.producer, 1)
        flowing = set() if self.stopped else self.owned - self.paused - self.holding.keys()
        wanted = {p: list(range(self.position[p], len(self.written[p]))) for p in flowing}
        by_partition = defaultdict(list)
        come = self.kit.take(self.consumer, sum(map(len, wanted.values())))
        come += self.consumer.poll(100, 0.05)
        for record in come:
            by_partition[record.partition].append(int(record.value))
        assert by_partition == wanted
        if self.hold and come:
            self.hold = False
            self.flow.hold(come, 0.0)
            self.holding |= {p: numbers[0] for p, numbers in by_partition.items()}
        self.position |= {p: numbers[-1] + 1 for p, numbers in by_partition.items()}

    def teardown(self):
        self.consumer.close(10)


def test_after_any_changes_exactly_the_partitions_that_the_sink_wants_deliver_records(kafka_kit):
    topic = kafka_kit.topic(partitions=len(PARTITIONS))
    producer = kafka_kit.producer()
    written: defaultdict[int, list[None]] = defaultdict(list)
    machine: Any = lambda: WhatFlows(kafka_kit, topic, producer, written)  # noqa: E731
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # each failure takes the whole patience: none is made smaller
        ),
    )
