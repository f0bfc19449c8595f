"""Where files appear: whole, under their final name, or not at all."""

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
"""Spark and Hive pass over what begins so."""

_WITH_PASSWORD = re.compile(r"[^/]*://[^@:]*:[^@]+@")  # a secret of AWS may have a slash in it


class Store(Protocol):
    """Takes one file at a time. What is there under that name is replaced."""

    def write(self, path: str, table: Any) -> None:
        """``path``: below the root, with slashes. Returns when it is safe. Raises ``RetriableError``."""

    def close(self) -> None:
        """Let go of it."""


def open_store(url: str, codec: str) -> Store:
    """For a folder or a URL. Raises ``RetriableError``, ``ValueError`` on a URL that nobody knows."""
    if _is_local(url):
        return LocalStore(Path(url.removeprefix("file://")), codec)
    return RemoteStore(url, codec)


def what_is_wrong(url: str) -> str | None:
    """Why nobody knows this URL; none: somebody does. Nothing is asked of the place itself."""
    if _is_local(url):
        if url.startswith("file:") and not url.startswith("file:///"):
            return "is a file: URL without a path; file:///path/to/folder, or the folder alone"
        return None
    if _WITH_PASSWORD.match(url):
        return "has a password in it, which errors would show; give it as its file system asks (AWS_…)"
    try:
        _file_system(url)
    except (ValueError, ImportError):  # their texts would show it
        return f"neither fsspec nor pyarrow can open {url.partition(':')[0]}://; is its package installed?"
    except Exception:  # an outage, or credentials: that is for the start
        return None
    return None


class LocalStore:
    """A folder of this machine. A file is written in a scratch folder, synced, and renamed to its place.

    The scratch folder is this store's own as long as it holds the lock in it; what a process has left there
    that was killed is removed by the next one.
    """

    def __init__(self, root: Path, codec: str) -> None:
        self._root = root.absolute()
        self._codec = codec
        try:
            _make(self._root / SCRATCH)
            self._remove_leftovers()
            self._make_scratch()
        except OSError as error:
            raise _away(str(root), error) from error

    def write(self, path: str, table: Any) -> None:
        """Scratch, fsync, rename, fsync of the folder."""
        target = self._root / path
        try:
            if not self._scratch.exists():  # swept away by somebody
                self._lock.close()
                self._make_scratch()
            scratch = self._scratch / "file"
            with scratch.open("wb") as file:
                _write(table, file, self._codec)
                file.flush()
                os.fsync(file.fileno())
            _make(target.parent)
            scratch.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise _away(str(target), error) from error

    def close(self) -> None:
        """Remove the scratch folder."""
        self._lock.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _make_scratch(self) -> None:
        while True:
            self._scratch = self._root / SCRATCH / uuid.uuid4().hex
            _make(self._scratch)
            try:
                self._lock = (self._scratch / "lock").open("w")
            except FileNotFoundError:
                continue
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (self._scratch / "lock").exists():
                return
            self._lock.close()  # another store took it for a leftover before it was locked

    def _remove_leftovers(self) -> None:
        for left in (self._root / SCRATCH).iterdir():
            try:
                with (left / "lock").open("r") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            except (OSError, BlockingIOError):
                continue  # another task's, or one that is about to lock it


class RemoteStore:
    """Any file system of fsspec's, or of pyarrow's own. A file is one put of all its bytes under its name."""

    def __init__(self, url: str, codec: str) -> None:
        self._codec = codec
        self._fs, self._root = _file_system(url)

    def write(self, path: str, table: Any) -> None:
        """One put."""
        bytes_ = pa.BufferOutputStream()
        _write(table, bytes_, self._codec)
        target = f"{self._root}/{path}"
        try:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(target, bytes_.getvalue().to_pybytes())
        except Exception as error:  # each file system has errors of its own, and each may pass
            raise _away(target, error) from error

    def close(self) -> None:
        """Nothing is held."""


def _is_local(url: str) -> bool:
    return url.startswith("file:") or "://" not in url


def _file_system(url: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError):  # unknown to fsspec, or without its package: pyarrow may bring its own
        arrow, path = pyarrow.fs.FileSystem.from_uri(url)
        fs = ArrowFSWrapper(arrow)
    return fs, path.rstrip("/")


def _write(table: Any, to: IO[bytes] | Any, codec: str) -> None:
    pq.write_table(table, to, compression=codec)


def _make(folder: Path) -> None:
    """With all above it, each safe in the folder that it is in."""
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


def _away(where: str, error: Exception) -> RetriableError:
    why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return RetriableError(f"{where} cannot be written: {why}")
