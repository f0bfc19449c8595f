"""kill -9 of a process with the history sink, at every step of a batch and at random moments.

What put has returned is stored. Rows and rollups agree whenever a process dies. After the rest was delivered
again, the file is the same as that of a process that was never killed.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from tieline_connectors.history.database import FILE_NAME, open_to_read
from tieline_connectors.history.model.intervals import FIVE_MINUTES, HOUR
from tieline_connectors.history.reading.reducer import Reducer

BATCH, BATCHES = 40, 30

# Arguments: folder, size and number of batches, the first batch, where it dies and at which passing, seconds
# between two batches.
# Prints the number of each batch that is written.
PROCESS = """
import os, signal, sys, time
from pathlib import Path
from tieline.api import SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.history import sink
from tieline_connectors.history.writing import names, retention, writer

folder, BATCH, BATCHES = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
first, where, passing, pause = int(sys.argv[4]), *sys.argv[5:]
left = int(passing)

def passes(point):
    global left
    if point == where:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def guard(owner, name):
    call = getattr(owner, name)
    def guarded(*arguments, **options):
        passes("before " + name)
        result = call(*arguments, **options)
        passes("after " + name)
        return result
    setattr(owner, name, guarded)

guard(writer, "recompute")
guard(names.Names, "finish")
guard(writer.HistoryWriter, "_is_known")
guard(writer.HistoryWriter, "_write_rows")
guard(writer.HistoryWriter, "transact")
guard(sink, "HistoryWriter")
guard(retention.Retention, "_delete")
guard(retention.Retention, "run")
retention._STEP = 25
sink._RETENTION_INTERVAL = 0.0

def record(n):
    time = 1_767_225_600_000_000 + n * 20_000_000 - (n % 7) * 90_000_000
    value = {"platform": "p", "topic": "devices/d/all", "device": "d", "kind": "ALL", "sender": "driver",
             "headers": {}, "time": time, "time_source": "TIMESTAMP", "received": time + n,
             "points": {"a": n, "b": n / 7, "c": "text" if n % 5 == 0 else -n}, "metadata": {}}
    return SinkRecord("t", 0, n, value, headers=identity(n, digest_of=b"%d" % n))

config = sink.HistorySinkConfig.parse({"retention.ms": "10800000"})
retention.time = type("Clock", (), {"monotonic": time.monotonic, "time_ns": lambda: 2 ** 62})
task = sink.HistorySinkTask(RecordingSinkContext(data_dir=folder), config)
task.start()
for number in range(first, BATCHES):
    task.put([record(n) for n in range(number * BATCH, (number + 1) * BATCH)])
    print(number, flush=True)
    time.sleep(float(pause))
task.flush({})
task.stop()
"""

STEPS = [
    *("before HistoryWriter", "after HistoryWriter", "before transact", "after transact"),
    *("before _is_known", "after _is_known", "before _write_rows", "after _write_rows"),
    *("before recompute", "after recompute", "before finish", "after finish"),
    *("before _delete", "after _delete", "before run", "after run"),
]


def start(folder, first, where="nowhere", passing=1, pause=0.0):
    command = [
        sys.executable,
        "-c",
        PROCESS,
        *map(str, (folder, BATCH, BATCHES, first, where, passing, pause)),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process):
    """The exit status, and the number of batches that were written."""
    written = [int(line) for line in process.communicate(timeout=120)[0].split()]
    return process.returncode, written[-1] + 1 if written else 0


def content(folder):
    """All rows and rollups; raises if they do not agree."""
    with closing(open_to_read(folder / FILE_NAME)) as connection:
        assert connection.pragma("integrity_check") == "ok"
        tables: dict[str, list[Any]] = {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("reading", "five_minutes", "one_hour", "record", "series")
        }
        floor = connection.execute("SELECT coalesce(max(hour), 0) FROM floor WHERE name = 'reading'").get
        check_rollups(connection, floor)
    return {**tables, "reading": [row for row in tables["reading"] if row[0] >= floor]}


def check_rollups(connection, floor):
    for width, table, start in (
        (FIVE_MINUTES, "five_minutes", f"hour * {HOUR} + slot * {FIVE_MINUTES}"),
        (HOUR, "one_hour", f"(day * 24 + hour_of_day) * {HOUR}"),
    ):
        for (series,) in connection.execute("SELECT id FROM series").fetchall():
            reducer = Reducer(width)
            rows = connection.execute(
                "SELECT hour * ?2 + at + ?2 / 2, CASE WHEN typeof(value) <> 'text' THEN value END, 0"
                " FROM reading WHERE series = ?1 AND hour >= ?3 ORDER BY 1",
                (series, HOUR, floor),
            ).fetchall()
            reducer.add_readings(0, rows)
            stored = connection.execute(
                f"SELECT {start}, coalesce(first, minimum), minimum, coalesce(maximum, minimum),"
                f" coalesce(last, maximum, minimum) FROM {table}"
                f" WHERE series = ? AND {start} >= ? AND minimum IS NOT NULL ORDER BY 1",
                (series, floor * HOUR),
            ).fetchall()
            assert [tuple(bucket) for bucket in reducer.buckets()] == stored


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The content of a file whose process is never killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(folder, 0)) == (0, BATCHES)
    expected = content(folder)
    assert len(expected["reading"]) < 3 * BATCH * BATCHES  # some have expired
    return expected


@pytest.mark.parametrize("where", STEPS)
def test_a_kill_at_any_step_of_a_batch_loses_and_doubles_nothing(where, undisturbed, tmp_path):
    passing = {"HistoryWriter": 1, "_is_known": 777}.get(where.split()[1], 17)
    status, written = finish(start(tmp_path, 0, where, passing))
    assert status == -signal.SIGKILL
    if (tmp_path / FILE_NAME).stat().st_size:
        check_written(tmp_path, written)
    assert finish(start(tmp_path, written)) == (0, BATCHES)
    assert content(tmp_path) == undisturbed


def check_written(folder: Path, batches: int):
    """What put has returned is stored, and the batch that was being written is stored whole or not at all."""
    records = len(content(folder)["record"])
    assert records in (batches * BATCH, (batches + 1) * BATCH) or expired(folder)


def expired(folder):
    with closing(apsw.Connection(str(folder / FILE_NAME))) as connection:
        return bool(connection.execute("SELECT count(*) FROM floor").get)


@pytest.mark.seeds(1)
def test_kills_at_random_moments_lose_and_double_nothing(seed, undisturbed, tmp_path):
    dice = random.Random(seed)
    written = kills = 0
    while written < BATCHES:
        process = start(tmp_path, written, pause=0.01)
        if kills < 8:
            time.sleep(dice.uniform(0.3, 1.2))
            process.kill()
            kills += 1
        status, reached = finish(process)
        assert status in (0, -signal.SIGKILL)
        written = max(written, reached)
    assert kills
    assert content(tmp_path) == undisturbed
    assert os.path.getsize(tmp_path / FILE_NAME)
