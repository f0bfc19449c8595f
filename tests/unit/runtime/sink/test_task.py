"""The sink's loop on the real local log: outages, data errors, pauses, commits; a fake clock."""

import itertools
import sqlite3
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

from tieline.api import (
    Config,
    DataError,
    Datum,
    FatalError,
    FencedError,
    RetriableError,
    Schema,
    SinkRecord,
    SinkTask,
    SourceRecord,
    TopicPartition,
    Transform,
    Unreadable,
)
from tieline.broker.local.changelog import ChangelogTarget
from tieline.broker.local.codec import encode_headers
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.config.retry_policy import RetryPolicy
from tieline.config.settings import Subscription, Timing
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import Claims
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.context import SinkInputs
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.sink.partition_counts import PartitionCounts
from tieline.runtime.sink.task import WorkerSinkTask
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.transform_chain import TransformChain
from tieline.testing.clock import FakeClock
from tieline.transforms.filter import Filter, FilterConfig


class Sink(SinkTask[Config]):
    """Keeps what it is given; ``meet(batch)`` may raise first; ``enough`` ends the test's wait."""

    def __init__(self, total, meet=lambda batch: None):
        self.total, self.meet = total, meet
        self.written = defaultdict(list)
        self.puts = []
        self.closed = []
        self.enough = threading.Event()

    def given(self, context):
        self.context = context
        return self

    def put(self, batch):
        self.puts.append([r.value for r in batch])
        try:
            self.meet(batch)
        except RetriableError as error:
            if error.partitions is not None:
                self.keep([r for r in batch if (r.topic, r.partition) not in error.partitions])
            raise
        except DataError as error:
            self.keep([r for i, r in enumerate(batch) if i not in error.failures])
            raise
        self.keep(batch)

    def keep(self, batch):
        for record in batch:
            self.written[record.partition].append(record.value)
        if sum(map(len, self.written.values())) >= self.total:
            self.context.request_commit()
            self.enough.set()

    def close(self, partitions, lost):
        self.closed.append((sorted(partitions), lost))


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    log.create_topic("t", partitions=2)
    yield log
    log.close()


def fill(log, values, partition=0):
    log.store.append([ProducerRecord("t", v.encode(), partition=partition) for v in values])


def conversion(log, *transforms, values=StringConverter, count):
    converters = []
    no_store: Any = None
    for is_key in (True, False):
        kind = StringConverter if is_key else values
        converters.append(kind(StringConverterConfig.parse({}), is_key=is_key, schemas=no_store))
    return SinkConversion(log, TransformChain(transforms), converters[0], converters[1], count)


class Running:
    """A sink task in a thread, ended by the test."""

    def __init__(self, log, sink, *transforms, policy=None, converter=StringConverter, topic="t"):
        self.clock = FakeClock(step=0.01)
        self.environment = TaskEnvironment("c", 0, clock=self.clock, **({"policy": policy} if policy else {}))
        self.task = WorkerSinkTask(
            self.environment,
            sink.given,
            SinkInputs(
                lambda: log.consumer("connect-c", "c-0", {}),
                conversion(log, *transforms, values=converter, count=self.environment.counters.add),
                TaskChangelogs("c", TopicSchemaStore(log), 10.0),
                Claims(log, 10.0),
                PartitionCounts(log),
            ),
            Subscription((topic,), None),
            Timing(offset_flush=1e9, max_records=100, max_wait=0.02),
        )
        self.error = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.task.run()
        except TaskFailedError as error:
            self.error = error

    def stop(self):
        self.task.interrupt()
        return self.join()

    def join(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.task.stats


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def committed(log):
    return {
        topic_partition.partition: offset
        for topic_partition, offset in log.store.committed("connect-c").items()
    }


def test_everything_is_put_in_order_and_its_offsets_are_committed_at_the_end(log):
    fill(log, ["a", "b", "c"])
    fill(log, ["x", "y"], 1)
    sink = Sink(5)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.written == {0: ["a", "b", "c"], 1: ["x", "y"]}
    assert committed(log) == {0: 3, 1: 2}
    assert counts == (5, 5, 0, 0, 0)
    assert sink.closed == [([("t", 0), ("t", 1)], False)]


def test_an_outage_is_waited_out_and_the_same_batch_is_offered_again(log):
    fill(log, ["a", "b"])
    failures = [3]

    def unavailable(batch):
        if failures[0]:
            failures[0] -= 1
            raise RetriableError("the database is unavailable")

    sink = Sink(2, unavailable)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.puts == [["a", "b"]] * 4
    assert sink.written == {0: ["a", "b"]}
    assert counts == (2, 2, 0, 0, 0)
    assert running.environment.counters["retries"] == 3


def test_an_outage_of_one_partition_holds_only_that_partition_and_keeps_its_order(log):
    fill(log, ["a1", "a2"])
    fill(log, ["b1", "b2"], 1)
    failures = [2]

    def half_away(batch):
        if failures[0] and any(r.partition == 1 for r in batch):
            failures[0] -= 1
            if failures[0] == 1:
                fill(log, ["a3"])
                fill(log, ["b3"], 1)
            raise RetriableError("one shard is unavailable", partitions={TopicPartition("t", 1)})

    sink = Sink(6, half_away)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.written == {0: ["a1", "a2", "a3"], 1: ["b1", "b2", "b3"]}
    assert counts == (6, 6, 0, 0, 0)
    assert committed(log) == {0: 3, 1: 3}


def test_an_outage_that_names_partitions_of_another_topic_holds_everything(log):
    """A transform renames topics, a sink errs: what is not understood must not count as written."""
    fill(log, ["a1"])
    failures = [1]

    def unavailable(batch):
        if failures[0]:
            failures[0] -= 1
            raise RetriableError("unavailable", partitions={TopicPartition("renamed", 0)})

    sink = Sink(2, unavailable)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.puts == [["a1"], ["a1"]]
    assert counts == (1, 1, 0, 0, 0)


class Displacing(Transform[Config]):
    """Says of all records that they are of partition 0, in another topic's names."""

    def apply(self, batch):
        return [SinkRecord("u", 0, 7, record.value, headers=record.headers) for record in batch]


def test_a_transform_cannot_change_where_a_record_was_consumed(log):
    fill(log, ["a1", "a2"])
    fill(log, ["b1"], 1)
    failures = [1]

    def unavailable(batch):
        if failures[0]:
            failures[0] -= 1
            raise RetriableError("unavailable", partitions={record.consumed_from for record in batch})

    sink = Sink(6, unavailable)  # it takes itself to have kept what its error does not name
    running = Running(log, sink, Displacing(Config()))
    assert sink.enough.wait(10)
    counts = running.stop()
    assert [sorted(values) for values in sink.puts] == [["a1", "a2", "b1"]] * 2
    assert counts == (3, 3, 0, 0, 0)
    assert committed(log) == {0: 2, 1: 1}


class Disliking(Transform[Config]):
    """Calls one value bad."""

    def __init__(self, value):
        self.value = value

    def apply(self, batch):
        if bad := {i: ValueError("bad") for i, record in enumerate(batch) if record.value == self.value}:
            raise DataError(bad)
        return list(batch)


def test_two_transforms_that_each_refuse_another_record_stop_at_the_first_of_them(log):
    fill(log, ["a", "b", "y", "c", "x", "d"])
    sink = Sink(2)
    running = Running(log, sink, Disliking("x"), Disliking("y"))
    running.join()
    assert sink.written == {0: ["a", "b"]}
    assert committed(log) == {0: 2}


def test_the_progress_of_a_sink_before_an_outage_is_committed_and_not_offered_again(log):
    fill(log, ["a1", "a2", "a3"])
    fill(log, ["b1", "b2"], 1)
    failures = [1]

    def broke_off(batch):
        if failures[0] and len(batch) == 5:
            failures[0] -= 1
            sink.keep([r for r in batch if r.value in ("a1", "a2")])
            sink.context.request_commit()
            raise RetriableError("broke off", after=1e9, reached={TopicPartition("t", 0): 2})

    sink = Sink(2, broke_off)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert committed(log) == {0: 2}
    assert counts == (2, 2, 0, 0, 0)
    again = Sink(3)
    running = Running(log, again)
    assert again.enough.wait(10)
    running.stop()
    assert again.written == {0: ["a3"], 1: ["b1", "b2"]}


def test_a_sink_that_progresses_slowly_never_reaches_its_limit(log):
    fill(log, [str(n) for n in range(8)])
    written: list[str] = []

    def one_at_a_time(batch):
        sink.keep(batch[:1])
        written.append(batch[0].value)
        if len(batch) > 1:
            raise RetriableError("slow", after=0.4, reached={TopicPartition("t", 0): batch[0].offset + 1})

    sink = Sink(8, one_at_a_time)
    running = Running(log, sink, policy=RetryPolicy(0.05, 0.2, 1.0))
    assert sink.enough.wait(20)
    counts = running.stop()
    assert running.error is None
    assert written == [str(n) for n in range(8)]
    assert counts == (8, 8, 0, 0, 0)


def test_during_an_outage_nothing_is_committed_and_a_stop_returns_the_records(log):
    fill(log, ["a"])
    met = threading.Event()

    def unavailable(batch):
        met.set()
        raise RetriableError("unavailable for good", after=1e6)

    running = Running(log, Sink(1, unavailable))
    assert met.wait(10)
    counts = running.stop()
    assert committed(log) == {}
    assert counts == (0, 0, 0, 0, 0)


def test_a_data_error_stops_the_task_after_everything_before_it_is_written_and_committed(log):
    fill(log, ["a", "b", "poison", "c"])
    fill(log, ["x"], 1)

    def bad(batch):
        failures = {i: ValueError("cannot be stored") for i, r in enumerate(batch) if r.value == "poison"}
        if failures:
            raise DataError(failures)

    running = Running(log, Sink(99, bad))
    running.join()
    assert "t-0@2" in str(running.error)
    assert "cannot be stored" in str(running.error)
    assert committed(log) == {0: 2, 1: 1}


def test_bytes_that_cannot_be_converted_stop_the_task_after_the_records_before_them(log):
    log.store.append([ProducerRecord("t", v, partition=0) for v in (b"a", b"\xff\xfe", b"b")])
    sink = Sink(99)
    running = Running(log, sink)
    running.join()
    assert "VALUE_CONVERTER" in str(running.error)
    assert "t-0@1" in str(running.error)
    assert sink.written == {0: ["a"]}
    assert committed(log) == {0: 1}


def test_a_fatal_error_stops_the_task_and_commits_nothing_of_the_batch(log):
    fill(log, ["a"])

    def refuse(batch):
        raise FatalError("no right to write")

    running = Running(log, Sink(1, refuse))
    running.join()
    assert "no right to write" in str(running.error)
    assert committed(log) == {}


DROP = Filter(FilterConfig.parse({"key.regex": "drop"}))
"""Drops the records with the key ``drop``."""


def test_filtered_records_are_counted_and_their_offsets_advance(log):
    fill(log, ["a", "b"])
    log.store.append([ProducerRecord("t", b"c", b"drop", partition=0) for _ in range(3)])
    sink = Sink(2)
    running = Running(log, sink, DROP)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert counts == (5, 2, 0, 3, 0)
    assert committed(log) == {0: 5}


def test_a_record_without_an_identity_gets_one_from_its_position_and_the_topic_id(log):
    fill(log, ["a", "a"])
    ids: list[bytes | None] = []
    sink = Sink(2, lambda batch: ids.extend(dict(r.headers)["tieline.id"] for r in batch))
    running = Running(log, sink)
    assert sink.enough.wait(10)
    running.stop()
    log.delete_topic("t")
    log.create_topic("t", partitions=2)
    fill(log, ["a", "a"])
    sink = Sink(2, lambda batch: ids.extend(dict(r.headers)["tieline.id"] for r in batch))
    running = Running(log, sink)
    assert sink.enough.wait(10)
    running.stop()
    assert len(set(ids)) == len(ids) == 4


def test_a_topic_recreated_while_the_sink_runs_gives_its_records_another_identity(log):
    fill(log, ["a", "a"])
    ids: list[bytes | None] = []
    first, sink = threading.Event(), Sink(4)

    def look(batch):
        ids.extend(dict(r.headers)["tieline.id"] for r in batch)
        if len(ids) == 2:
            first.set()

    sink.meet = look
    running = Running(log, sink)
    assert first.wait(10)
    log.delete_topic("t")
    log.create_topic("t", partitions=2)
    fill(log, ["a", "a"])
    assert sink.enough.wait(10)
    running.stop()
    assert len(set(ids)) == len(ids) == 4
    assert committed(log) == {0: 2}


def test_bad_bytes_beside_an_unavailable_partition_are_reported_and_never_committed(log):
    log.store.append([ProducerRecord("t", v, partition=0) for v in (b"a", b"\xff\xfe", b"b")])
    fill(log, ["x"], 1)
    failures = [2]

    def half_away(batch):
        if failures[0] and any(r.partition == 1 for r in batch):
            failures[0] -= 1
            raise RetriableError("one shard is unavailable", partitions={TopicPartition("t", 1)})

    sink = Sink(99, half_away)
    running = Running(log, sink)
    assert running.join() == (2, 2, 0, 0, 0)
    assert "t-0@1" in str(running.error)
    assert sink.written == {0: ["a"], 1: ["x"]}
    assert committed(log) == {0: 1, 1: 1}


def test_an_outage_of_one_partition_ends_by_its_own_limit_although_another_is_written(log):
    fill(log, ["x"], 1)
    written = [0]

    def half_away(batch):
        if any(r.partition == 1 for r in batch):
            raise RetriableError("one shard is unavailable", partitions={TopicPartition("t", 1)})
        written[0] += len(batch)
        fill(log, ["more"])

    def fill_first(batch):
        fill(log, ["first"])
        sink.meet = half_away
        half_away(batch)

    sink = Sink(1e9, fill_first)
    running = Running(log, sink, policy=RetryPolicy(0.3, 1.0, 5.0))
    running.join()
    assert "still unavailable" in str(running.error)
    assert written[0] > 1


def test_a_sink_that_is_unavailable_when_it_gets_partitions_is_opened_again(log):
    fill(log, ["a"])
    tries = []

    class Opening(Sink):
        def open(self, partitions):
            tries.append(sorted(partitions))
            if len(tries) < 3:
                raise RetriableError("the store of offsets is unavailable")

        def close(self, partitions, lost):
            raise RetriableError("still unavailable")

    sink = Opening(1)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (1, 1, 0, 0, 0)
    assert tries == [[("t", 0), ("t", 1)]] * 3
    assert running.error is None


def test_a_converter_that_returns_more_values_than_it_received_stops_the_task(log):
    class Doubling(StringConverter):
        def deserialize(self, batch):
            return [value for value in super().deserialize(batch) for _ in range(2)]

    fill(log, ["a", "b"])
    sink = Sink(99)
    running = Running(log, sink, converter=Doubling)
    running.join()
    assert "made 4 values of 2" in str(running.error)
    assert sink.written == {}


def test_records_of_one_partition_are_kept_when_the_next_partition_cannot_be_read(log):
    reads = [0]
    read_known = log.store.read_known

    def failing(*arguments):  # as on a disk that is unavailable for a moment
        reads[0] += 1
        if reads[0] % 2 == 0:
            raise RetriableError("the disk is unavailable")
        return read_known(*arguments)

    fill(log, [f"a{n}" for n in range(5)])
    fill(log, [f"b{n}" for n in range(5)], 1)
    log.store.read_known = failing
    sink = Sink(10)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (10, 10, 0, 0, 0)
    assert sink.written == {0: [f"a{n}" for n in range(5)], 1: [f"b{n}" for n in range(5)]}


def test_a_record_reported_without_a_dead_letter_queue_stops_the_task_and_loses_nothing(log):
    fill(log, ["good"])
    fill(log, ["bad"], 1)

    class Reporting(Sink):
        def put(self, batch):
            for record in batch:
                if record.value == "bad":
                    self.context.report(record, ValueError("not storable"))
            super().put(batch)

    running = Running(log, Reporting(99))
    running.join()
    assert "t-1@0" in str(running.error)
    assert "no dead letter queue" in str(running.error)
    assert set(committed(log)) <= {0}
    assert 0 not in committed(log) or running.task.stats.delivered == 1


class Buffering(Sink):
    """Writes only when it is flushed, which fails at first."""

    def __init__(self, total, error, times):
        super().__init__(total)
        self.error, self.times, self.buffer = error, times, []

    def put(self, batch):
        self.puts.append(len(batch))
        self.buffer.extend(batch)
        self.context.request_commit()

    def flush(self, offsets):
        if self.times:
            self.times -= 1
            raise self.error
        self.keep(self.buffer)
        self.buffer = []


def test_a_sink_that_cannot_flush_receives_no_more_records_until_it_can(log):
    for start in range(0, 500, 100):
        fill(log, [str(n) for n in range(start, start + 100)])
    sink = Buffering(500, RetriableError("the disk is unavailable", after=0.1), times=5)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert running.environment.counters["retries"] == 5
    assert sink.written == {0: [str(n) for n in range(500)]}
    assert len(sink.puts) <= 6
    assert committed(log) == {0: 500}
    assert counts == (500, 500, 0, 0, 0)


def test_a_sink_that_can_never_flush_stops_with_its_reason_and_commits_nothing(log):
    fill(log, ["a"])
    running = Running(log, Buffering(1, FatalError("the certificate has expired"), times=99))
    running.join()
    assert "TASK_FLUSH: the certificate has expired" in str(running.error)
    assert committed(log) == {}


UTF16 = b"\xff\xfe"


def test_an_unreadable_key_is_passed_on_as_bytes_and_counted(log, caplog):
    for key in (b"text", UTF16, None, UTF16):
        log.store.append([ProducerRecord("t", b"value", key, partition=0)])
    keys: list[Any] = []
    sink = Sink(4, lambda batch: keys.extend((r.key, r.key_schema) for r in batch))
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (4, 4, 0, 0, 0)
    assert keys == [("text", None), (UTF16, None), (None, None), (UTF16, None)]
    assert running.environment.counters["keys.unreadable"] == 2
    messages = [r.message for r in caplog.records if "key.converter" in r.message]
    assert len(messages) == 1
    assert "t-0@1" in messages[0]


def test_damaged_headers_are_omitted_and_counted(log, caplog):
    fill(log, ["first"])
    headers = (("a", b"1"), ("b", None))
    log.store.append([ProducerRecord("t", b"value", None, headers, partition=0)] * 4)
    damaged = {2: b"\xff", 3: b"\xff" * 40, 4: encode_headers(headers)[:-2] + b"\xff\xff"}
    with sqlite3.connect(log.store.path) as connection:
        for offset, data in damaged.items():
            assert connection.execute(
                "UPDATE record SET headers = ? WHERE position & 0xffffffff = ?", (data, offset)
            ).rowcount
    received: list[Any] = []
    sink = Sink(
        5, lambda batch: received.extend([h for h in r.headers if h[0][:7] != "tieline"] for r in batch)
    )
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (5, 5, 0, 0, 0)
    assert received == [[], list(headers), [], [], []]
    assert running.environment.counters["headers.unreadable"] == 3
    messages = [r.message for r in caplog.records if "headers that cannot be read" in r.message]
    assert len(messages) == 1
    assert "t-0@2" in messages[0]


class Refusing(Sink):
    """Deals by itself with what no converter can read; ``unavailable`` outages come first."""

    def __init__(self, total, answer=True, unavailable=0):
        super().__init__(total)
        self.answer, self.unavailable, self.handled = answer, unavailable, []

    def handle_undecodable(self, record, error):
        if self.unavailable:
            self.unavailable -= 1
            raise RetriableError("the results topic is unavailable")
        self.handled.append((record.offset, record.value, record.key, len(self.written[record.partition])))
        assert isinstance(error, ValueError)
        assert dict(record.headers)["tieline.id"]
        return self.answer


class Taking(Sink):
    """Is given what no converter can read, too."""

    takes_unreadable = True

    def keep(self, batch):
        def shown(record):
            return record.value.value if isinstance(record.value, Unreadable) else record.value

        super().keep([record._replace(value=shown(record)) for record in batch])


@pytest.mark.parametrize("unavailable", [0, 2])
def test_a_task_can_receive_unreadable_records_in_order_with_the_others(log, unavailable):
    values = (b"a", UTF16 + b"1", UTF16 + b"2", b"b", UTF16 + b"3")
    log.store.append([ProducerRecord("t", v, b"k", partition=0) for v in values])
    sink = Taking(5)
    failures = [unavailable]

    def meet(batch):
        if failures[0]:
            failures[0] -= 1
            raise RetriableError("unavailable")

    sink.meet = meet
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.written == {0: ["a", UTF16 + b"1", UTF16 + b"2", "b", UTF16 + b"3"]}
    assert len(sink.puts) == 1 + unavailable
    assert counts[:2] == (5, 5)
    assert committed(log) == {0: 5}
    assert running.error is None


@pytest.mark.parametrize("unavailable", [0, 3])
def test_an_unreadable_record_is_handled_in_order_and_blocks_nothing(log, unavailable):
    values = (b"a", UTF16 + b"1", UTF16 + b"2", b"b", UTF16 + b"3", b"c", UTF16 + b"4")
    log.store.append([ProducerRecord("t", v, b"k", partition=0) for v in values])
    fill(log, ["x", "y"], 1)
    sink = Refusing(5, unavailable=unavailable)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.written == {0: ["a", "b", "c"], 1: ["x", "y"]}
    expected = [(1, b"1", 1), (2, b"2", 1), (4, b"3", 2), (6, b"4", 3)]
    assert sink.handled == [(offset, UTF16 + v, b"k", before) for offset, v, before in expected]
    assert counts == (9, 9, 0, 0, 0)
    assert committed(log) == {0: 7, 1: 2}
    assert running.error is None
    assert running.environment.counters["retries"] == unavailable


def test_an_undecodable_record_that_the_task_does_not_handle_stops_it_after_earlier_ones(log):
    log.store.append([ProducerRecord("t", v, partition=0) for v in (b"a", UTF16, b"b")])
    sink = Refusing(99, answer=False)
    running = Running(log, sink)
    running.join()
    assert "VALUE_CONVERTER" in str(running.error)
    assert "t-0@1" in str(running.error)
    assert sink.handled == [(1, UTF16, None, 1)]
    assert sink.written == {0: ["a"]}
    assert committed(log) == {0: 1}


def test_a_bad_record_after_a_held_one_waits_for_it(log):
    log.store.append([ProducerRecord("t", v, partition=0) for v in (b"a", UTF16, b"b")])
    sink = Refusing(2)
    failures = [2]

    def unavailable(batch):
        if failures[0]:
            failures[0] -= 1
            raise RetriableError("unavailable")

    sink.meet = unavailable
    running = Running(log, sink)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert sink.puts == [["a"]] * 3 + [["b"]]
    assert sink.handled == [(1, UTF16, None, 1)]
    assert counts == (3, 3, 0, 0, 0)


def test_a_fatal_error_while_an_undecodable_record_is_handled_commits_nothing_of_it(log):
    log.store.append([ProducerRecord("t", v, partition=0) for v in (b"a", UTF16)])

    class Failing(Sink):
        def handle_undecodable(self, record, error):
            raise FatalError("no right to write results")

    running = Running(log, Failing(99))
    running.join()
    assert "no right to write results" in str(running.error)
    assert committed(log).get(0, 0) <= 1


ENTRY = Schema.parse('{"type": "record", "name": "t.Entry", "fields": [{"name": "value", "type": "string"}]}')
LATER = Schema.parse(
    '{"type": "record", "name": "t.Entry", "fields": [{"name": "value", "type": "string"},'
    '{"name": "note", "type": "string", "default": "none"}]}'
)


class Keeping(Sink):
    """Writes each record into its partition's changelog, with a result and its offset."""

    schema = ENTRY

    def __init__(self, total, meet=lambda batch: None):
        super().__init__(total, meet)
        self.logs, self.found, self.lost = {}, {}, []

    def open(self, partitions):
        for partition in partitions:
            self.logs[partition] = self.context.changelog(partition, self.schema)
            assert self.context.changelog(partition, self.schema) is self.logs[partition]
            self.found[partition.partition] = dict(self.logs[partition].entries)

    def put(self, batch):
        self.meet(batch)
        for record in batch:
            partition = TopicPartition(record.topic, record.partition)
            result = SourceRecord("results", {"of": record.value}, key=record.value)
            self.logs[partition].write({record.value: {"value": record.value}}, [result], record.offset + 1)
        self.keep(batch)

    def pre_commit(self, offsets):
        return {}

    def close(self, partitions, lost):
        super().close(partitions, lost)
        self.lost += [lost] * len(partitions)


class Acting(Keeping):
    """Claims its topic."""

    def open(self, partitions):
        for partition in partitions:
            self.logs[partition] = self.context.changelog(partition, self.schema, acts_on="campus")
            self.found[partition.partition] = self.logs[partition].first_partitions


def test_a_claim_of_a_topic_that_was_read_before_reports_that(log):
    fill(log, ["a"])
    before = Keeping(1)
    running = Running(log, before)
    assert before.enough.wait(10)
    running.stop()
    for _ in range(2):
        fill(log, ["b"])
        sink = Acting(1)
        running = Running(log, sink)
        assert sink.enough.wait(10)
        running.stop()
        assert sink.found == {0: -1, 1: -1}


def test_a_new_claim_reports_how_many_partitions_its_topic_has(log):
    for _ in range(2):
        fill(log, ["b"])
        sink = Acting(1)
        running = Running(log, sink)
        assert sink.enough.wait(10)
        running.stop()
        assert sink.found == {0: 2, 1: 2}


def results(log):
    results = []
    log.read("results", lambda record: results.append((record.key, record.value)))
    return results


def test_a_changelog_write_moves_the_offset_and_settles_the_ledger(log):
    fill(log, ["a", "b", "c"])
    fill(log, ["x"], 1)
    sink = Keeping(4)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (4, 4, 0, 0, 0)
    assert committed(log) == {0: 3, 1: 1}
    assert sorted(results(log)) == [(v, b'{"of":"%b"}' % v) for v in (b"a", b"b", b"c", b"x")]
    later = Keeping(1)
    later.schema = LATER
    fill(log, ["d"])
    running = Running(log, later)
    assert later.enough.wait(10)
    assert running.stop() == (1, 1, 0, 0, 0)
    assert later.written == {0: ["d"]}
    assert later.found == {
        0: {v: {"value": v, "note": "none"} for v in "abc"},
        1: {"x": {"value": "x", "note": "none"}},
    }


def test_a_commit_never_resets_an_offset_that_a_write_has_moved(log):
    fill(log, ["a", "b", "c", "d"])

    class Ahead(Keeping):
        """Says that less is safe than its changelog has reached already, and goes back itself."""

        def put(self, batch):
            changelog = self.logs[TopicPartition("t", 0)]
            changelog.write({"all": {"value": "done"}}, offset=4)
            changelog.write({"all": {"value": "again"}}, offset=2)
            self.keep(batch)

        def pre_commit(self, offsets):
            assert offsets == {TopicPartition("t", 0): 4}
            return {TopicPartition("t", 0): 1}

    sink = Ahead(4)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (4, 4, 0, 0, 0)
    assert committed(log) == {0: 4}


def test_an_offset_within_a_batch_is_committed_and_the_rest_is_read_again(log):
    fill(log, ["a", "b", "c", "d"])
    half = threading.Event()

    class Half(Keeping):
        def put(self, batch):
            changelog = self.logs[TopicPartition("t", 0)]
            changelog.write({r.value: {"value": r.value} for r in batch[:2]}, offset=2)
            half.set()

    running = Running(log, Half(99))
    assert half.wait(10)
    assert running.stop() == (2, 2, 0, 0, 0)
    assert committed(log) == {0: 2}
    sink = Keeping(2)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (2, 2, 0, 0, 0)
    assert sink.written == {0: ["c", "d"]}


class Holding(Sink):
    """Calls no more safe than what stands before ``hold``."""

    hold = 3

    def pre_commit(self, offsets):
        return {partition: min(offset, self.hold) for partition, offset in offsets.items()}


def test_the_offsets_that_a_task_returns_as_safe_are_committed_even_within_a_batch(log):
    fill(log, ["a", "b", "c", "d", "e"])
    sink = Holding(5)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (3, 3, 0, 0, 0)  # two were given back
    assert committed(log) == {0: 3}
    again = Holding(2)
    again.hold = 4
    running = Running(log, again)
    assert again.enough.wait(10)
    assert running.stop() == (1, 1, 0, 0, 0)
    assert again.written == {0: ["d", "e"]}
    assert committed(log) == {0: 4}


def test_safe_offsets_within_a_batch_count_filtered_records_separately(log):
    for value, key in ((b"a", b""), (b"x", b"drop"), (b"b", b""), (b"x", b"drop"), (b"c", b"")):
        log.store.append([ProducerRecord("t", value, key, partition=0)])
    sink = Holding(3)
    running = Running(log, sink, DROP)
    assert sink.enough.wait(10)
    counts = running.stop()
    assert counts == (4, 2, 0, 2, 0)
    assert committed(log) == {0: 3}


def test_filtered_records_of_a_partition_with_a_changelog_advance_its_offset_too(log):
    fill(log, ["a"])
    log.store.append([ProducerRecord("t", b"c", b"drop", partition=0) for _ in range(3)])
    sink = Keeping(1)
    running = Running(log, sink, DROP)
    assert sink.enough.wait(10)
    assert running.stop() == (4, 1, 0, 3, 0)
    assert committed(log) == {0: 4}


def test_a_fenced_task_rejoins_its_group_and_continues_where_the_other_stopped(log):
    fill(log, ["a", "b"])
    partition = TopicPartition("t", 0)
    avro = AvroConverter(AvroConverterConfig(), is_key=False, schemas=TopicSchemaStore(log))

    def taken_over(batch):
        if batch[0].value == "a":  # another task is the owner, and this one does not know
            bounds = log.store.bounds("t")
            place = ChangelogTarget("c-t-changelog", partition, "connect-c", bounds[partition].id)
            other = log.changelogs().take_over(place, len(bounds), 10.0)
            (entry,) = avro.serialize([Datum(place.topic, {"value": "of the other"}, ENTRY)])
            other.write({b"a": entry}, [], 1, 10.0)

    sink = Keeping(1, taken_over)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (1, 1, 0, 0, 0)
    assert running.error is None
    assert sink.written == {0: ["b"]}
    assert sink.found[0] == {"a": {"value": "of the other"}}
    assert sink.lost == [True, False, False, False]
    assert committed(log) == {0: 2}
    assert [key for key, _ in results(log)] == [b"b"]


def test_a_task_that_meets_its_fence_by_itself_rejoins_although_no_record_comes(log):
    fill(log, ["a"])
    partition = TopicPartition("t", 0)
    again = threading.Event()

    class Acting(Keeping):
        """Writes its changelog from a thread of its own, as an executor of commands does."""

        opened = 0

        def open(self, partitions):
            super().open(partitions)
            self.opened += partition in partitions
            if self.opened == 2:
                again.set()

        def act(self):
            with pytest.raises(FencedError):
                self.logs[partition].write({"a": {"value": "done"}})

    sink = Acting(1)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    place = ChangelogTarget("c-t-changelog", partition, "connect-c", log.store.bounds("t")[partition].id)
    log.changelogs().take_over(place, len(log.store.bounds("t")), 10.0)
    sink.act()
    assert again.wait(10)
    sink.logs[partition].write({"a": {"value": "again"}})
    assert running.stop()[:2] == (1, 1)
    assert running.error is None


def test_a_changelog_that_is_unavailable_at_the_assignment_is_taken_over_later(log):
    fill(log, ["a"])
    changelogs, tries = log.changelogs, []

    def unavailable():
        tries.append(1)
        if len(tries) < 4:
            raise RetriableError("the disk is unavailable")
        return changelogs()

    log.changelogs = unavailable
    sink = Keeping(1)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (1, 1, 0, 0, 0)
    assert running.environment.counters["retries"] == 3


def test_an_entry_that_cannot_be_read_stops_the_task_before_it_does_anything_again(log):
    fill(log, ["a"])
    sink = Keeping(1)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    running.stop()
    log.changelogs().store.append([ProducerRecord("c-t-changelog", b"\x00junk", b"b", partition=0)])
    fill(log, ["b"])
    sink = Keeping(1)
    running = Running(log, sink)
    running.join()
    assert "the entry b'b' cannot be read" in str(running.error)
    assert sink.written == {}
    assert committed(log) == {0: 1}


def test_records_that_expired_before_they_were_read_are_counted_and_reported_once(log, caplog):
    fill(log, ["a", "b", "c", "d", "e"])
    first = log.consumer("connect-c", "c-0", {})
    log.store.commit("connect-c", {TopicPartition("t", 0): 1}, 5)
    first.close(1)
    log.store.delete_before("t", 0, 4)
    sink = Sink(1)
    running = Running(log, sink)
    assert sink.enough.wait(10)
    assert running.stop() == (1, 1, 0, 0, 0)
    assert sink.written == {0: ["e"]}
    assert running.environment.counters["skipped.expired"] == 3
    messages = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert messages == [
        "t-0: skipped offsets 1 to 3 (3): the log had removed them before they were read. "
        "Raise the topic's retention.ms"
    ]


def test_records_that_expired_at_the_end_are_not_counted_again_at_the_next_start(log):
    fill(log, ["a", "b", "c"])
    log.store.commit("connect-c", {TopicPartition("t", 0): 1}, 5)
    log.store.delete_before("t", 0, 3)
    counted = []
    for _ in range(2):
        sink = Sink(1)
        running = Running(log, sink)
        deadline = time.monotonic() + 10
        while running.task.lag != 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.stop() == (0, 0, 0, 0, 0)
        counted.append(running.environment.counters["skipped.expired"])
    assert counted == [2, 0]
    assert committed(log) == {0: 3}


def test_expired_records_are_committed_only_after_the_records_before_them(log):
    partition = TopicPartition("t", 0)
    stored: dict[TopicPartition, int] = {}
    progress = CommitTracker(TaskChangelogs("c", TopicSchemaStore(log), 10.0))
    progress.track([ConsumedRecord("t", 0, 2, b"read", None, (), 0)], [0], [True])
    progress.skip(partition, 3, 9, commit=True)
    progress.commit(lambda offsets: not stored.update(offsets), None)
    assert stored == {}
    progress.settle({partition: 9})
    progress.commit(lambda offsets: not stored.update(offsets), None)
    assert stored == {partition: 9}


BAD_AT = {"value": b"\xff\xfe", "transform": b"x", "put": b"p"}


class OneBatch:
    """The local log, whose consumer returns everything in its first batch."""

    def __init__(self, log, count):
        self.log, self.count = log, count

    def __getattr__(self, name):
        return getattr(self.log, name)

    def consumer(self, group, client_id, overrides):
        consumer = self.log.consumer(group, client_id, overrides)
        poll = consumer.poll

        def poll_all(max_records, timeout):
            batch = poll(max_records, timeout)
            while 0 < len(batch) < self.count:
                batch += poll(max_records, timeout)
            self.count = 0
            return batch

        consumer.poll = poll_all
        return consumer


@pytest.mark.parametrize("kinds", list(itertools.permutations(BAD_AT)))
def test_each_failure_of_a_batch_has_its_own_stage_and_the_first_is_reported(log, kinds):
    """A key that cannot be read fails nothing; a value, a transform and put each fail in one batch."""
    log.create_topic("three", partitions=3)
    for partition, kind in enumerate(kinds):
        values = (b"good", BAD_AT[kind], b"behind")
        log.store.append([ProducerRecord("three", v, b"\xff\xfe", partition=partition) for v in values])

    def reject(batch):
        failures = {i: ValueError("bad put") for i, record in enumerate(batch) if record.value == "p"}
        if failures:
            raise DataError(failures)

    sink = Sink(99, reject)
    running = Running(OneBatch(log, 9), sink, Disliking("x"), topic="three")
    running.join()
    stages = {"value": "VALUE_CONVERTER", "transform": "TRANSFORMATION", "put": "TASK_PUT"}
    sentences = {
        p: f"{stages[kind]}: the record three-{p}@1 cannot be handled: " for p, kind in enumerate(kinds)
    }
    (named,) = [p for p, sentence in sentences.items() if str(running.error).startswith(sentence)]
    assert named == 1 or kinds[1] == "value"  # partition 1 is read first; bytes of a bad value wait
    assert sink.written[named][:1] == ["good"]
    stored = {
        topic_partition.partition: offset
        for topic_partition, offset in log.store.committed("connect-c").items()
    }
    assert stored[named] == 1
    assert set(stored.values()) == {1}
    assert running.environment.counters["keys.unreadable"] == 9


def test_a_sink_that_was_given_no_record_is_not_called_available(log, caplog):
    """An outage of one partition, while all records of the other are filtered."""
    caplog.set_level("INFO")
    fill(log, ["a"])
    met = threading.Event()

    def unavailable(batch):
        met.set()
        raise RetriableError("the database is unavailable", after=1e9)

    running = Running(log, Sink(9, unavailable), DROP)
    assert met.wait(10)
    log.store.append([ProducerRecord("t", b"c", b"drop", partition=1) for _ in range(3)])
    wait_for(lambda: running.task.stats.filtered == 3)
    running.stop()
    assert "unavailable, waiting: the database is unavailable" in caplog.messages
    assert "available again" not in caplog.messages


def test_a_sink_that_has_nothing_to_flush_is_not_called_available(log, caplog):
    caplog.set_level("INFO")
    fill(log, ["a"])
    sink = Buffering(1, RetriableError("the disk is unavailable", after=1e9), times=1)
    running = Running(log, sink)
    wait_for(lambda: sink.times == 0)
    running.task.interrupt()
    running.join()
    assert caplog.messages.count("available again") == 1  # the flush at the end was a real one
    assert sink.written == {0: ["a"]}
