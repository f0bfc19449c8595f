"""A sink that acts on a device dies around each write of its changelog: it acts at most once, and answers.

It uses a changelog as intended. It writes STARTED with the offset before it acts, and ENDED with the result
afterwards. An entry that a new owner finds STARTED ends as UNKNOWN.
"""

import dataclasses
import uuid
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tieline.api import Config, Schema, SinkConnector, SinkTask, SourceRecord, TopicPartition
from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import ConverterPlan, SinkPlan, check_plan
from tieline.config.settings import SinkSettings, Timing
from tieline.converters.plain import StringConverter
from tieline.runtime.worker.factory import open_broker
from tieline.testing.crash.runner import CrashPoint, Life, Step

TIMING = Timing(offset_flush=0.002, max_wait=0.005, call_timeout=5.0)
ENTRY = Schema.parse('{"type": "record", "name": "t.Entry", "fields": [{"name": "state", "type": "string"}]}')
COMMANDS, PARTITIONS = 6, 2
STARTED, ENDED = {"state": "STARTED"}, {"state": "ENDED"}


class Outside:
    """The device, which survives a crash: how often each command acted on it, and which commands are over."""

    def __init__(self):
        self.name = f"c{uuid.uuid4().hex[:8]}"
        self.topic, self.results = f"{self.name}-in", f"{self.name}-results"
        self.acts: Counter[int] = Counter()
        self.over: set[int] = set()


class Actor(SinkTask[Config]):
    """Acts on each command once."""

    def __init__(self, outside, context, config):
        super().__init__(context, config)
        self.outside, self.states, self.logs = outside, {}, {}

    def open(self, partitions):
        for at in partitions:
            self.logs[at] = self.context.changelog(at, ENTRY)
            for command, entry in self.logs[at].entries.items():
                if entry == STARTED:
                    self.end(at, command, "UNKNOWN")
                else:
                    self.outside.over.add(command)

    def put(self, batch):
        for record in batch:
            at, command = TopicPartition(record.topic, record.partition), record.value
            self.logs[at].write({command: STARTED}, (), record.offset + 1)
            self.outside.acts[command] += 1
            self.end(at, command, "SUCCEEDED")

    def end(self, at, command, outcome):
        result = SourceRecord(self.outside.results, outcome, key=command)
        self.logs[at].write({command: ENDED}, [result])
        self.outside.over.add(command)

    def pre_commit(self, offsets):
        return {}


def planned(outside, worker, data):
    plan = check_plan("test", {**worker, "data.dir": str(data)}, [])
    text = ConverterPlan(StringConverter, StringConverter.config_type.parse({}), {})
    settings = SinkSettings.parse({"name": outside.name, "connector.class": "test", "topics": outside.topic})

    class BoundActor(Actor):
        def __init__(self, context, config):
            super().__init__(outside, context, config)

    connector = type("Acting", (SinkConnector,), {"task_type": BoundActor})
    sink = SinkPlan(Config.parse({}), {}, text, text, [], {}, settings, connector)
    return dataclasses.replace(plan, connectors=[sink])


def prepared(outside, broker):
    for topic in (outside.topic, outside.results):
        broker.create_topic(topic, partitions=PARTITIONS)
    producer = broker.producer("test", {})
    commands = [ProducerRecord(outside.topic, b"%d" % n, partition=n % PARTITIONS) for n in range(COMMANDS)]
    producer.send(Unit(commands))
    while not producer.poll(1.0):
        pass
    producer.close(1.0)
    broker.close()


def cases():
    for backend, passings in (("local", (1, 2, 5, 12)), ("kafka", (2, 5))):  # an even write is ENDED
        for passing in passings:
            for when in ("before", "after"):
                marks = [pytest.mark.kafka] if backend == "kafka" else []
                yield pytest.param(backend, passing, when, id=f"{backend}-{passing}-{when}", marks=marks)


def _all_over(life, outside):
    return len(outside.over) == COMMANDS and life.ledger()[outside.name]["in_flight"] == 0


@pytest.mark.parametrize(("backend", "passing", "when"), list(cases()))
def test_a_crash_around_a_write_lets_no_command_act_twice_and_each_has_one_result(
    request, tmp_path, backend, passing, when
):
    worker = {"bootstrap.servers": request.getfixturevalue("kafka_bootstrap")} if backend == "kafka" else {}
    outside, data = Outside(), [tmp_path / "first", tmp_path / "second"]
    prepared(outside, open_broker(planned(outside, worker, data[0])))
    point = CrashPoint(Step.CHANGELOG, when, passing)
    with ExitStack() as lives:
        for crash, folder in zip((point, None), data, strict=True):
            plan = planned(outside, worker, folder)
            life = lives.enter_context(Life(plan, open_broker(plan), crash, timing=TIMING))
            crashed = life.run(partial(_all_over, life, outside))
            assert crashed == (crash is not None)
            if crashed:
                life.leave(data[1])
    odd = passing % 2  # an odd write is STARTED, an even one ENDED
    unknown = [] if (odd and when == "before") or (not odd and when == "after") else [(passing - 1) // 2]
    found: list[Any] = []
    broker = open_broker(planned(outside, worker, data[1]))
    while len(found) < COMMANDS:  # Kafka shows a transaction a moment after its end
        found.clear()
        broker.read(outside.results, lambda record: found.append((record.key, record.value)))
    broker.close()
    assert Counter(key for key, _ in found) == {b"%d" % n: 1 for n in range(COMMANDS)}
    assert len([1 for _, value in found if value == b'"UNKNOWN"']) == len(unknown)
    assert max(outside.acts.values()) == 1
    assert outside.acts.total() == COMMANDS - (1 if odd and when == "after" else 0)
