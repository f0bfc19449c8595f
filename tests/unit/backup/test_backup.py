"""Backups of a worker's folder: their order, what refuses, and a process killed at each step of a restore."""

import json
import os
import shutil
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tieline.api import DataDirInUseError, FatalError, SourceRecord, StartupError, TopicPartition
from tieline.backup.contents import steps
from tieline.backup.manifest import read_manifest
from tieline.backup.rate_limit import RateLimit
from tieline.backup.restoring import restore_backup
from tieline.backup.taking import Source, take_backup
from tieline.broker.local.log import LocalLog
from tieline.broker.local.restored import SKIPPED_OFFSETS
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters

T = TopicPartition("t", 0)


class Silent:
    def begin(self, what, total): ...

    def advance(self, size): ...


def take(data, folder, rate=0):
    return take_backup(Source(data, {"host": "h"}), folder, rate, Silent())


def restore(folder, data, **options):
    return restore_backup(folder, data, Silent(), **options)


def write(log, *values):
    log.create_topic("t")
    log.store.append([ProducerRecord("t", b"%d" % value) for value in values])


def values(log, topic="t"):
    found: list[ConsumedRecord] = []
    log.read(topic, found.append)
    return [int(record.value or b"") for record in found]


@pytest.fixture
def data(tmp_path):
    """A folder with five records, of which a group has read three, and with files of all kinds."""
    data = tmp_path / "data"
    with closing(LocalLog.open(data)) as log:
        write(log, *range(5))
        log.store.commit("behind", {T: 3})
        log.store.commit("done", {T: 5})
        log.changelogs()
    (data / "audit.log").write_bytes(b"one\ntwo\n")
    (data / "audit.log.head").write_bytes(b"2\n")
    (data / "workers").mkdir()
    (data / "workers" / "h-1.json").write_text("{}")
    return data


def test_files_are_copied_in_the_order_that_loses_nothing():
    names = ["audit.log", "audit.log.head", "history.db", "ledger.db", "log.db", "log.db-wal", "log.db.lock"]
    names += [
        "backfill/b-0.received",
        "log.db.reserve",
        "pages.db",
        "spools/b-0.db",
        "spools/b-0.db.mark",
        "workers/h-1.json",
    ]
    order = [[file.path for file in step] for step in steps(names)]
    assert order == [
        ["backfill/b-0.received"],
        ["spools/b-0.db"],
        ["log.db", "ledger.db"],
        ["audit.log.head"],
        ["audit.log"],
        ["history.db"],
        ["pages.db"],
    ]


def test_a_backup_beside_a_writer_has_every_record_that_was_acknowledged_before(data, tmp_path):
    stop = threading.Event()
    written = [0]
    with closing(LocalLog.open(data)) as log:

        def run():
            while not stop.is_set():
                write(log, 1000 + written[0])
                written[0] += 1

        writer = threading.Thread(target=run)
        writer.start()
        try:
            while written[0] < 50:
                stop.wait(0.001)
            before = written[0]
            manifest = take(data, tmp_path / "backup", rate=1 << 20)
            after = written[0]
        finally:
            stop.set()
            writer.join()
    assert after > before  # the writer did not wait for the backup
    restored = tmp_path / "restored"
    restore(tmp_path / "backup", restored)
    with closing(LocalLog.open(restored)) as log:
        found = values(log)
    assert found == [*range(5), *range(1000, 1000 + len(found) - 5)]
    assert before + 5 <= len(found) <= after + 5
    assert {file.problem for file in manifest.files} == {""}


def test_all_files_of_a_backup_are_private_and_the_manifest_names_each(data, tmp_path):
    folder = tmp_path / "backup"
    manifest = take(data, folder)
    assert sorted(file.path for file in manifest.files) == [
        "audit.log",
        "audit.log.head",
        "ledger.db",
        "log.db",
    ]
    assert read_manifest(folder) == manifest
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert sorted(p.name for p in (folder / "data").iterdir()) == sorted(f.path for f in manifest.files)


def test_a_restored_log_gives_no_offset_twice_and_groups_continue_where_they_were(data, tmp_path):
    take(data, tmp_path / "backup")
    restore(tmp_path / "backup", data, replace=True)
    with closing(LocalLog.open(data)) as log:
        write(log, 5)
        found: list[ConsumedRecord] = []
        log.read("t", found.append)
        assert [(int(r.value or b""), r.offset) for r in found] == [
            *((n, n) for n in range(5)),
            (5, SKIPPED_OFFSETS + 5),
        ]
        assert log.store.committed("done") == {T: SKIPPED_OFFSETS + 5}
        assert log.store.committed("behind") == {T: 3}
        assert log.store.restored_at > 0
        assert log.changelogs().restored_at > 0


def test_the_lag_after_a_restore_counts_no_offsets_without_a_record(data, tmp_path):
    take(data, tmp_path / "backup")
    restore(tmp_path / "backup", data, replace=True)

    class Listener:
        def assigned(self, partitions): ...

        revoked = lost = assigned

    with closing(LocalLog.open(data)) as log:
        consumer = log.consumer("behind", "c", {})
        consumer.subscribe(["t"], None, Listener())
        assert [record.offset for record in consumer.poll(1, 1)] == [3]
        assert 1 <= (consumer.lag()[T] or 0) <= 5
        assert [record.offset for record in consumer.poll(1, 1)] == [4]
        assert consumer.poll(1, 0) == []
        assert consumer.lag() == {T: 0}
        write(log, 5)
        assert [record.offset for record in consumer.poll(1, 1)] == [SKIPPED_OFFSETS + 5]


def test_a_spool_that_is_restored_twice_returns_what_waited_and_reports_no_loss(tmp_path):
    def opened(counters):
        return Spool(tmp_path / "data" / "spools" / "bus-0.db", Limits(1 << 20, True, 1 << 20), counters)

    with closing(opened(Counters())) as spool:
        spool.append([SourceRecord("t", {"n": n}) for n in range(3)])
    for number in range(2):
        take(tmp_path / "data", tmp_path / f"backup{number}")
        restore(tmp_path / f"backup{number}", tmp_path / "data", replace=True)
        with closing(opened(Counters())) as spool:
            spool.append([SourceRecord("t", {"n": 3 + number})])
    counters = Counters()
    with closing(opened(counters)) as spool:
        found, position, ids = [], spool.start, []
        while batch := spool.read(position, 10, 0).records:
            position = spool.read(position, 10, 0).position
            found += [record.value["n"] for record in batch]
            ids += [dict(record.headers)["tieline.id"] for record in batch]
        assert found == [0, 1, 2, 3, 4]
        assert len(set(ids)) == 5
        assert position == 2 * SKIPPED_OFFSETS + 5
    assert counters["lost.spool_damaged"] == 0


def test_an_audit_log_that_continues_the_backup_is_kept_with_its_head(data, tmp_path):
    take(data, tmp_path / "backup")
    (data / "audit.log").write_bytes(b"one\ntwo\nthree\n")
    (data / "audit.log.head").write_bytes(b"3\n")
    restored = restore(tmp_path / "backup", data, replace=True)
    assert restored.kept == ["audit.log"]
    assert (data / "audit.log").read_bytes() == b"one\ntwo\nthree\n"
    assert (data / "audit.log.head").read_bytes() == b"3\n"


def test_an_audit_log_with_another_history_is_that_of_the_backup(data, tmp_path):
    take(data, tmp_path / "backup")
    (data / "audit.log").write_bytes(b"one\nTWO\nthree\n")
    restored = restore(tmp_path / "backup", data, replace=True)
    assert restored.kept == []
    assert (data / "audit.log").read_bytes() == b"one\ntwo\n"
    assert (restored.replaced / "audit.log").read_bytes() == b"one\nTWO\nthree\n"


def test_a_line_that_was_being_written_is_not_in_the_copy(data, tmp_path):
    (data / "audit.log").write_bytes(b"one\ntwo\nthr")
    take(data, tmp_path / "backup")
    assert (tmp_path / "backup" / "data" / "audit.log").read_bytes() == b"one\ntwo\n"


def test_a_folder_that_is_not_empty_or_is_in_data_dir_is_refused(data, tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "letter").write_text("mine")
    with pytest.raises(StartupError, match=r"is not empty: give a new folder"):
        take(data, tmp_path / "backup")
    with pytest.raises(StartupError, match=r"is in the worker's data\.dir"):
        take(data, data / "backup")
    with pytest.raises(StartupError, match=r"holds nothing of a worker"):
        take(tmp_path / "nowhere", tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup", "data"]


def test_a_backup_that_did_not_end_is_recognized(data, tmp_path):
    folder = tmp_path / "backup"
    take(data, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(StartupError, match=r"not a complete backup"):
        restore(folder, tmp_path / "other")
    with pytest.raises(StartupError, match=r"a backup that did not end"):
        take(data, folder)


def test_a_changed_or_missing_file_and_a_path_that_leads_out_are_refused(data, tmp_path):
    folder = tmp_path / "backup"
    take(data, folder)
    copy = folder / "data" / "log.db"
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    (folder / "data" / "audit.log").unlink()
    with pytest.raises(StartupError, match=r"log\.db was changed.*audit\.log is missing"):
        restore(folder, tmp_path / "other")
    manifest = json.loads((folder / "manifest.json").read_text())
    for path in ("../log.db", "/etc/passwd", "a/../b", ""):
        manifest["files"][0]["path"] = path
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(StartupError, match=r"not the manifest of a backup"):
            restore(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_damaged_file_is_copied_named_and_restored_only_on_request(data, tmp_path):
    with closing(LocalLog.open(data)) as log:
        write(log, *range(5000))
    with open(data / "log.db", "r+b") as file:
        file.seek(os.path.getsize(data / "log.db") // 8192 * 4096)
        file.write(b"\xff" * 4096)
    manifest = take(data, tmp_path / "backup")
    assert [file.path for file in manifest.files if file.problem] == ["log.db"]
    with pytest.raises(StartupError, match=r"holds damaged files: log"):
        restore(tmp_path / "backup", tmp_path / "other")
    restore(tmp_path / "backup", tmp_path / "other", accept_damaged=True)
    assert (tmp_path / "other" / "log.db").exists()


def test_nothing_is_restored_while_a_worker_uses_the_folder(data, tmp_path):
    take(data, tmp_path / "backup")
    with closing(LocalLog.open(data)) as log:
        with pytest.raises(DataDirInUseError, match=str(os.getpid())):
            restore(tmp_path / "backup", data, replace=True)
        assert values(log) == [0, 1, 2, 3, 4]
    with pytest.raises(StartupError, match=r"add --replace to move it aside"):
        restore(tmp_path / "backup", data)


def test_a_backup_ends_before_the_disk_of_the_worker_is_full(data, tmp_path, monkeypatch):
    class Usage:
        free = 1 << 20

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage if path == data else real(path))
    with pytest.raises(FatalError, match=r"only 1 MB free, which the worker needs"):
        take(data, tmp_path / "backup")
    assert list((tmp_path / "backup").iterdir()) == []


def test_a_rate_is_kept_except_in_a_hurry():
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    pace = RateLimit(100, lambda: now[0], sleep)
    pace.spend(50)
    now[0] += 10
    pace.spend(200)
    pace.spend(1000, hurry=True)
    assert slept == [0.5, 2.0]


def test_a_restore_that_is_killed_at_any_step_leaves_the_old_folder_or_the_new_one(data, tmp_path):
    """Each child process dies at its next system call that changes a file or opens one."""
    take(data, tmp_path / "backup")
    with closing(LocalLog.open(data)) as log:
        write(log, 77)
    ends = set()
    for number in range(1, 1000):
        code = _restore_and_die(tmp_path / "backup", data, number)
        with closing(LocalLog.open(data)) as log:
            found = values(log)
        assert found in ([0, 1, 2, 3, 4, 77], [0, 1, 2, 3, 4])
        assert [0, 1, 2, 3, 4, 77] in [found, *_contents_beside(data)]
        ends.add((code, len(found)))
        if code == 0:
            break
        if len(found) == 5:  # it died after the step: the next death needs the old folder again
            with closing(LocalLog.open(data)) as log:
                write(log, 77)
        for left in tmp_path.glob("data.re*"):  # so that each child process takes the same steps
            shutil.rmtree(left)
    assert ends == {(-signal.SIGKILL, 6), (-signal.SIGKILL, 5), (0, 5)}


def _contents_beside(data):
    found = []
    for path in data.parent.glob("data.re*"):
        if not (path / "restore.incomplete").exists():
            with closing(LocalLog.open(path)) as log:
                found.append(values(log))
    return found


def _restore_and_die(folder, data, number):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [number]

    def count(event, arguments):
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "ctypes.dlsym"):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        restore(folder, data, replace=True)
        os._exit(0)
    finally:
        os._exit(3)


def test_folders_of_killed_restores_are_cleaned_up_or_named(data, tmp_path):
    take(data, tmp_path / "backup")
    unfinished, former = tmp_path / "data.restoring-1", tmp_path / "data.restoring-2"
    for path in (unfinished, former):
        path.mkdir()
    (former / "log.db").touch()
    (unfinished / "restore.incomplete").touch()
    restored = restore(tmp_path / "backup", Path(data), replace=True)
    assert restored.left == [former]
    assert not unfinished.exists()
