"""The smallest journey, with a real worker in a process of its own: a file, the local log, a file."""

import json
import random
import time

from tieline.api import TopicPartition
from tieline.broker.local.log import LocalLog
from tieline.testing.worker_process import WorkerProcess


def connectors(folder):
    return [
        {"name": "lines", "connector.class": "file", "file": str(folder / "in.txt"), "topic": "lines"},
        {"name": "out", "connector.class": "file", "file": str(folder / "out.txt"), "topics": "lines"},
    ]


def adds_up(ledger):
    return all(
        part["received"] == part["delivered"] + part["dead_lettered"] + part["filtered"] + part["in_flight"]
        for part in ledger.values()
    )


def test_every_line_arrives_once_in_order_and_the_ledger_says_so(tmp_path):
    lines = [f"line {n}" for n in range(5000)]
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in lines))
    with WorkerProcess(tmp_path, {}, connectors(tmp_path)) as worker:
        ledger = worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 5000)
        assert adds_up(ledger)
        assert worker.stop() == 0
    assert (tmp_path / "out.txt").read_text().splitlines() == lines
    assert worker.last_ledger["lines"] == {
        "type": "source", "state": "STOPPED", "received": 5000, "delivered": 5000,
        "dead_lettered": 0, "filtered": 0, "in_flight": 0, "counters": {},
    }  # fmt: skip


def test_after_a_clean_stop_nothing_comes_twice(tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{n}\n" for n in range(1000)))
    worker = WorkerProcess(tmp_path, {}, connectors(tmp_path))
    with worker:
        worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 1000)
    with source.open("a") as more:
        more.write("".join(f"{n}\n" for n in range(1000, 1500)))
    with worker:
        worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 500)
    assert [int(line) for line in (tmp_path / "out.txt").read_text().split()] == list(range(1500))


def test_kill_9_of_the_worker_under_load_loses_nothing_on_the_local_log(tmp_path):
    """Five kills: none missing; the log has each line once; what was in flight behind it comes twice."""
    dice = random.Random(5)
    total = 60_000
    (tmp_path / "in.txt").write_text("".join(f"{n}\n" for n in range(total)))
    settings = [dict(c, **{"max.poll.records": "500"}) for c in connectors(tmp_path)]
    worker = WorkerProcess(tmp_path, {"offset.flush.interval.ms": "50"}, settings)
    in_flight_at_kills = 0
    for _ in range(5):
        worker.start()
        worker.wait_for("partitions assigned")
        enough = dice.randrange(1, 4000)
        worker.wait_for_ledger(lambda ledger, enough=enough: ledger["out"]["received"] >= enough)
        worker.kill()
        in_flight_at_kills += len(written(tmp_path)) - in_flight_at_kills - committed(tmp_path)
    worker.start()
    worker.wait_for_ledger(lambda ledger: last_is(tmp_path, total - 1) and ledger["out"]["in_flight"] == 0)
    assert worker.stop() == 0
    assert set(written(tmp_path)) == set(range(total))
    assert committed(tmp_path) == total  # one record of the log a line: the source doubles nothing
    duplicates = len(written(tmp_path)) - total
    print(f"raw duplicates after 5 kills: {duplicates}, in flight at the kills: {in_flight_at_kills}")
    assert duplicates == in_flight_at_kills


def written(folder):
    """The complete lines in the sink's file."""
    text = (folder / "out.txt").read_text()
    return [int(line) for line in text[: text.rfind("\n") + 1].split()]


def last_is(folder, number):
    return (folder / "out.txt").read_text().endswith(f"\n{number}\n")


def committed(folder):
    """The sink's committed offset, read from the log that the dead worker left."""
    log = LocalLog.open(folder / "data")
    try:
        return log.store.committed("connect-out").get(TopicPartition("lines", 0), 0)
    finally:
        log.close()


def test_two_mistakes_in_two_files_are_told_together_before_anything_starts(tmp_path):
    bad = connectors(tmp_path)
    bad[0]["topik"] = "x"
    bad[1].pop("file")
    worker = WorkerProcess(tmp_path, {"offset.flush.interval.ms": "soon"}, bad)
    worker.start()
    assert worker.wait() == 2
    text = json.dumps([event["event"] for event in worker.events])
    assert "3 mistakes" in text
    assert "did you mean 'topic'" in text
    assert not (tmp_path / "data").exists()


def test_a_second_worker_on_the_same_folder_is_refused_with_the_first_ones_pid(tmp_path):
    (tmp_path / "in.txt").write_text("x\n")
    with WorkerProcess(tmp_path, {}, connectors(tmp_path)) as first:
        first.wait_for("started")
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
        asked = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - asked < 6
