"""After a kill at any point, the files are those of a run without a kill."""

import json
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from conftest import files, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tieline_parquet import sink
from tieline_parquet.config import ParquetSinkConfig
from tieline_parquet.segment import Cutter, Row
from tieline_parquet.sink import ParquetSinkTask
from tieline_parquet.store import open_store

from tieline.api import DataError, RetriableError, Schema, SinkRecord, TopicPartition, identity
from tieline.testing.sink_context import RecordingSinkContext

SCHEMAS = [
    None,
    Schema.parse(json.dumps({"type": "record", "name": "A", "fields": [{"name": "n", "type": "long"}]})),
    Schema.parse(json.dumps({"type": "record", "name": "B", "fields": [
        {"name": "n", "type": "long"}, {"name": "more", "type": ["null", "string"], "default": None}]})),
]  # fmt: skip
A_DAY = 86_400_000


class KilledError(Exception):
    """Raised where the process is killed."""


@st.composite
def logs(draw):
    """A partition each: offsets with holes, times that go forth and back, schemas that change, bad values."""
    log = {}
    for partition in range(draw(st.integers(1, 3))):
        offset, records = draw(st.integers(0, 3)), []
        for _ in range(draw(st.integers(0, 40))):
            schema = draw(st.sampled_from([SCHEMAS[1]] * 6 + SCHEMAS))
            value = {"n": offset} if schema is SCHEMAS[1] else {"n": offset, "more": "x"}
            value = f"text {offset}" if schema is None else value
            kind = draw(st.sampled_from(["good"] * 12 + ["null", "bad"]))
            value = {"null": None, "bad": {"n": object()}, "good": value}[kind]
            records.append(SinkRecord(
                "t", partition, offset, value, value_schema=schema,
                headers=identity("log", partition, offset),
                timestamp=draw(st.one_of(st.none(), st.integers(A_DAY - 60_000, A_DAY + 60_000))),
            ))  # fmt: skip
            offset += draw(st.integers(1, 4))
        log[TopicPartition("t", partition)] = records
    return log


def config(root, flush_size, rotate):
    return ParquetSinkConfig.parse(
        {"store.url": str(root), "flush.size": str(flush_size), "rotate.interval.ms": str(rotate)}
    )


def put(task, batch):
    """As a worker with a dead letter queue: bad records go there, the others are delivered."""
    try:
        task.put(batch)
    except DataError as error:
        return set(error.failures)
    return set()


class Mortal:
    """A store; the process may die just before or after each write."""

    def __init__(self, store, killed):
        self.store = store
        self.killed = killed

    def write(self, path, table):
        self.killed()
        self.store.write(path, table)
        self.killed()

    def close(self):
        self.store.close()


def run(log, made, batches, killed):
    """A worker over the log. ``batches``: how many records are polled; ``killed``: asked where it may die.

    What is committed is what the task says; a task begins where that is. Returns what was committed.
    """
    committed = dict.fromkeys(log, 0)
    while True:
        task = ParquetSinkTask(RecordingSinkContext(), made)
        store = Mortal(open_store(made.url, made.codec), killed)
        with mock.patch.object(sink, "open_store", return_value=store):
            task.start()
        task.open(list(log))
        position = dict(committed)
        try:
            for step in range(10_000):
                batch = []
                for partition, records in log.items():
                    ahead = [record for record in records if record.offset >= position[partition]]
                    batch += ahead[: batches(step)]
                if not batch:
                    task.flush({})
                    return committed
                put(task, batch)
                for record in batch:
                    position[TopicPartition(record.topic, record.partition)] = record.offset + 1
                killed()
                safe = task.pre_commit(position)
                killed()
                assert all(committed[p] <= safe[p] <= position[p] for p in safe)
                committed.update(safe)
        except KilledError:
            pass  # and nothing of it is closed
        finally:
            store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    logs(),
    st.integers(1, 9),
    st.sampled_from([-1, 1, 20_000]),
    st.data(),
    st.lists(st.integers(1, 12), min_size=1),
)
def test_random_kills_leave_the_files_of_an_undisturbed_run_and_each_id_once(
    log, size, rotate, data, batches
):
    kills = iter(data.draw(st.lists(st.booleans(), max_size=25)))

    def killed():
        if next(kills, False):
            raise KilledError

    with TemporaryDirectory() as folder:
        calm, wild = Path(folder) / "calm", Path(folder) / "wild"
        run(log, config(calm, size, rotate), lambda _: 7, lambda: None)
        committed = run(log, config(wild, size, rotate), lambda step: batches[step % len(batches)], killed)
        assert {name: rows(path.parent) for name, path in files(wild).items()} == {
            name: rows(path.parent) for name, path in files(calm).items()
        }
        ids = Counter(row["_kafka"]["id"] for row in rows(wild))
        assert ids.total() == len(ids)
        expected = {
            (record.partition, record.offset)
            for partition, records in log.items()
            for record in records
            if record.offset < committed[partition] and record.value is not None and not bad(record)
        }
        found = {(row["_kafka"]["partition"], row["_kafka"]["offset"]) for row in rows(wild)}
        assert expected <= found


def bad(record):
    return isinstance(record.value, dict) and not isinstance(record.value["n"], int)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(0, 50), st.sampled_from("ab"))),
    st.integers(1, 8), st.sampled_from([-1, 1, 10]), st.lists(st.integers(1, 9), min_size=1),
)  # fmt: skip
def test_the_cuts_are_a_function_of_the_rows_however_they_come(steps, size, rotate, batches):
    offset, all_rows = 0, []
    for step, time, schema in steps:
        offset += step
        all_rows.append(Row(offset, time, schema))
    cutter = Cutter(size, rotate)

    def starts(chunks):
        segment, found, position = None, [], 0
        for chunk in chunks:
            part = all_rows[position : position + chunk]
            position += chunk
            covered = 0
            for cut, now in cutter.cut(segment, part):
                assert cut.begin == covered < cut.end
                covered, segment = cut.end, now
                if cut.first:
                    found.append(now.start)
                assert now.size <= size
            assert covered == len(part)
        return found

    alone = starts([1] * len(all_rows))
    assert starts([len(all_rows)]) == alone
    assert starts((batches * (len(all_rows) + 1))[: len(all_rows) + 1]) == alone
    # From any of its beginnings on, it is the same again.
    for start in alone:
        rest = [row for row in all_rows if row.offset >= start]
        again = [now.start for cut, now in cutter.cut(None, rest) if cut.first]
        assert again == [each for each in alone if each >= start]


def test_an_offset_inside_a_file_is_never_committed(tmp_path):
    """A bad record within it stops the task where there is no dead letter queue."""
    task = ParquetSinkTask(RecordingSinkContext(), config(tmp_path, 4, -1))
    task.start()
    values = ["0", "1", {"n": object()}, "3", "4", "5"]
    batch = [SinkRecord("t", 0, n, value) for n, value in enumerate(values)]
    assert put(task, batch) == {2}
    at = TopicPartition("t", 0)
    assert task.pre_commit({at: 2}) == {at: 0}
    assert task.pre_commit({at: 6}) == {at: 5}
    assert [row["value"] for row in rows(tmp_path)] == ["0", "1", "3", "4"]
    task.stop()


def test_topics_that_were_renamed_to_one_keep_their_offsets_and_their_files(tmp_path):
    """A router on the sink: what is committed is of the topic that was consumed."""
    task = ParquetSinkTask(RecordingSinkContext(), config(tmp_path, 2, -1))
    task.start()
    task.put(
        [
            SinkRecord("all", 0, n, f"{topic}{n}", original_topic=topic)
            for topic in ("a", "b")
            for n in range(3)
        ]
    )
    reached = {TopicPartition(topic, 0): 3 for topic in ("a", "b")}
    assert task.pre_commit(reached) == {TopicPartition(topic, 0): 2 for topic in ("a", "b")}
    assert sorted(row["value"] for row in rows(tmp_path)) == ["a0", "a1", "b0", "b1"]
    assert {name.partition("/")[0] for name in files(tmp_path)} == {"all"}
    task.stop()


def test_a_topic_whose_name_leaves_no_room_for_a_files_is_a_data_error(tmp_path):
    task = ParquetSinkTask(RecordingSinkContext(), config(tmp_path, 1, -1))
    task.start()
    assert put(task, [SinkRecord("t" * 230, 0, 0, "x"), SinkRecord("t", 0, 0, "y")]) == {0}
    task.stop()


def test_a_disk_that_is_away_is_waited_for_and_nothing_of_the_batch_is_taken(tmp_path):
    root = tmp_path / "lake"
    task = ParquetSinkTask(RecordingSinkContext(), config(root, 2, -1))
    task.start()
    task.put([SinkRecord("t", 0, n, str(n)) for n in range(2)])
    shutil.rmtree(root)
    root.write_text("in the way")
    for _ in range(2):
        with pytest.raises(RetriableError, match="lake"):
            task.put([SinkRecord("t", 0, 2, "2")])
        with pytest.raises(RetriableError, match="lake"):
            task.pre_commit({TopicPartition("t", 0): 2})
    root.unlink()
    task.put([SinkRecord("t", 0, 2, "2")])
    task.put([SinkRecord("t", 0, 3, "3")])
    assert task.pre_commit({TopicPartition("t", 0): 4}) == {TopicPartition("t", 0): 4}
    assert [row["value"] for row in rows(root)] == ["0", "1", "2", "3"]
    task.stop()
