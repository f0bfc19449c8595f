"""Files appear whole or not at all."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tieline_parquet.config import ParquetSinkConfig
from tieline_parquet.sink import ParquetSink
from tieline_parquet.store import LocalStore, RemoteStore, open_store

from tieline.api import RetriableError

TABLE = pa.table({"x": [1, 2, 3]})


def test_a_file_is_in_its_folder_and_nothing_else_is_left(tmp_path):
    store = open_store(f"file://{tmp_path}/new/lake", "zstd")
    store.write("t/date=2026-01-31/f.parquet", TABLE)
    store.write("t/date=2026-01-31/f.parquet", TABLE)
    store.close()
    files = [path for path in (tmp_path / "new" / "lake").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["f.parquet"]
    assert pq.ParquetFile(files[0]).read() == TABLE
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_scratch_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_kept(tmp_path):
    code = f"""
import time
from pathlib import Path
from tieline_parquet.store import LocalStore
store = LocalStore(Path({str(tmp_path)!r}), "zstd")
print("open", flush=True)
time.sleep(60)
"""
    processes, folders = [], []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "open\n"
        (folder,) = set((tmp_path / "_scratch").iterdir()) - set(folders)
        (folder / "file").write_bytes(b"torn")
        processes.append(process)
        folders.append(folder)
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    store = LocalStore(tmp_path, "zstd")
    assert [folder.exists() for folder in folders] == [False, True]
    store.close()
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_stores_that_begin_at_once_do_not_take_each_other_for_leftovers(tmp_path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(20):
            with ThreadPoolExecutor(6) as threads:
                stores = list(threads.map(lambda _: LocalStore(tmp_path, "zstd"), range(6)))
            for number, store in enumerate(stores):
                assert len(list(tmp_path.glob("_scratch/*/lock"))) == len(stores) - number
                store.write(f"{number}.parquet", TABLE)
                store.close()
    finally:
        sys.setswitchinterval(interval)


def test_a_folder_that_cannot_be_written_is_an_outage(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RetriableError, match="file"):
        open_store(str(tmp_path / "file" / "lake"), "zstd")


def test_any_file_system_of_fsspec_takes_files():
    store = open_store("memory://lake", "snappy")
    store.write("t/f.parquet", TABLE)
    with fsspec.filesystem("memory").open("/lake/t/f.parquet", "rb") as file:
        assert pq.read_table(file) == TABLE
    store.close()


def test_a_file_system_that_pyarrow_alone_knows_takes_files():
    store = open_store("mock:///lake", "snappy")
    store.write("t/f.parquet", TABLE)
    assert pq.read_table("lake/t/f.parquet", filesystem=store.file_system.fs) == TABLE


@pytest.mark.parametrize(
    ("url", "known"),
    [("/lake", True), ("lake", True), ("file:///lake", True), ("memory://lake", True), ("mock:///lake", True),
     ("nobody://lake", False), ("ftp://me:s3cret@host/lake", False),
     ("s3://KEY:s3c/ret@bucket", False), ("file:lake", False), ("file://localhost/lake", False)],
)  # fmt: skip
def test_an_unknown_url_is_a_problem_before_anything_starts(url, known):
    wrong = ParquetSink.validate(ParquetSinkConfig.parse({"store.url": url}))
    assert [key for key, _ in wrong] == ([] if known else ["store.url"])
    assert "s3cret" not in str(wrong)


def test_a_remote_outage_is_retriable(monkeypatch):
    store = RemoteStore("memory://lake", "zstd")

    def away(*_, **__):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(store.file_system, "pipe_file", away, raising=False)
    with pytest.raises(RetriableError, match="gone"):
        store.write("t/f.parquet", TABLE)
