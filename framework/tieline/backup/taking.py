"""Take a backup of a worker's disk state, beside the running worker or while it is stopped."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import apsw

from tieline import __version__
from tieline.api import FatalError, StartupError
from tieline.api.private_files import PRIVATE_FOLDER, open_private, sync_folder
from tieline.backup.contents import BackupFile, is_state, steps
from tieline.backup.manifest import DATA, FILE, CopiedFile, Manifest, sha256_of
from tieline.backup.rate_limit import RateLimit
from tieline.backup.snapshot import Snapshot, find_damage

_CHUNK = 256 << 10
_HURRY_BYTES = 64 << 20
"""If a write-ahead log grows by more than this during a copy, the rate no longer counts."""
_KEEP_FREE = 64 << 20
"""Free space that the worker's disk keeps. Below it the backup ends, so that the worker does not stop."""
_LINE_FILES = (".log", ".jsonl")


class Progress(Protocol):
    """Shows how far a long work has come."""

    def begin(self, what: str, total: int) -> None:
        """A work of ``total`` bytes begins."""

    def advance(self, size: int) -> None:
        """So many bytes more are done."""


class Source(NamedTuple):
    """A worker's folder, and what the manifest says about the worker.

    ``not_covered``: sentences about state that is elsewhere.
    """

    data_dir: Path
    identity: Mapping[str, str]
    not_covered: Sequence[str] = ()


def find_files(data_dir: Path) -> tuple[list[str], list[str]]:
    """Return the paths below a folder, and those that are not regular files or cannot be reached.

    A link to a file counts as the file. Linked folders are not followed.
    """
    files: list[str] = []
    others: list[str] = []

    def unreadable(error: OSError) -> None:
        others.append(str(error.filename))

    for folder, names, found in os.walk(data_dir, onerror=unreadable):
        here = Path(folder)
        others += [str((here / name).relative_to(data_dir)) for name in names if (here / name).is_symlink()]
        for name in found:
            path = here / name
            (files if path.is_file() else others).append(str(path.relative_to(data_dir)))
    return sorted(files), sorted(others)


def take_backup(source: Source, folder: Path, rate: int, progress: Progress) -> Manifest:
    """Copy a worker's disk state to a new or empty folder; return the manifest, which is written last.

    ``rate``: bytes a second at most, 0 for no limit. Raises ``StartupError`` before anything is written, and
    ``FatalError`` or ``OSError`` afterwards; then what was copied is deleted.
    """
    data_dir = source.data_dir
    paths, others = find_files(data_dir)
    plan = steps(paths)
    if not plan:
        raise StartupError(f"{data_dir.absolute()} holds nothing of a worker; check data.dir in its settings")
    _check_target(data_dir, folder)
    total = sum(_size(data_dir / file.path) for step in plan for file in step)
    _check_space(folder, total)
    target = folder / DATA
    folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
    folder.chmod(PRIVATE_FOLDER)
    target.mkdir(PRIVATE_FOLDER)
    started = _now()
    try:
        progress.begin("copying", total)
        copies = _Copies(data_dir, target, RateLimit(rate), progress)
        files = [copied for step in plan for copied in copies.copy(step)]
        not_regular = (f"{path}: not a regular file" for path in others if is_state(path))
        not_covered = (*source.not_covered, *not_regular)
        manifest = Manifest(
            __version__, apsw.sqlite_lib_version(), source.identity, started, _now(), files, not_covered
        )
        manifest.write(folder)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        (folder / f"{FILE}.new").unlink(missing_ok=True)
        raise
    return manifest


class _Copies:
    """Copies the files of one backup."""

    def __init__(self, data_dir: Path, target: Path, pace: RateLimit, progress: Progress) -> None:
        self._data_dir = data_dir
        self._target = target
        self._pace = pace
        self._progress = progress

    def copy(self, step: Sequence[BackupFile]) -> list[CopiedFile]:
        """Copy the files of one step. All snapshots are taken before the first is copied."""
        with ExitStack() as stack:
            snapshots = {
                file.path: stack.enter_context(Snapshot(self._data_dir / file.path))
                for file in step
                if file.kind == "sqlite"
            }
            taken_at = _now()
            for file in step:
                target = self._target / file.path
                target.parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
                if file.kind == "sqlite":
                    self._copy_sqlite(snapshots[file.path], target)
                else:
                    self._copy_bytes(self._data_dir / file.path, target)
        return [self._describe(file, taken_at) for file in step]

    def _copy_sqlite(self, snapshot: Snapshot, target: Path) -> None:
        def copied(size: int) -> None:
            self._progress.advance(size)
            self._check_worker_disk()
            self._pace.spend(size, hurry=snapshot.pinned_bytes > _HURRY_BYTES)

        snapshot.copy_to(target, copied)
        snapshot.close()

    def _copy_bytes(self, source: Path, target: Path) -> None:
        """Copy a file that is only appended to, up to its present end."""
        with open(source, "rb") as file, os.fdopen(open_private(target, os.O_EXCL), "r+b") as copy:
            left = os.fstat(file.fileno()).st_size
            while left and (chunk := file.read(min(_CHUNK, left))):
                copy.write(chunk)
                left -= len(chunk)
                self._progress.advance(len(chunk))
                self._pace.spend(len(chunk))
            copy.flush()
            if source.suffix in _LINE_FILES:
                os.ftruncate(copy.fileno(), _end_of_lines(copy.fileno()))
            os.fsync(copy.fileno())

    def _describe(self, file: BackupFile, taken_at: str) -> CopiedFile:
        path = self._target / file.path
        problem = find_damage(path) if file.kind == "sqlite" else ""
        sync_folder(path.parent)
        return CopiedFile(file.path, file.kind, path.stat().st_size, sha256_of(path), taken_at, problem)

    def _check_worker_disk(self) -> None:
        free = shutil.disk_usage(self._data_dir).free
        if free < _KEEP_FREE:
            raise FatalError(
                f"the backup ends, because the disk of {self._data_dir} has only {free >> 20} MB free, which "
                "the worker needs; free some space, or write the backup to another disk"
            )


def _end_of_lines(file: int) -> int:
    """Return the size of a file up to the end of its last whole line."""
    size = os.fstat(file).st_size
    end = size
    while end:
        start = max(0, end - _CHUNK)
        at = os.pread(file, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _check_target(data_dir: Path, folder: Path) -> None:
    inside = data_dir.resolve()
    target = folder.resolve()
    if target == inside or inside in target.parents:
        raise StartupError(f"{folder} is in the worker's data.dir; give a folder on another disk")
    if folder.exists() and not folder.is_dir():
        raise StartupError(f"{folder} is not a folder; give a new one")
    if folder.is_dir() and any(folder.iterdir()):
        fix = "give a new folder for each backup"
        if not (folder / FILE).exists() and (folder / DATA).is_dir():
            fix = "it looks like a backup that did not end; delete it, or give a new folder"
        raise StartupError(f"{folder} is not empty: {fix}")


def _check_space(folder: Path, total: int) -> None:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    needed = total + total // 20
    if free < needed:
        raise StartupError(
            f"{existing} has {free >> 20} MB free, and the backup needs about {(needed >> 20) + 1} MB; free "
            "some space, or give a folder on another disk"
        )


def _size(path: Path) -> int:
    size = 0
    for name in (path, path.with_name(path.name + "-wal")):
        try:
            size += name.stat().st_size
        except OSError:
            continue
    return size


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")
