"""Stores write files completely under their final name, or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper

from tieline.api import RetriableError

SCRATCH = "_scratch"
"""Spark and Hive skip names with this first character."""

_WITH_PASSWORD = re.compile(r"[^/]*://[^@:]*:[^@]+@")  # a secret of AWS may contain a slash


class Store(Protocol):
    """Writes one file at a time, and replaces an existing one of that name."""

    def write(self, path: str, table: Any) -> None:
        """Write a table to ``path`` below the root; return when it is safe. Raises ``RetriableError``."""

    def close(self) -> None:
        """Release all resources."""


def open_store(url: str, codec: str) -> Store:
    """Return the store of a folder or URL. Raises ``RetriableError``, or ``ValueError`` on an unknown URL."""
    if _is_local(url):
        return LocalStore(Path(url.removeprefix("file://")), codec)
    return RemoteStore(url, codec)


def url_problem(url: str) -> str | None:
    """Return why the URL cannot be used, or ``None``; does not connect to it."""
    if _is_local(url):
        if url.startswith("file:") and not url.startswith("file:///"):
            return "is a file: URL without a path; file:///path/to/folder, or the folder alone"
        return None
    if _WITH_PASSWORD.match(url):
        return "contains a password, which errors would show; pass it in the way of its file system (AWS_…)"
    try:
        _file_system(url)
    except (ValueError, ImportError):  # their messages would show the URL
        return f"neither fsspec nor pyarrow can open {url.partition(':')[0]}://; is its package installed?"
    except Exception:  # noqa: BLE001 - an outage or credentials, which the start reports
        return None
    return None


class LocalStore:
    """A local folder. A file is written in a scratch folder, synced, and renamed to its final path.

    The store owns its scratch folder while it holds the lock in it. The next store removes the scratch
    folders of processes that were killed.
    """

    def __init__(self, root: Path, codec: str) -> None:
        self._root = root.absolute()
        self._codec = codec
        try:
            _make(self._root / SCRATCH)
            self._remove_leftovers()
            self._scratch, self._lock = self._create_scratch()
        except OSError as error:
            raise _outage(str(root), error) from error

    def write(self, path: str, table: Any) -> None:
        """Write to the scratch folder, fsync, rename, and fsync the target's folder."""
        target = self._root / path
        try:
            if not self._scratch.exists():  # deleted from outside
                self._lock.close()
                self._scratch, self._lock = self._create_scratch()
            scratch = self._scratch / "file"
            with scratch.open("wb") as file:
                _write(table, file, self._codec)
                file.flush()
                os.fsync(file.fileno())
            _make(target.parent)
            scratch.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise _outage(str(target), error) from error

    def close(self) -> None:
        """Remove the scratch folder."""
        self._lock.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _create_scratch(self) -> tuple[Path, IO[str]]:
        """Return a new scratch folder and its lock, held."""
        while True:
            scratch = self._root / SCRATCH / uuid.uuid4().hex
            _make(scratch)
            try:
                lock = (scratch / "lock").open("w")
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (scratch / "lock").exists():
                return scratch, lock
            lock.close()  # another store removed it before it was locked

    def _remove_leftovers(self) -> None:
        for left in (self._root / SCRATCH).iterdir():
            try:
                with (left / "lock").open("r") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            except (OSError, BlockingIOError):
                continue  # another store has locked it, or is about to


class RemoteStore:
    """A file system of fsspec or pyarrow. A file is written by one put of all its bytes."""

    def __init__(self, url: str, codec: str) -> None:
        self._codec = codec
        self.file_system, self._root = _file_system(url)

    def write(self, path: str, table: Any) -> None:
        """Write the table by one put."""
        buffer = pa.BufferOutputStream()
        _write(table, buffer, self._codec)
        target = f"{self._root}/{path}"
        try:
            self.file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.file_system.pipe_file(target, buffer.getvalue().to_pybytes())
        except Exception as error:
            raise _outage(target, error) from error

    def close(self) -> None:
        """Do nothing; no resources are held."""


def _is_local(url: str) -> bool:
    return url.startswith("file:") or "://" not in url


def _file_system(url: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError):  # unknown to fsspec, or its package is missing; pyarrow may have one
        arrow, path = pyarrow.fs.FileSystem.from_uri(url)
        fs = ArrowFSWrapper(arrow)
    return fs, path.rstrip("/")


def _write(table: Any, to: IO[bytes] | Any, codec: str) -> None:
    pq.write_table(table, to, compression=codec)


def _make(folder: Path) -> None:
    """Create a folder and its parents, and sync each of them."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _outage(path: str, error: Exception) -> RetriableError:
    cause = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return RetriableError(f"{path} cannot be written: {cause}")
