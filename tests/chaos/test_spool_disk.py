"""The disk under the spool tears, changes, fills up, or cannot be written: nothing acknowledged is lost
without a word, the reception goes on, and each sentence says what, where and the way out.

What these tests cannot show is a disk that confirms an fsync and forgets it: the tear is made where SQLite
had not yet been told that its bytes are safe.
"""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tieline.api import Fatal, RefuseToStart, SourceRecord
from tieline.runtime.scope import Counters
from tieline.runtime.spool import Limits, Spool
from tieline.testing.fake_bus import FakeBus
from tieline.testing.worker_process import WorkerProcess

LIMITS = Limits(1 << 30, drop_oldest=True, quarantine_bytes=1 << 20)
PAGE = 4096


def drained(spool):
    position = spool.start
    values: list[Any] = []
    while True:
        batch, following = spool.read(position, 50, 0)
        if following == position:
            return values
        values += [record.value for record in batch]
        position = following


@contextlib.contextmanager
def opened(path):
    counters = Counters()
    spool = Spool(path, LIMITS, counters)
    try:
        yield spool, counters
    finally:
        spool.close()


@pytest.fixture
def at_rest(tmp_path):
    """A spool of 500 records, all of them in its file, none in the write-ahead log; and what it holds."""
    path, values = tmp_path / "bus-0.db", [f"record {n:04} {'x' * 300}" for n in range(500)]
    with opened(path) as (spool, _):
        for start in range(0, 500, 20):
            spool.append([SourceRecord("t", value) for value in values[start : start + 20]])
    assert not path.with_name("bus-0.db-wal").exists()
    return path, values


# -- torn


def torn(data, at, how, dice):
    if how == "cut":
        return data[:at]
    if how == "garbage":
        return data[:at] + dice.randbytes(len(data) - at)
    if how == "zeros":
        return data[:at] + bytes(len(data) - at)
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


@pytest.mark.parametrize("how", ["cut", "garbage", "zeros", "bit"])
def test_a_torn_page_costs_what_was_written_at_or_behind_the_tear_and_nothing_before(tmp_path, how):
    """40 spools, each torn in a place of its own: exactly the batches that were safe before it are there."""
    dice = random.Random(f"torn {how}")
    path = tmp_path / "whole" / "s.db"
    log = path.with_name("s.db-wal")
    values: list[str] = []
    ends: list[tuple[int, int]] = []  # the length of the write-ahead log, and how many records are safe then
    with opened(path) as (spool, _):
        ends.append((log.stat().st_size, 0))
        for _ in range(25):
            batch = [f"{len(values) + n} {'x' * dice.randrange(2_000)}" for n in range(dice.randrange(1, 12))]
            spool.append([SourceRecord("t", value) for value in batch])
            values += batch
            ends.append((log.stat().st_size, len(values)))
        whole, data = path.read_bytes(), log.read_bytes()
    assert len(data) == ends[-1][0]
    for number in range(40):
        at = dice.randrange(ends[0][0], len(data))
        copy = tmp_path / str(number) / "s.db"
        copy.parent.mkdir()
        copy.write_bytes(whole)
        copy.with_name("s.db-wal").write_bytes(torn(data, at, how, dice))
        safe = max(records for end, records in ends if end <= at)
        with opened(copy) as (spool, _):
            assert drained(spool) == values[:safe], (at, safe)
            spool.append([SourceRecord("t", "after")])
            assert drained(spool) == [*values[:safe], "after"]


# -- damaged at rest


@pytest.mark.parametrize("where", ["in its value", "in its identity"])
def test_a_record_that_the_disk_has_changed_is_quarantined_told_and_costs_itself_alone(
    tmp_path, caplog, where
):
    path = tmp_path / "bus-0.db"
    values = [f"record {n:04} {'x' * 300}" for n in range(500)]
    with opened(path) as (spool, _):
        spool.append(
            [SourceRecord("t", v, headers=(("tieline.id", b"id " + v[:11].encode()),)) for v in values]
        )
    data = bytearray(path.read_bytes())
    marker = b"record 0123 " if where == "in its value" else b"id record 0123"
    data[data.index(marker) + 10] ^= 1
    path.write_bytes(data)
    with opened(path) as (spool, counters):
        assert drained(spool) == values[:123] + values[124:]
        assert counters.all() == {"quarantined.damaged": 1}
        (kept,) = spool._store.read_from("quarantine", 0, 0)
    assert b"x" * 300 in kept.value
    (told,) = caplog.messages
    assert told == (
        "what cannot be used (damaged: record 123 of the spool: its checksum does not fit; check the disk) "
        f"goes as it came to the quarantine of {path}; the others go on, 'tieline status' counts it"
    )


def test_whatever_bit_a_disk_turns_no_record_comes_out_changed(at_rest, tmp_path):
    path, values = at_rest
    dice = random.Random("bits")
    data = path.read_bytes()
    known = set(values)
    for _ in range(60):
        changed = tmp_path / "changed" / "s.db"
        changed.parent.mkdir(exist_ok=True)
        changed.write_bytes(torn(data, dice.randrange(len(data)), "bit", dice))
        with contextlib.suppress(Fatal, RefuseToStart), opened(changed) as (spool, counters):
            got = drained(spool)
            assert set(got) <= known
            assert len(got) + counters["quarantined.damaged"] == len(values)
        shutil.rmtree(changed.parent)


WAY_OUT = (
    "is damaged (database disk image is malformed): check the disk; move the file and its -wal away, and the "
    "next start begins an empty one; SQLite's '.recover' saves what can still be read of the old one"
)


def bus_worker(folder, address, *more, **settings):
    source = {
        "name": "bus",
        "connector.class": "volttron_bus",
        "volttron.address": address,
        "volttron.identity": "tieline",
        "platform.name": "lab",
        "topic": "bus",
        "errors.retry.delay.max.ms": "200",
    }
    return WorkerProcess(folder, settings, [source, *more])


def publish(bus, numbers):
    for number in numbers:
        bus.publish(f"devices/campus/d{number % 3}/all", {}, [{"n": number, "filler": "x" * 500}, {}])


def spooled(ledger):
    return ledger["bus"]["counters"].get("spooled", 0)


def test_a_damaged_page_stops_the_pump_with_the_way_out_and_not_the_reception(at_rest, tmp_path):
    path, values = at_rest
    data = bytearray(path.read_bytes())
    page = data.index(values[300].encode()) // PAGE
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    (tmp_path / "data" / "spools").mkdir(parents=True)
    there = tmp_path / "data" / "spools" / "bus-0.db"
    there.write_bytes(data)
    with FakeBus() as bus, bus_worker(tmp_path, bus.address, **{"value.converter": "string"}) as worker:
        bus.wait_for_subscriber("tieline")
        ledger = worker.wait_for_ledger(lambda ledger: ledger["bus"]["state"] == "FAILED")
        assert ledger["bus"]["trace"] == f"SPOOL: the log file {there} {WAY_OUT}"
        publish(bus, range(50))
        worker.wait_for_ledger(lambda ledger: spooled(ledger) == 50)
        assert worker.stop() == 1


def test_a_spool_that_cannot_even_be_opened_is_refused_with_the_way_out_and_left_as_it_is(at_rest, tmp_path):
    path, _ = at_rest
    cut = path.read_bytes()[: 20 * PAGE + 77]
    (tmp_path / "data" / "spools").mkdir(parents=True)
    there = tmp_path / "data" / "spools" / "bus-0.db"
    there.write_bytes(cut)
    worker = bus_worker(tmp_path, "tcp://127.0.0.1:1")
    worker.start()
    assert worker.wait() == 2
    assert [e["event"] for e in worker.events if e["level"] == "text"] == [f"the log file {there} {WAY_OUT}"]
    assert there.read_bytes() == cut


# -- full


class FileSizeLimit:
    """Every write to a file fails, as on a full disk; without any right. SQLite calls it an I/O error."""

    sentence = "cannot be used now"

    def __init__(self, folder):
        self.folder = folder

    def fill(self, worker):
        self._set(worker, 0)

    def free(self, worker):
        self._set(worker, resource.RLIM_INFINITY)

    def _set(self, worker, most):
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (most, hard))


class SmallDisk:
    """A file system of 80 MB, filled by somebody else's file."""

    sentence = "is full; free some space, or lower spool.max.bytes or log.retention.bytes"

    def __init__(self, folder):
        self.folder = folder

    def fill(self, worker):
        with open(self.folder / "ballast", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))

    def free(self, worker):
        (self.folder / "ballast").unlink()


def in_a_namespace(options, command, **env):
    """Run a command for which /mnt is a file system of its own, in memory, that nobody else sees."""
    script = f'mount -t tmpfs {options} tmpfs /mnt && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, command)],
        env={**os.environ, **env},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def _small_disk_works():
    try:
        return in_a_namespace("-o size=1m", ["true"]).returncode == 0
    except OSError:
        return False


needs_a_small_disk = pytest.mark.skipif(
    not _small_disk_works(), reason="a small disk of its own needs root and unshare"
)


@pytest.mark.parametrize("disk", [FileSizeLimit, pytest.param(SmallDisk, marks=needs_a_small_disk)])
def test_a_full_disk_drops_counted_and_alarmed_and_all_else_arrives_once_when_there_is_space_again(
    disk, tmp_path, request, mongo_uri
):
    small = os.environ.get("TIELINE_TEST_SMALL_DISK")
    if disk is SmallDisk and small is None:  # once more, where /mnt is a small disk that nobody else sees
        again = [sys.executable, "-m", "pytest", "-q", "-x", f"{__file__}::{request.node.name}"]
        done = in_a_namespace(
            "-o size=80m", again, TIELINE_TEST_SMALL_DISK="/mnt", TIELINE_TEST_MONGO_URI=mongo_uri
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return
    full = disk(Path(small or tmp_path))
    database = f"disk_{disk.__name__}"
    sink = {
        "name": "mongo",
        "connector.class": "mongo",
        "topics": "bus",
        "connection.uri": mongo_uri,
        "database": database,
        "collection": "c",
        "layout": "cloudagent",
    }
    with FakeBus() as bus:
        worker = bus_worker(tmp_path, bus.address, sink, **{"data.dir": str(full.folder / "data")})
        with worker:
            bus.wait_for_subscriber("tieline")
            publish(bus, range(300))
            worker.wait_for_ledger(lambda ledger: ledger["mongo"]["delivered"] == 300)
            full.fill(worker)
            sent = 300
            while not worker.last_ledger["bus"]["counters"].get("dropped.spool_unavailable"):
                publish(bus, range(sent, sent + 100))
                sent += 100
                worker.wait_for_ledger(lambda ledger, sent=sent: handled(ledger) == sent)
            publish(bus, range(sent, sent + 500))
            sent += 500
            ledger = worker.wait_for_ledger(lambda ledger: handled(ledger) == sent)
            assert ledger["bus"]["state"] == ledger["mongo"]["state"] == "RUNNING"
            dropped = ledger["bus"]["counters"]["dropped.spool_unavailable"]
            alarms = [e for e in worker.events if e.get("alarm") == "spool.unavailable"]
            assert full.sentence in alarms[0]["event"]
            assert str(full.folder / "data" / "spools" / "bus-0.db") in alarms[0]["event"]
            assert len(alarms) == 1  # an alarm, not a flood
            full.free(worker)
            before = -1
            while before != dropped:  # the first that comes finds out that there is space again
                before = dropped
                publish(bus, range(sent, sent + 100))
                sent += 100
                ledger = worker.wait_for_ledger(lambda ledger, sent=sent: handled(ledger) == sent)
                dropped = ledger["bus"]["counters"]["dropped.spool_unavailable"]
            last = range(sent, sent + 300)
            publish(bus, last)
            sent += 300
            ledger = worker.wait_for_ledger(
                lambda ledger: (
                    handled(ledger) == sent
                    and ledger["bus"]["spool_records"] == 0
                    and ledger["mongo"]["delivered"] == spooled(ledger)
                    and ledger["mongo"]["in_flight"] == 0
                )
            )
            assert worker.stop() == 0
        assert bus.dropped == 0
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(mongo_uri) as client:
        documents: list[Any] = list(client[database]["c"].find({}, {"message.n": 1}))
        client.drop_database(database)
    numbers = sorted(document["message"][0]["n"] for document in documents)
    print(f"{disk.__name__}: {sent} published, {sent - len(numbers)} dropped and counted")
    assert len(numbers) == len(set(numbers)) == spooled(ledger)
    assert numbers[:300] == list(range(300))
    assert numbers[-300:] == list(last)


def handled(ledger):
    """How many messages the spool has taken, or dropped and counted."""
    return spooled(ledger) + ledger["bus"]["counters"].get("dropped.spool_unavailable", 0)


# -- a folder that is none


@pytest.mark.parametrize("what", ["data", "data/spools"])
def test_a_file_where_a_folder_must_be_is_told_before_anything_starts(tmp_path, what):
    place = tmp_path / what
    place.parent.mkdir(exist_ok=True)
    place.write_text("in the way")
    worker = bus_worker(tmp_path, "tcp://127.0.0.1:1")
    worker.start()
    assert worker.wait() == 2
    told = [e["event"] for e in worker.events if e["level"] == "text"]
    assert told == [
        f"the folder {place} cannot be written: File exists; check data.dir, its rights and its disk"
    ]
    assert place.read_text() == "in the way"


@needs_a_small_disk
def test_a_disk_that_can_only_be_read_is_told_before_anything_starts(tmp_path):
    bus_worker(tmp_path, "tcp://127.0.0.1:1", **{"data.dir": "/mnt/data"})  # its files
    files = [tmp_path / "worker.json", tmp_path / "bus.json"]
    done = in_a_namespace("-o ro", [sys.executable, "-m", "tieline.cli.main", "run", *files])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "the folder /mnt/data cannot be written: Read-only file system; check data.dir, its rights and its "
        "disk\n"
    )
