"""The disk under the spool tears pages, changes bits, fills up, or is read-only.

Every lost record is reported, the reception continues, and each message has the problem, the place and the
fix. These tests do not cover a disk that confirms an fsync and loses the data: they tear pages whose fsync
has not returned yet.
"""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import apsw
import pymongo
import pytest

from tieline.api import FatalError, Schema, SourceRecord, StartupError
from tieline.broker.local.codec import decode_headers
from tieline.broker.local.store import Store
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

LIMITS = Limits(1 << 30, drop_oldest=True, quarantine_bytes=1 << 20)
PAGE = 4096


def drained(spool):
    position = spool.start
    values: list[Any] = []
    while True:
        batch, following, *_ = spool.read(position, 50, 0)
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
    """A spool of 500 records, all of them in its file and none in the write-ahead log; and their values."""
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
def test_a_torn_page_loses_only_what_was_written_at_or_after_the_tear(tmp_path, how):
    """40 spools, each torn at another place: exactly the batches before the tear are read."""
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
def test_a_record_that_the_disk_has_changed_is_quarantined_and_reported_and_no_other_is_lost(
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
    store = Store(path)
    (kept,) = store.read_from("quarantine", 0, 0)
    store.close()
    assert b"x" * 300 in (kept.value or b"")
    (message,) = caplog.messages
    assert message == (
        "what cannot be used (damaged: record 123 of the spool: its checksum does not fit; check the disk) "
        f"goes unchanged to the quarantine of {path}; other input is not affected, 'tieline status' counts it"
    )


def test_no_flipped_bit_on_disk_changes_a_record(at_rest, tmp_path):
    path, values = at_rest
    dice = random.Random("bits")
    data = path.read_bytes()
    known = set(values)
    for _ in range(60):
        changed = tmp_path / "changed" / "s.db"
        changed.parent.mkdir(exist_ok=True)
        changed.write_bytes(torn(data, dice.randrange(len(data)), "bit", dice))
        with contextlib.suppress(FatalError, StartupError), opened(changed) as (spool, counters):
            values_left = drained(spool)
            assert set(values_left) <= known
            assert len(values_left) + counters["quarantined.damaged"] + counters["lost.spool_damaged"] == len(
                values
            )
        shutil.rmtree(changed.parent)


@pytest.fixture(scope="module")
def small_spool(tmp_path_factory):
    """The bytes of a spool of six records in one page, and the records."""
    path = tmp_path_factory.mktemp("small") / "s.db"
    records = [
        SourceRecord("t", f"record {n}", "key", headers=(("tieline.id", b"id %d" % n), ("x", None)))
        for n in range(6)
    ]
    with opened(path) as (spool, _):
        spool.append(records)
    return path.read_bytes(), records


def all_records(spool):
    records: list[SourceRecord] = []
    position = spool.start
    while True:
        batch, following, *_ = spool.read(position, 50, 0)
        if following == position:
            return records, position
        records, position = records + batch, following


def check_only_one_is_damaged(spool, counters, records, damaged):
    """Check that all others are read unchanged, once and in order, and are removed once acknowledged."""
    got, position = all_records(spool)
    others = [record for n, record in enumerate(records) if n != damaged]
    assert got in (others, records)
    assert counters["quarantined.damaged"] + counters["lost.spool_damaged"] == len(records) - len(got)
    spool.save({spool.id: str(position)})
    assert (spool.start, spool.waiting) == (6, (0, 0))
    spool.append([SourceRecord("t", "after")])
    assert drained(spool) == ["after"]


@pytest.mark.parametrize("bit", range(8))
def test_a_damaged_byte_of_a_stored_row_loses_only_that_record(bit, small_spool, tmp_path):
    """Each byte of the row in turn: its length, its number, its columns' types, and their content."""
    data, records = small_spool
    start, end = data.index(b"id 3x") + 5, data.index(b"id 2x") + 5  # SQLite fills a page from its end
    for at in range(start, end):
        path = tmp_path / str(at) / "s.db"
        path.parent.mkdir()
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        with opened(path) as (spool, counters):
            check_only_one_is_damaged(spool, counters, records, damaged=2)
        shutil.rmtree(path.parent)  # each has a reserve of 16 MB


DAMAGE = [
    *(f"{column} = {value}" for column in ("value", "headers", "key") for value in ("NULL", "x''", "x'00'")),
    *(f"{column} = CAST(x'ff' AS TEXT)" for column in ("value", "headers", "key")),
    *(f"{column} = 7" for column in ("value", "headers", "timestamp")),
    "timestamp = -9223372036854775808",
    "value = zeroblob(30000000)",
    "headers = x'ffff'",
    "position = -5",
    "position = 3",
    "position = position + 4",
    "position = position + 1000",
    "position = position + (1 << 40)",
    "position = 9223372036854775807",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_column_of_a_stored_row_loses_only_that_record(damage, small_spool, tmp_path):
    data, records = small_spool
    path = tmp_path / "s.db"
    path.write_bytes(data)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'record'")
    connection.close()
    connection = apsw.Connection(str(path))
    connection.execute(f"UPDATE record SET {damage} WHERE position = (1 << 40 | 2)")
    connection.close()
    with opened(path) as (spool, counters):
        check_only_one_is_damaged(spool, counters, records, damaged=2)


def test_a_record_that_version_0_1_wrote_is_read_and_its_damage_is_found(small_spool, tmp_path):
    data, records = small_spool
    path = tmp_path / "s.db"
    path.write_bytes(data)
    connection = apsw.Connection(str(path))
    rows: Any = connection.execute("SELECT position, value, headers FROM record").fetchall()
    for position, value, headers in rows:
        checksum = zlib.crc32(value[4:])
        for name, content in decode_headers(headers):
            checksum = zlib.crc32(content or b"", zlib.crc32(name.encode(), checksum))
        old = checksum.to_bytes(4, "big") + value[4:]
        connection.execute("UPDATE record SET value = ? WHERE position = ?", (old, position))
    longer = b"\x02\x00\x0b" + headers[3:]  # the last record's first name, with one more byte
    connection.execute("UPDATE record SET headers = ? WHERE position = ?", (longer, position))
    connection.close()
    with opened(path) as (spool, counters):
        assert all_records(spool)[0] == records[:5]
        assert counters.all() == {"quarantined.damaged": 1}


def test_a_damaged_schema_loses_only_its_records_and_none_is_read_with_another(tmp_path, caplog):
    path = tmp_path / "s.db"
    schemas = [
        Schema.parse(f'{{"type":"record","name":"t.{name}","fields":[{{"name":"n","type":"long"}}]}}')
        for name in ("One", "Two")
    ]
    with opened(path) as (spool, _):
        spool.append([SourceRecord("t", {"n": n}, value_schema=schemas[n % 2]) for n in range(10)])
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"t.Two"', b'"t.Twp"'))
    with opened(path) as (spool, counters):
        assert drained(spool) == [{"n": n} for n in range(0, 10, 2)]
        assert counters.all() == {"quarantined.damaged": 5}
        spool.append([SourceRecord("t", {"n": 11}, value_schema=schemas[1])])
        assert drained(spool)[-1] == {"n": 11}
    assert f"the schema 1 in the spool {path} is damaged" in caplog.messages[0]


# -- committed, and lost


@pytest.fixture
def crashed(tmp_path):
    """The files of a killed worker: 200 records in batches of 20, the first 50 acknowledged; the records."""
    path = tmp_path / "running" / "s.db"
    with opened(path) as (spool, _):
        for start in range(0, 200, 20):
            spool.append([SourceRecord("t", f"record {n} {'x' * 300}") for n in range(start, start + 20)])
        records, _ = all_records(spool)
        spool.save({spool.id: "50"})
        shutil.copytree(path.parent, tmp_path / "crashed", ignore=shutil.ignore_patterns("*.bell"))
    return tmp_path / "crashed" / "s.db", records


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8, 0.9])
def test_records_that_a_damaged_write_ahead_log_has_lost_are_reported_with_their_number(
    crashed, part, caplog
):
    path, records = crashed
    log = path.with_name("s.db-wal")
    data = bytearray(log.read_bytes())
    at = 32 + int(part * (len(data) - 32))
    data[at : at + 100] = bytes(100 * [0xAA])
    log.write_bytes(data)
    with opened(path) as (spool, counters):
        got, _ = all_records(spool)
        lost = counters["lost.spool_damaged"]
        undelivered = [record for record in got if record in records[50:]]
        assert len(undelivered) + lost == 150
        assert lost > 0
        spool.append([SourceRecord("t", "after")])
        after, position = all_records(spool)
        assert after[-1].headers not in [record.headers for record in records]  # no number is reused
        assert counters.all() == {"lost.spool_damaged": lost, "spooled": 1}
    alarms = [r for r in caplog.records if getattr(r, "alarm", "") == "spool.lost"]
    assert [r.getMessage().partition(" are lost")[0] for r in alarms] == [
        f"{lost} records that were safe in the spool {path}"
    ]
    with opened(path) as (spool, counters):
        assert (all_records(spool)[0], counters.all()) == (after, {})  # and not reported again
        spool.save({spool.id: str(position)})


def test_a_spool_that_lost_nothing_reports_nothing_even_with_an_implausible_mark(crashed):
    path, records = crashed
    mark = path.with_name("s.db.mark")
    whole = mark.read_bytes()
    for content in (whole, whole.replace(b" 200 ", b" 900 "), b"", b"\xff" * 300, whole[:60]):
        mark.write_bytes(content)
        with opened(path) as (spool, counters):
            assert (all_records(spool)[0], counters.all()) == (records[50:], {})


def test_a_deleted_spool_file_is_reported_with_the_number_of_its_records(crashed, caplog):
    path, _ = crashed
    path.unlink()
    path.with_name("s.db-wal").unlink()
    with opened(path) as (_, counters):
        assert counters.all() == {"lost.spool_damaged": 150}
    assert "the file was replaced by another one" in caplog.messages[0]


FIX = (
    "is damaged (database disk image is malformed): check the disk. If you move the file and its -wal "
    "elsewhere, the next start creates an empty one; SQLite's '.recover' saves what is still readable"
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


def test_a_damaged_page_stops_the_pump_with_the_fix_but_not_the_reception(at_rest, tmp_path):
    path, values = at_rest
    data = bytearray(path.read_bytes())
    page = data.index(values[300].encode()) // PAGE
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    (tmp_path / "data" / "spools").mkdir(parents=True)
    spool = tmp_path / "data" / "spools" / "bus-0.db"
    spool.write_bytes(data)
    with FakeRouter() as bus, bus_worker(tmp_path, bus.address, **{"value.converter": "string"}) as worker:
        bus.wait_for_subscriber("tieline")
        ledger = worker.wait_for_ledger(lambda ledger: ledger["bus"]["state"] == "RESTARTING")
        assert ledger["bus"]["trace"] == f"SPOOL: the log file {spool} {FIX}"
        publish(bus, range(50))
        worker.wait_for_ledger(lambda ledger: spooled(ledger) == 50)
        assert worker.stop() == 1


def test_a_spool_that_cannot_be_opened_is_rejected_with_the_fix_and_left_unchanged(at_rest, tmp_path):
    path, _ = at_rest
    cut = path.read_bytes()[: 20 * PAGE + 77]
    (tmp_path / "data" / "spools").mkdir(parents=True)
    spool = tmp_path / "data" / "spools" / "bus-0.db"
    spool.write_bytes(cut)
    worker = bus_worker(tmp_path, "tcp://127.0.0.1:1")
    worker.start()
    assert worker.wait() == 2
    assert [e["event"] for e in worker.events if e["level"] == "text"] == [f"the log file {spool} {FIX}"]
    assert spool.read_bytes() == cut


# -- full


class FileSizeLimit:
    """Lets every write to a file fail, as a full disk does. Needs no rights; SQLite reports an I/O error."""

    sentence = "cannot be used at present"

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
    """A file system of 80 MB, filled by another program's file."""

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
    """Run a command for which /mnt is a private file system in memory."""
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
def test_a_full_disk_drops_records_with_a_count_and_an_alarm_and_the_others_arrive_once(
    disk, tmp_path, request, mongo_uri
):
    small = os.environ.get("TIELINE_TEST_SMALL_DISK")
    if disk is SmallDisk and small is None:  # run this test again, where /mnt is a private small disk
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
    with FakeRouter() as bus:
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
            while before != dropped:  # the next message finds that there is space again
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
    """Return how many messages the spool has stored, or dropped and counted."""
    return spooled(ledger) + ledger["bus"]["counters"].get("dropped.spool_unavailable", 0)


# -- invalid folders


@pytest.mark.parametrize("what", ["data", "data/spools"])
def test_a_file_in_place_of_a_folder_is_reported_before_anything_starts(tmp_path, what):
    place = tmp_path / what
    place.parent.mkdir(exist_ok=True)
    place.write_text("in the way")
    worker = bus_worker(tmp_path, "tcp://127.0.0.1:1")
    worker.start()
    assert worker.wait() == 2
    messages = [e["event"] for e in worker.events if e["level"] == "text"]
    assert messages == [
        f"the folder {place} cannot be written: Not a directory; check data.dir, its permissions and its disk"
    ]
    assert place.read_text() == "in the way"


@needs_a_small_disk
def test_a_read_only_disk_is_reported_before_anything_starts(tmp_path):
    bus_worker(tmp_path, "tcp://127.0.0.1:1", **{"data.dir": "/mnt/data"})  # its files
    files = [tmp_path / "worker.json", tmp_path / "bus.json"]
    done = in_a_namespace("-o ro", [sys.executable, "-m", "tieline.cli.main", "run", *files])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "the folder /mnt/data cannot be written: Read-only file system; check data.dir, its permissions and "
        "its disk\n"
    )
