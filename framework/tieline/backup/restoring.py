"""Bring a backup back: either all of it takes the place of a worker's folder, or nothing changes."""

from __future__ import annotations

import ctypes
import datetime as dt
import errno
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tieline.api import FatalError, StartupError
from tieline.api.locks import lock_exclusively
from tieline.api.private_files import PRIVATE_FOLDER, open_private, sync_folder
from tieline.backup.manifest import DATA, CopiedFile, Manifest, read_manifest, verify
from tieline.backup.taking import Progress, find_files
from tieline.broker.local.restored import mark_restored
from tieline.runtime.spool.room import TOPIC as SPOOL_TOPIC
from tieline.runtime.spool.spool import KNOWN_GAP
from tieline.runtime.worker.status_file import statuses

_INCOMPLETE = "restore.incomplete"
"""A file in a folder that a restore is still filling."""
_CHUNK = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


class Restored(NamedTuple):
    """What a restore has done.

    ``replaced``: where the former folder is now, ``None`` if there was none. ``kept``: the files that were
    taken from the former folder, because they contain the backup's and more. ``left``: folders that earlier
    restores left behind, which may hold a worker's data.
    """

    manifest: Manifest
    replaced: Path | None
    kept: Sequence[str]
    left: Sequence[Path]


def restore_backup(
    folder: Path, data_dir: Path, progress: Progress, *, replace: bool = False, accept_damaged: bool = False
) -> Restored:
    """Put a backup in the place of ``data_dir``, which no worker may use.

    The backup is verified, then copied beside ``data_dir``, then both change places in one step. A process
    that is killed before this step leaves ``data_dir`` unchanged. ``replace``: move a folder with content
    aside; without it such a folder is refused. ``accept_damaged``: also restore files in which SQLite found
    damage when the backup was taken.

    Raises ``StartupError`` and ``DataDirInUseError`` before anything is changed; ``OSError``.
    """
    manifest = read_manifest(folder)
    data_dir = data_dir.resolve()
    _check_damage(manifest, accept_damaged)
    _check_place(folder, data_dir, replace)
    progress.begin("verifying", sum(copied.size for copied in manifest.files))
    problems = verify(folder, manifest, progress.advance)
    if problems:
        raise StartupError(f"{folder} cannot be restored: {'; '.join(problems)}. Use another backup")
    with _unused(data_dir):
        left = _remove_incomplete(data_dir)
        _check_space(data_dir, manifest)
        stamp = dt.datetime.now(dt.timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
        staging = data_dir.with_name(f"{data_dir.name}.restoring-{stamp}")
        _make_staging(staging)
        progress.begin("copying", sum(copied.size for copied in manifest.files))
        try:
            kept = _fill(staging, folder, data_dir, manifest, progress)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        with _uninterrupted():
            replaced = _put_in_place(
                staging, data_dir, data_dir.with_name(f"{data_dir.name}.replaced-{stamp}")
            )
    return Restored(manifest, replaced, kept, left)


def _check_damage(manifest: Manifest, accept_damaged: bool) -> None:
    damaged = [f"{copied.path} ({copied.problem})" for copied in manifest.files if copied.problem]
    if damaged and not accept_damaged:
        raise StartupError(
            f"the backup holds damaged files: {', '.join(damaged)}. Use an earlier one, or add "
            "--accept-damaged"
        )


def _check_place(folder: Path, data_dir: Path, replace: bool) -> None:
    for status in statuses(data_dir):
        if status["running"]:
            raise StartupError(f"a worker (process {status.get('pid')}) uses {data_dir}; stop it first")
    if data_dir in (folder.resolve(), *folder.resolve().parents):
        raise StartupError(f"the backup {folder} is in data.dir; move it elsewhere first")
    if data_dir.exists() and not data_dir.is_dir():
        raise StartupError(f"{data_dir} is not a folder; check data.dir in the worker's settings")
    if data_dir.is_mount():
        raise StartupError(
            f"{data_dir} is a mount point and cannot be replaced in one step; set data.dir to a folder "
            "below it"
        )
    if data_dir.is_dir() and any(data_dir.iterdir()) and not replace:
        raise StartupError(f"{data_dir} is not empty; add --replace to move it aside")
    if data_dir.parent.exists() and not os.access(data_dir.parent, os.W_OK | os.X_OK):
        raise StartupError(f"{data_dir.parent} cannot be written by this user; run this with sudo")


@contextmanager
def _unused(data_dir: Path) -> Iterator[None]:
    """Keep workers from starting on a folder. Raises ``DataDirInUseError`` if one uses it."""
    try:
        descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield
        return
    try:
        lock_exclusively(descriptor, str(data_dir), "stop the worker first")
        yield
    finally:
        os.close(descriptor)


def _remove_incomplete(data_dir: Path) -> list[Path]:
    """Delete what killed restores have copied; return folders that may hold a worker's only data."""
    left = []
    for path in sorted(data_dir.parent.glob(f"{data_dir.name}.restoring-*")):
        if (path / _INCOMPLETE).exists() or not any(path.iterdir()):
            shutil.rmtree(path)
        else:
            left.append(path)
    return left


def _check_space(data_dir: Path, manifest: Manifest) -> None:
    parent = data_dir.parent
    while not parent.exists():
        parent = parent.parent
    needed = sum(copied.size for copied in manifest.files) + (64 << 20)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise StartupError(
            f"{parent} has {free >> 20} MB free, and the restore needs {needed >> 20} MB; free some space"
        )


def _make_staging(staging: Path) -> None:
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.mkdir(PRIVATE_FOLDER)
    except FileExistsError:
        raise StartupError(f"{staging} exists; does another restore run?") from None
    os.close(open_private(staging / _INCOMPLETE))


def _fill(staging: Path, folder: Path, data_dir: Path, manifest: Manifest, progress: Progress) -> list[str]:
    """Copy every file and prepare it for its next worker; return those taken from the former folder."""
    kept = [
        copied.path
        for copied in manifest.files
        if copied.kind == "bytes"
        and not copied.path.endswith(".head")
        and _continues(data_dir / copied.path, folder / DATA / copied.path)
    ]
    heads = {f"{path}.head" for path in kept if (data_dir / f"{path}.head").is_file()}
    restored_at = time.time_ns() // 1_000
    for copied in manifest.files:
        target = staging / copied.path
        target.parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        if copied.path in kept or copied.path in heads:
            shutil.copyfile(data_dir / copied.path, target)
            target.chmod(0o600)
            progress.advance(copied.size)
            continue
        _copy(folder / DATA / copied.path, target, copied, progress)
        if copied.path in ("log.db", "ledger.db"):
            mark_restored(target, restored_at)
        elif copied.path.startswith("spools/") and copied.kind == "sqlite":
            mark_restored(target, restored_at, (SPOOL_TOPIC, KNOWN_GAP))
    _hand_over(staging, data_dir)
    _sync(staging)
    (staging / _INCOMPLETE).unlink()
    sync_folder(staging)
    return kept


def _continues(present: Path, backup: Path) -> bool:
    """Return whether a file that is only appended to has all of its backup, and more."""
    try:
        if present.is_symlink() or not present.is_file() or present.stat().st_size <= backup.stat().st_size:
            return False
        with open(present, "rb") as longer, open(backup, "rb") as shorter:
            while chunk := shorter.read(_CHUNK):
                if longer.read(len(chunk)) != chunk:
                    return False
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path, copied: CopiedFile, progress: Progress) -> None:
    digest = hashlib.sha256()
    with open(source, "rb") as read, os.fdopen(open_private(target, os.O_EXCL), "wb") as written:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            written.write(chunk)
            progress.advance(len(chunk))
    if digest.hexdigest() != copied.sha256:
        raise FatalError(f"{source} changed while it was restored; nothing was replaced. Check its disk")


def _hand_over(staging: Path, data_dir: Path) -> None:
    """Give the files to the user of the former folder, if root restores for a worker's user."""
    if os.geteuid() != 0:
        return
    owner = data_dir.stat() if data_dir.exists() else data_dir.parent.stat()
    for path in (staging, *staging.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync(staging: Path) -> None:
    files, _ = find_files(staging)
    for name in files:
        file = os.open(staging / name, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    for folder, _, _ in os.walk(staging):
        sync_folder(Path(folder))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait, so that an interrupted restore has changed nothing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _put_in_place(staging: Path, data_dir: Path, aside: Path) -> Path | None:
    """Let the staging folder become ``data_dir``; return where the former one is now."""
    replaced = None
    if not data_dir.exists() or not any(data_dir.iterdir()):
        staging.rename(data_dir)
    elif _exchange(staging, data_dir):
        staging.rename(aside)  # it is the former folder now
        replaced = aside
    else:  # a file system that cannot exchange: a crash in between leaves no data.dir
        data_dir.rename(aside)
        try:
            staging.rename(data_dir)
        except BaseException:
            with suppress(OSError):
                aside.rename(data_dir)
            raise
        replaced = aside
    sync_folder(data_dir.parent)
    return replaced


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; return ``False`` if this system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    paths = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))
