"""One process owns a folder, and its files are for its user alone."""

import logging
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tieline.api import DataDirInUseError, StartupError
from tieline.broker.local.file import LogSettings
from tieline.broker.local.log import LocalLog
from tieline.broker.local.store import Store

OWNER = """
import pathlib, sys
from tieline.broker.local.log import LocalLog
from tieline.broker.local.store import Store
log = LocalLog.open(pathlib.Path(sys.argv[1]))
log.changelogs()
spool = Store(pathlib.Path(sys.argv[1]) / "spools" / "in-0.db")
print("open", flush=True)
sys.stdin.read()
"""

OLDER_OWNER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.pwrite(file, f"{os.getpid()}\\n".encode(), 0)
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(code, *arguments):
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "open\n"
            yield started
        finally:
            started.kill()


def modes(folder):
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}


def refused(open_it, pid):
    with pytest.raises(DataDirInUseError, match=rf"running process {pid}; stop it first"):
        open_it()


def test_deleting_the_lock_files_does_not_admit_a_second_owner(tmp_path):
    data = tmp_path / "data"
    with process(OWNER, data) as owner:
        for path in [*data.glob("*.lock"), *data.glob("spools/*.lock")]:
            path.unlink()
        for _ in range(2):  # the refused one leaves nothing that lets the next in
            refused(lambda: LocalLog.open(data), owner.pid)
            refused(lambda: Store(data / "ledger.db"), owner.pid)
            refused(lambda: Store(data / "spools" / "in-0.db"), owner.pid)
            refused(lambda: Store(data / "spools" / "another-0.db"), owner.pid)


def test_deleting_the_log_does_not_admit_a_second_owner_to_its_folder(tmp_path):
    with process(OWNER, tmp_path) as owner:
        for path in tmp_path.glob("*.db*"):
            path.unlink()
        refused(lambda: LocalLog.open(tmp_path), owner.pid)


def test_every_path_to_a_folder_meets_its_owner(tmp_path):
    data = tmp_path / "data"
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "elsewhere").mkdir()
    with process(OWNER, data) as owner:
        (tmp_path / "elsewhere" / "log.db").symlink_to(data / "log.db")
        for path in ("link", "data/../data", "data/spools/..", "elsewhere"):
            refused(lambda path=path: LocalLog.open(tmp_path / path), owner.pid)


def test_a_mount_of_a_folder_meets_its_owner(tmp_path):
    (tmp_path / "mount").mkdir()
    with process(OWNER, tmp_path / "data") as owner:
        mounted = subprocess.run(
            ["mount", "--bind", tmp_path / "data", tmp_path / "mount"], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("this user cannot mount")
        try:
            refused(lambda: LocalLog.open(tmp_path / "mount"), owner.pid)
        finally:
            subprocess.run(["umount", tmp_path / "mount"], check=True)


def test_a_folder_that_was_moved_takes_its_owner_with_it(tmp_path):
    with process(OWNER, tmp_path / "data") as owner:
        (tmp_path / "data").rename(tmp_path / "moved")
        refused(lambda: LocalLog.open(tmp_path / "moved"), owner.pid)
        LocalLog.open(tmp_path / "data").close()  # other data


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_log_that_is_deleted_under_its_owner_is_reported_once_as_an_alarm(tmp_path, caplog, how):
    log = LocalLog.open(tmp_path, settings=LogSettings(retention_interval=0.01))
    log.create_topic("t")
    log.protect({})
    (tmp_path / "log.db").unlink()
    if how == "replaced":
        (tmp_path / "log.db").write_bytes(b"")
    end = time.monotonic() + 20
    while not caplog.records:
        assert time.monotonic() < end
        log.protect({})
    for _ in range(20):
        log.protect({})
    (alarm,) = caplog.records
    assert "was deleted, moved or replaced while this process writes to it" in alarm.getMessage()
    log.close()


def test_after_a_killed_owner_the_next_one_starts_whatever_the_lock_file_contains(tmp_path):
    with process(OWNER, tmp_path) as owner:
        owner.kill()
        owner.wait()
        assert (tmp_path / "log.db.lock").read_text() == f"{owner.pid}\n"
        with Store(tmp_path / "log.db"):
            assert (tmp_path / "log.db.lock").read_text() == f"{os.getpid()}\n"
            refused(lambda: Store(tmp_path / "log.db"), os.getpid())


def test_an_owner_of_an_older_version_which_locks_its_file_alone_is_respected(tmp_path):
    with process(OLDER_OWNER, tmp_path / "log.db.lock") as owner:
        refused(lambda: LocalLog.open(tmp_path), owner.pid)
    LocalLog.open(tmp_path).close()


def test_an_invalid_lock_file_is_an_error_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "log.db.lock")
    with pytest.raises(StartupError, match="cannot be written"):
        LocalLog.open(tmp_path)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_folders_and_files_are_for_their_user_alone_whatever_the_umask_is(tmp_path, umask):
    data = tmp_path / "new" / "data"
    old = os.umask(umask)
    try:
        log = LocalLog.open(data)
        log.create_topic("t")
        log.changelogs()
        spool = Store(data / "spools" / "in-0.db")
        spool.create_topic("t")
    finally:
        os.umask(old)
    file_modes = modes(tmp_path)
    assert {name for name, mode in file_modes.items() if mode == 0o700} == {
        "new",
        "new/data",
        "new/data/spools",
    }
    files = {name for name, mode in file_modes.items() if mode == 0o600}
    assert len(file_modes) == len(files) + 3
    assert {"new/data/log.db-wal", "new/data/log.db-shm", "new/data/spools/in-0.db-wal"} <= files
    spool.close()
    log.close()


def test_files_of_an_older_version_are_made_private_with_a_note(tmp_path, caplog):
    data = tmp_path / "data"
    with Store(data / "log.db"):
        shutil.copytree(data, tmp_path / "old", ignore=shutil.ignore_patterns("*.bell"))
    old = tmp_path / "old"
    for path in [old, *old.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with caplog.at_level(logging.WARNING), Store(old / "log.db"):
        assert old.stat().st_mode & 0o777 == 0o700
        assert set(modes(old).values()) == {0o600}
    noted, folder = (record.getMessage() for record in caplog.records)
    assert noted.startswith("removed the permissions of other users")
    assert {"log.db", "log.db-wal", "log.db-shm"} <= set(noted.replace(",", "").split())
    assert str(old) in folder


def test_a_folder_with_a_second_use_keeps_its_rights(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "index.html").touch()
    Store(tmp_path / "log.db").close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "log.db").stat().st_mode & 0o777 == 0o600
