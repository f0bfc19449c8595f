"""The local log alone: owner and guests, crashes, a full disk, retention, the file itself."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from tieline.api import (
    DataDirInUseError,
    DataError,
    FatalError,
    RecordMetadata,
    RetriableError,
    StartupError,
    TopicPartition,
)
from tieline.api.partitioner import murmur2
from tieline.broker.local.codec import decode_headers, encode_headers
from tieline.broker.local.file import LogSettings, connect
from tieline.broker.local.log import LocalLog
from tieline.broker.local.ownership import Lock
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.local.writer import Writer
from tieline.broker.records import ProducerRecord, Unit

PATIENCE = 30.0
AT = TopicPartition("t", 0)


def _records(*numbers, size=0):
    return [ProducerRecord("t", b"%d" % n + b"." * size) for n in numbers]


def _values(store, offset=0):
    return [int(record.value.rstrip(b".")) for record in store.read_from("t", 0, offset, 1_000_000)]


def _until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _python(code, *arguments):
    """A real second process that runs this code."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# -- owner and guests


def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path):
    with Store(tmp_path / "log.db"), pytest.raises(DataDirInUseError, match=rf"process {os.getpid()};"):
        Store(tmp_path / "log.db")


def test_an_owner_in_another_process_is_named_and_after_its_death_the_next_one_starts(tmp_path):
    code = """
import sys, pathlib
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.local.writer import Writer
store = Store(pathlib.Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
    owner = _python(code, tmp_path / "log.db")
    with owner:
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(DataDirInUseError, match=rf"process {owner.pid};"):
            LocalLog.open(tmp_path)
        owner.kill()
    Store(tmp_path / "log.db").close()


def test_each_file_of_a_folder_has_an_owner_of_its_own(tmp_path):
    first, second = LocalLog.open(tmp_path), LocalLog.open(tmp_path, file="spool-x.db")
    assert first.cluster_id != second.cluster_id
    first.close()
    second.close()


GUEST = """
import sys, pathlib
from tieline.broker.local.log import LocalLog
from tieline.broker.port import ProducerRecord, Unit
log = LocalLog.open(pathlib.Path(sys.argv[1]), owner=False)
found = []
log.read("t", found.append)
print(len(found), flush=True)
for line in sys.stdin:
    producer = log.producer("guest", {})
    producer.send(Unit([ProducerRecord("t", line.strip().encode())]))
    (delivery,) = producer.poll(10)
    print(delivery.metadata[0].offset, flush=True)
log.close()
"""


def test_a_guest_in_another_process_reads_and_produces_and_the_waiting_consumer_sees_it_soon(tmp_path):
    log = LocalLog.open(tmp_path)
    log.store.append(_records(0, 1))
    consumer = log.consumer("g", "", {})
    consumer.subscribe(["t"], None, _Nobody())
    assert len(consumer.poll(10, 0)) == 2
    guest = _python(GUEST, tmp_path)
    with guest:
        assert guest.stdout.readline() == "2\n"
        delays = []
        for n in range(2, 12):
            guest.stdin.write(f"{n}\n")
            guest.stdin.flush()
            (record,) = consumer.poll(10, PATIENCE)
            delays.append(time.time() - record.timestamp / 1000)
            assert int(record.value or b"") == n
            assert guest.stdout.readline() == f"{n}\n"
        assert sorted(delays)[5] < 0.1  # half of them; one may meet a busy machine
        # The owner writes on: it must not trust what it knew of the end before.
        assert log.store.append(_records(12))[0].offset == 12
        guest.stdin.close()
        assert guest.wait(PATIENCE) == 0
    consumer.close(1)
    log.close()


def test_a_guest_sees_what_the_owner_commits_while_it_waits(tmp_path):
    with Store(tmp_path / "log.db") as owner, Store(tmp_path / "log.db", owner=False) as guest:
        version = guest.version
        thread = threading.Thread(target=lambda: owner.append(_records(0)))
        thread.start()
        assert guest.wait(version, PATIENCE) != version
        thread.join()
        assert _values(guest) == [0]


def test_a_topic_that_a_guest_creates_matches_a_pattern_of_the_owner(tmp_path):
    log, guest = LocalLog.open(tmp_path), LocalLog.open(tmp_path, owner=False)
    consumer = log.consumer("g", "", {})
    consumer.subscribe([], "t|u", _Nobody())
    assert consumer.poll(10, 0) == []
    guest.store.append(_records(7))
    assert [int(record.value or b"") for record in consumer.poll(10, PATIENCE)] == [7]
    guest.close()
    consumer.close(1)
    log.close()


class _Nobody:
    def assigned(self, partitions):
        pass

    def revoked(self, partitions):
        pass

    def lost(self, partitions):
        pass


def test_a_consumer_starts_a_recreated_topic_at_its_beginning(tmp_path):
    log = LocalLog.open(tmp_path)
    log.store.append(_records(*range(5)))
    consumer = log.consumer("g", "", {})
    consumer.subscribe(["t"], None, _Nobody())
    assert len(consumer.poll(10, PATIENCE)) == 5
    consumer.commit({AT: 5}, 1)
    log.delete_topic("t")
    log.store.append(_records(*range(100, 103)))
    assert [int(record.value or b"") for record in consumer.poll(10, PATIENCE)] == [100, 101, 102]
    assert consumer.committed([AT], 1) == {}
    consumer.close(1)
    log.close()


def test_an_exclusive_writer_writes_nothing_if_a_guest_wrote_meanwhile(tmp_path):
    log, guest = LocalLog.open(tmp_path), LocalLog.open(tmp_path, owner=False)

    def hold():
        with log.exclusive("t") as held:
            held.append(_records(1))
            guest.store.append(_records(0))

    with pytest.raises(RetriableError, match="another process wrote"):
        hold()
    assert _values(log.store) == [0]
    guest.close()
    log.close()


def test_a_writer_continues_when_its_commits_cannot_be_announced(tmp_path):
    def untold():
        raise OSError("the disk is unavailable for a moment")

    path = tmp_path / "log.db"
    connection = connect(path)
    writer = Writer(path, connection, Tables(connection, LogSettings()), untold)
    for number in range(3):
        appended = writer.run(partial(Tables.append, records=_records(number)), PATIENCE)
        assert appended.metadata == [RecordMetadata("t", 0, number)]
    writer.close()


# -- crashes


KILLED = """
import sys, pathlib
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.local.writer import Writer
from tieline.broker.port import ProducerRecord
store = Store(pathlib.Path(sys.argv[1]))
number = 0
while True:
    batch = [ProducerRecord("t", b"%d" % n) for n in range(number, number + 50)]
    store.append(batch)
    number += 50
    print(number, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 37, 150])
def test_a_killed_writer_loses_no_acknowledged_record(tmp_path, kill_after):
    writer = _python(KILLED, tmp_path / "log.db")
    with writer:
        for _ in range(kill_after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = 50 * (kill_after + len(writer.stdout.read().split()))
    with Store(tmp_path / "log.db") as store:
        values = _values(store)
        assert values == list(range(len(values)))
        assert acknowledged <= len(values) <= acknowledged + 50  # one batch may be safe and not reported
        assert store.size("t")[0] == len(values)
        assert store.append(_records(0))[0].offset == len(values)


def test_a_unit_and_its_source_offsets_are_one(tmp_path):
    log = LocalLog.open(tmp_path)
    producer = log.producer("", {})
    for n in range(20):
        producer.send(Unit(_records(n), "source", {"p": str(n)}))
        producer.poll(PATIENCE)
        assert log.source_offsets("source", 1) == {"p": str(n)}
    log.close()


# -- a full disk


def _limit(store, pages):
    """No more pages for the file: what SQLite then says is what it says on a full disk."""

    def change(tables):
        tables.connection.execute(f"PRAGMA max_page_count = {pages}")

    store.submit(change).result(PATIENCE)


def test_on_a_full_disk_appending_is_retriable_and_deleting_makes_room(tmp_path):
    with Store(tmp_path / "log.db", settings=LogSettings(reserve_bytes=4096)) as store:
        store.append(_records(*range(100), size=1000))
        _limit(store, 40)
        with pytest.raises(RetriableError, match="full"):
            store.append(_records(*range(100, 300), size=1000))
        assert _values(store) == list(range(100))
        store.commit("reader", {AT: 90})  # small things still fit
        assert store.delete_before("t", 0, 90).records == 90
        metadata = store.append(_records(*range(100, 150), size=1000))
        assert [m.offset for m in metadata] == list(range(100, 150))
        assert store.committed("reader") == {AT: 90}


def test_after_a_unit_that_did_not_fit_none_of_the_later_ones_is_written(tmp_path):
    log = LocalLog.open(tmp_path, settings=LogSettings(reserve_bytes=4096))
    log.store.append(_records(0))
    _limit(log.store, 30)
    producer = log.producer("", {})
    producer.send(Unit(_records(1)))
    producer.send(Unit(_records(*range(2, 300), size=1000), "c", {"p": "2"}))
    producer.send(Unit(_records(300), "c", {"p": "3"}))
    assert len(producer.poll(PATIENCE)) == 1
    for _ in range(2):
        producer.send(Unit(_records(301)))
        with pytest.raises(RetriableError):
            producer.poll(PATIENCE)
    assert producer.in_flight_bytes == 0
    assert _values(log.store) == [0, 1]
    assert log.source_offsets("c", 1) == {}
    log.close()


def _tiny_disk_works():
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


ON_A_TINY_DISK = """
import pathlib
from tieline.api import RetriableError
from tieline.broker.local.file import LogSettings, connect
from tieline.broker.local.ownership import Lock
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.local.writer import Writer
from tieline.broker.port import ProducerRecord
folder = pathlib.Path("/mnt/log")
store = Store(folder / "log.db")
assert (folder / "log.db.reserve").exists()
written = 0
try:
    while True:
        store.append([ProducerRecord("t", b"x" * 1000) for _ in range(100)])
        written += 100
except RetriableError:
    pass
assert written == store.size("t")[0] > 1000, written
assert not (folder / "log.db.reserve").exists()
assert store.delete_before("t", 0, written - 10).records == written - 10
assert len(store.append([ProducerRecord("t", b"x" * 1000) for _ in range(100)])) == 100
store.close()
store = Store(folder / "log.db")
assert store.size("t")[0] == 110
store.close()
"""


@pytest.mark.skipif(not _tiny_disk_works(), reason="a tiny disk of its own needs root and unshare")
def test_on_a_disk_that_is_really_full_deleting_works_with_the_reserve():
    script = f"mount -t tmpfs -o size=48m tmpfs /mnt && exec \"{sys.executable}\" -c '{ON_A_TINY_DISK}'"
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, timeout=60)


# -- retention


def test_nothing_is_deleted_before_the_groups_to_protect_are_known(tmp_path):
    settings = LogSettings(retention_ms=0, retention_interval=0.01)
    log = LocalLog.open(tmp_path, settings=settings)
    log.store.append(_records(*range(2000)))
    assert log.store.size("t")[0] == 2000
    log.protect({})
    _until(lambda: log.store.size("t") == (0, 0))
    assert log.store.append(_records(0))[0].offset == 2000
    log.close()


def test_what_a_protected_group_has_not_read_stays_and_the_rest_goes(tmp_path):
    log = LocalLog.open(tmp_path, settings=LogSettings(retention_ms=0, retention_interval=0.01))
    log.store.append(_records(*range(1500)))
    log.store.append([ProducerRecord("other", b"0")])
    log.store.commit("reads", {AT: 1200})
    log.store.commit("slow", {AT: 700})
    log.protect({"slow": ([], "t.*"), "reads": (["t"], None), "unrelated": (["u"], None)})
    _until(lambda: log.store.size("other")[0] == 0)
    _until(lambda: log.store.size("t")[0] == 800)
    log.store.commit("slow", {AT: 1300})
    _until(lambda: log.store.size("t")[0] == 300)
    assert _values(log.store) == list(range(1200, 1500))
    log.close()


def test_a_topics_own_retention_wins_and_compacted_topics_are_left_alone(tmp_path):
    log = LocalLog.open(tmp_path, settings=LogSettings(retention_ms=0, retention_interval=0.01))
    log.create_topic("t", config={"retention.ms": "-1", "retention.bytes": "5000"})
    log.create_topic("compacted", config={"cleanup.policy": "compact"})
    log.create_topic("old", config={"retention.ms": "3600000"})
    log.store.append([ProducerRecord("compacted", b"v", b"k")])
    log.store.append(_records(*range(100), size=98))
    now = time.time_ns() // 1_000_000
    log.store.append([ProducerRecord("old", b"v", timestamp=now - age) for age in (7_200_000, 3_700_000, 0)])
    log.protect({})
    _until(lambda: log.store.size("old")[0] == 1)
    _until(lambda: log.store.size("t")[1] <= 5000)
    assert log.store.size("t")[1] > 4800
    assert log.store.size("compacted")[0] == 1
    log.close()


# -- the store, as the spool uses it


def test_size_is_kept_through_appending_deleting_and_dropping(tmp_path):
    with Store(tmp_path / "log.db") as store:
        store.append([ProducerRecord("t", b"12345", b"key", (("h", b"v"),)) for _ in range(5000)])
        each = len(b"12345" + b"key" + encode_headers((("h", b"v"),)))
        assert store.size("t") == (5000, 5000 * each)
        assert store.delete_before("t", 0, 4500) == (4500, 4500 * each, 4500)
        assert store.delete_before("t", 0, 4500) == (0, 0, 4500)
        assert store.drop_oldest("t", 0, 100) == (100, 100 * each, 4600)
        assert store.size("t") == (400, 400 * each)
        assert store.drop_oldest("t", 0, 10_000) == (400, 400 * each, 5000)
        assert store.size("nothing") == (0, 0)
    with Store(tmp_path / "log.db") as store:
        assert store.append(_records(0))[0].offset == 5000


def test_a_read_is_bounded_by_records_and_by_bytes_and_gives_at_least_one(tmp_path):
    with Store(tmp_path / "log.db") as store:
        store.append(_records(*range(100), size=998))
        assert len(store.read_from("t", 0, 0, max_records=7)) == 7
        assert len(store.read_from("t", 0, 0, max_bytes=10_000)) == 11
        assert len(store.read_from("t", 0, 0, max_bytes=1)) == 1
        assert store.read_from("t", 0, 100) == []
        assert store.read_from("t", 9, 0) == []
        assert store.read_from("u", 0, 0) == []


def test_appending_from_many_threads_is_gapless_and_shares_transactions(tmp_path):
    with Store(tmp_path / "log.db") as store:
        store.create_topic("t")
        before = store.version
        offsets: list[int] = []

        def append(n):
            for _ in range(50):
                offsets.extend(m.offset for m in store.append(_records(n)))

        threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(offsets) == list(range(400))
        assert store.version - before < 400


def test_a_change_that_fails_harms_no_other_of_its_transaction(tmp_path):
    with Store(tmp_path / "log.db") as store:
        store.create_topic("t")
        hold = threading.Event()
        waiting = store.submit(lambda tables: hold.wait(PATIENCE))
        futures = [store.submit(partial(Tables.append, records=_records(n))) for n in range(3)]
        bad = store.submit(lambda tables: 1 // 0)
        futures.append(store.submit(partial(Tables.append, records=_records(3))))
        hold.set()
        waiting.result(PATIENCE)
        metadata = [future.result(PATIENCE).metadata for future in futures]
        assert metadata == [[RecordMetadata("t", 0, n)] for n in range(4)]
        assert isinstance(bad.exception(PATIENCE), FatalError)
        assert _values(store) == [0, 1, 2, 3]


def test_append_names_the_records_that_cannot_be_written_and_writes_the_others(tmp_path):
    with Store(tmp_path / "log.db", settings=LogSettings(max_message_bytes=10)) as store:
        with pytest.raises(DataError) as caught:
            store.append(
                [ProducerRecord("t", b"0"), ProducerRecord("t", b"x" * 11), ProducerRecord("t", b"1")]
            )
        assert set(caught.value.failures) == {1}
        assert _values(store) == [0, 1]


def test_a_change_that_is_late_is_retriable(tmp_path):
    with Store(tmp_path / "log.db") as store:
        begun, hold = threading.Event(), threading.Event()

        def slow(tables):
            begun.set()
            hold.wait(PATIENCE)

        store.submit(slow)
        assert begun.wait(PATIENCE)
        with pytest.raises(RetriableError, match="did not answer"):
            store.append(_records(0), timeout=0.05)
        hold.set()
        store.append(_records(1))
        assert _values(store) == [1]  # what was given up before it began was not done


def test_a_closed_store_says_so(tmp_path):
    store = Store(tmp_path / "log.db")
    store.close()
    store.close()
    for call in (lambda: store.append(_records(0)), lambda: store.size("t"), lambda: store.topics()):
        with pytest.raises(RetriableError, match="closed"):
            call()


def test_closing_ends_a_waiting_poll(tmp_path):
    log = LocalLog.open(tmp_path)
    consumer = log.consumer("g", "", {})
    consumer.subscribe(["t"], None, _Nobody())
    outcome: list[object] = []

    def poll():
        try:
            outcome.append(consumer.poll(1, PATIENCE))
        except RetriableError as error:
            outcome.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    _until(lambda: any(thread.name == "log.db" for thread in threading.enumerate()))  # it watches
    log.close()
    thread.join(PATIENCE)
    assert isinstance(outcome[0], RetriableError)


# -- the file


def test_the_write_ahead_log_starts_over_during_writing(tmp_path):
    with Store(tmp_path / "log.db") as store:
        largest = 0
        for _ in range(120):
            store.append(_records(*range(200), size=1000))
            largest = max(largest, (tmp_path / "log.db-wal").stat().st_size)
        assert (tmp_path / "log.db").stat().st_size > 20 << 20
        assert largest < 12 << 20


def test_a_file_of_a_newer_tieline_is_refused_with_the_fix(tmp_path):
    Store(tmp_path / "log.db").close()
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StartupError, match="format 99"):
        Store(tmp_path / "log.db")


def test_a_file_of_another_program_is_refused_and_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StartupError, match="another program"):
        Store(tmp_path / "log.db")
    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    connection.close()


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "log.db").write_bytes(b"no database, " * 100)
    with pytest.raises(StartupError, match=re.escape(str(tmp_path / "log.db"))):
        Store(tmp_path / "log.db")
    Lock(tmp_path / "log.db").release()  # the refusal has released it


def test_headers_survive_as_bytes():
    for headers in [(), (("", b""),), (("a", None), ("a", b"\0" * 70_000), ("é€😀", b"\xff"))]:
        assert decode_headers(encode_headers(headers)) == headers


def test_murmur2_is_kafkas():
    signed = {b"21": -973932308, b"foobar": -790332482, b"abc": 479470107, b"": 275646681}
    assert {key: (murmur2(key) ^ 1 << 31) - (1 << 31) for key in signed} == signed
