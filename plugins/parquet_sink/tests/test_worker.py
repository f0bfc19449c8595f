"""A real worker, killed with -9 again and again: each line is in the files once."""

import random
import time
import uuid

import pytest
from conftest import files, rows

from tieline.testing.worker_process import WorkerProcess
from tieline_lab import kafka

LINES = 6000


@pytest.fixture(params=["local", "kafka"])
def worker_settings(request, tmp_path):
    own = uuid.uuid4().hex[:8]
    if request.param == "local":
        yield own, {}
        return
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path / "kafka") as server:
        yield (
            own,
            {
                "bootstrap.servers": server.bootstrap,
                "offset.storage.topic": f"offsets-{own}",
                "offset.storage.partitions": "1",
            },
        )


def test_each_line_is_in_the_files_once_however_often_the_worker_is_killed(worker_settings, tmp_path):
    own, settings = worker_settings
    source = {
        "name": f"in-{own}",
        "connector.class": "file",
        "file": str(tmp_path / "in.txt"),
        "topic": f"t-{own}",
    }
    sink = {
        "name": f"lake-{own}",
        "connector.class": "parquet",
        "topics": f"t-{own}",
        "store.url": str(tmp_path / "lake"),
        "flush.size": "100",
        "max.poll.records": "170",
    }
    if settings:  # a static member: after a kill the group does not wait for a session to expire
        sink["consumer.override.group.instance.id"] = sink["name"]
    worker = WorkerProcess(tmp_path, {**settings, "offset.flush.interval.ms": "100"}, [source, sink])
    dice = random.Random(8)
    written = set(range(LINES - 99))  # the others may be in the segment that is still open
    for part in range(6):
        with (tmp_path / "in.txt").open("a") as file:
            file.writelines(f"{n}\n" for n in range(part * LINES // 6, (part + 1) * LINES // 6))
        before = len(files(tmp_path / "lake"))
        worker.start()
        wait_for(lambda before=before: len(files(tmp_path / "lake")) > before)
        time.sleep(dice.uniform(0, 0.3))  # where it is killed is left to chance
        worker.kill()
    with worker:
        worker.wait_for("partitions assigned")
        wait_for(lambda: in_files(tmp_path) >= written)
        assert worker.stop() == 0
    stored = rows(tmp_path / "lake")
    places = [(row["_kafka"]["partition"], row["_kafka"]["offset"]) for row in stored]
    assert len(places) == len(set(places)), "a record is in two files"
    ids = [row["_kafka"]["id"] for row in stored]
    assert len(ids) == len(set(ids)) or settings, "a line is there twice"
    assert in_files(tmp_path) >= written


def in_files(folder):
    """The lines that are in the files."""
    return {int(row["value"]) for row in rows(folder / "lake")}


def wait_for(true, timeout=90.0):
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
