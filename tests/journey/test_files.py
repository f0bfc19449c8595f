"""The smallest journey, with a real worker in a process of its own: a file, the local log, a file."""

import json
import random
import time
from typing import NamedTuple

import pytest

from tieline.api import TopicPartition
from tieline.runtime.task.totals import Totals, decode_note
from tieline.testing.worker_process import WorkerProcess


def connectors(folder, suffix="x"):
    return [
        {
            "name": f"lines-{suffix}",
            "connector.class": "file",
            "file": str(folder / "in.txt"),
            "topic": f"t-{suffix}",
        },
        {"name": "out", "connector.class": "file", "file": str(folder / "out.txt"), "topics": f"t-{suffix}"},
    ]


def on(backend, folder, **settings):
    """A worker on this home, with connectors and a consumer group of its own."""
    both = connectors(folder, backend.suffix)
    both[1]["name"] = f"out-{backend.suffix}"
    if (
        backend.name == "kafka"
    ):  # a static member: after a kill the group does not wait for a session to expire
        both[1]["consumer.override.group.instance.id"] = f"out-{backend.suffix}"
    return WorkerProcess(
        folder, {**backend.worker, **settings}, [dict(c, **{"max.poll.records": "500"}) for c in both]
    )


def write(folder, numbers):
    with (folder / "in.txt").open("a") as file:
        file.write("".join(f"{n}\n" for n in numbers))


def written(folder):
    """The complete lines in the sink's file."""
    path = folder / "out.txt"
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text[: text.rfind("\n") + 1].split()]


def last_is(folder, number):
    return written(folder)[-1:] == [number]


def adds_up(ledger):
    return all(
        part["received"] == part["delivered"] + part["dead_lettered"] + part["filtered"] + part["in_flight"]
        for part in ledger.values()
    )


def test_every_line_arrives_once_in_order_and_the_ledger_says_so(backend, tmp_path):
    write(tmp_path, range(5000))
    source, sink = f"lines-{backend.suffix}", f"out-{backend.suffix}"
    with on(backend, tmp_path) as worker:
        ledger = worker.wait_for_ledger(lambda ledger: ledger[sink]["delivered"] == 5000)
        assert adds_up(ledger)
        assert worker.stop() == 0
    assert written(tmp_path) == list(range(5000))
    last = {key: worker.last_ledger[source][key] for key in ("type", "state", "skipped", "counters")}
    assert last == {"type": "source", "state": "STOPPED", "skipped": 0, "counters": {}}
    counts = {"received": 5000, "delivered": 5000, "dead_lettered": 0, "filtered": 0, "in_flight": 0}
    assert {key: worker.last_ledger[source][key] for key in counts} == counts
    totals = worker.last_ledger[sink]["totals"]
    assert {key: totals[key] for key in counts} == counts
    assert totals["mismatch"] == 0


def test_after_a_clean_stop_no_record_is_repeated(backend, tmp_path):
    write(tmp_path, range(1000))
    worker = on(backend, tmp_path)
    with worker:
        worker.wait_for_ledger(lambda ledger: ledger[f"out-{backend.suffix}"]["delivered"] == 1000)
    write(tmp_path, range(1000, 1500))
    with worker:
        worker.wait_for_ledger(lambda ledger: ledger[f"out-{backend.suffix}"]["delivered"] == 500)
    totals = worker.last_ledger[f"out-{backend.suffix}"]["topics"][f"t-{backend.suffix}"]
    assert (totals["received"], totals["delivered"], totals["mismatch"]) == (1500, 1500, 0)
    assert written(tmp_path) == list(range(1500))


class Afterwards(NamedTuple):
    """The state after a kill: records in the topic, the positions of source and sink, the source's totals."""

    in_topic: int
    saved: int
    committed: int
    counted: int


def look(backend):
    broker = backend.open()
    try:
        where = TopicPartition(f"t-{backend.suffix}", 0)
        records = []
        broker.read(where.topic, lambda record: records.append(record.offset))
        notes = list(broker.source_notes(f"lines-{backend.suffix}", 10).values())
        counted = decode_note(notes[0]) if notes else Totals(0, 0)
        offsets = [json.loads(text) for text in broker.source_offsets(f"lines-{backend.suffix}", 10).values()]
        group = broker.consumer(f"connect-out-{backend.suffix}", "look", {})
        stored = group.committed([where], 10).get(where)
        committed = 0 if stored is None else stored.offset
        group.close(5)
        saved = offsets[0]["position"] if offsets else 0
        assert counted is not None
        return Afterwards(len(records), saved, committed, counted.delivered)
    finally:
        broker.close()


def test_kill_9_of_the_worker_under_load_loses_nothing(backend, tmp_path):
    """After five kills none is missing, and the duplicates are exactly the records in flight at a kill."""
    dice = random.Random(5)
    total = 60_000
    line_at = {}  # where each line begins in the file → its number
    position = 0
    for number in range(total + 1):
        line_at[position] = number
        position += len(f"{number}\n")
    worker = on(backend, tmp_path, **{"offset.flush.interval.ms": "50"})
    sink, source = f"out-{backend.suffix}", f"lines-{backend.suffix}"
    sink_in_flight = source_in_flight = 0
    before = Afterwards(0, 0, 0, 0)
    for kill in range(5):
        write(tmp_path, range(kill * 12_000, (kill + 1) * 12_000))
        worker.start()
        enough = dice.randrange(1, 4000)
        worker.wait_for_ledger(lambda ledger, enough=enough: ledger[sink]["received"] >= enough)
        lines = len(written(tmp_path))
        worker.kill()
        now = look(backend)
        sink_in_flight += len(written(tmp_path)) - sink_in_flight - now.committed
        twice = line_at[before.saved] + now.in_topic - before.in_topic - line_at[now.saved]
        assert now.counted == line_at[now.saved]
        assert twice >= 0, "an offset was saved before its records were in the topic"
        source_in_flight += twice
        before = now
        assert len(written(tmp_path)) >= lines
    worker.start()
    worker.wait_for_ledger(lambda ledger: ledger[source]["in_flight"] == 0 and last_is(tmp_path, total - 1))
    worker.wait_for_ledger(lambda ledger: ledger[sink]["in_flight"] == 0 and ledger[sink]["lag"] == 0)
    assert worker.stop() == 0
    assert set(written(tmp_path)) == set(range(total))
    after = look(backend)
    assert after.in_topic == after.committed == total + source_in_flight
    totals = worker.last_ledger[source]["totals"]
    assert (totals["received"], totals["delivered"]) == (after.counted, total) == (total, total)
    assert (totals["in_flight"], totals["mismatch"]) == (0, 0)
    totals = worker.last_ledger[sink]["totals"]  # since the first life: what was read again is counted once
    assert (totals["received"], totals["delivered"]) == (after.in_topic, after.in_topic)
    assert (totals["in_flight"], totals["mismatch"]) == (0, 0)
    assert len(written(tmp_path)) == after.in_topic + sink_in_flight
    print(
        f"{backend.name}: doubled by 5 kills: {source_in_flight} by the source, {sink_in_flight} by the sink"
    )
    if backend.name == "local":
        assert source_in_flight == 0  # records and offsets are one transaction


def test_problems_in_two_files_are_reported_together_before_anything_starts(tmp_path):
    bad = connectors(tmp_path)
    bad[0]["topik"] = "x"
    bad[1].pop("file")
    worker = WorkerProcess(tmp_path, {"offset.flush.interval.ms": "soon"}, bad)
    worker.start()
    assert worker.wait() == 2
    text = json.dumps([event["event"] for event in worker.events])
    assert "3 problems" in text
    assert "did you mean 'topic'" in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("deleted", [False, True], ids=["as it is", "its lock files deleted"])
def test_a_second_worker_on_the_same_folder_refuses_to_start_and_names_the_first_ones_pid(tmp_path, deleted):
    (tmp_path / "in.txt").write_text("x\n")
    with WorkerProcess(tmp_path, {}, connectors(tmp_path)) as first:
        first.wait_for("started")
        for lock in (tmp_path / "data").rglob("*.lock") if deleted else ():
            lock.unlink()
        second = WorkerProcess(
            tmp_path / "second", {"data.dir": str(tmp_path / "data")}, connectors(tmp_path)
        )
        second.start()
        assert second.wait() == 2
        assert any(str(first.pid) in event["event"] for event in second.events)


def test_sigterm_stops_cleanly_inside_the_graceful_timeout_under_load(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"{n}\n" for n in range(300_000)))
    with WorkerProcess(
        tmp_path, {"task.shutdown.graceful.timeout.ms": "5000"}, connectors(tmp_path)
    ) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["out"]["received"] > 0)
        stop_began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - stop_began < 6
