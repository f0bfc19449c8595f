"""Ownership of a log's files: one process owns a folder, and only its user may read it."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tieline.api import DataDirInUseError
from tieline.api.locks import already_owned, lock_exclusively, lock_holder
from tieline.api.private_files import PRIVATE_FILE, PRIVATE_FOLDER, open_private

log = logging.getLogger(__name__)

_FIX = "stop it first, or give this worker a data.dir of its own"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OURS = re.compile(r".*\.db(-wal|-shm|\.\w+)?|spools|workers|audit.*|lost\+found")
"""The names in a data.dir. A folder with other names in it has a second use."""
_CANNOT_LOCK_FOLDERS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP}  # NFS, some FUSE


@dataclass
class _OwnedFolder:
    descriptor: int
    files: set[str] = field(default_factory=set)


_guard = threading.Lock()
_owned: dict[tuple[int, int], _OwnedFolder] = {}


class Lock:
    """Gives a folder one owner process, and each file in it one owner, until ``release`` or the process ends.

    The lock is on the folder itself: it cannot be deleted without the data, and it holds for every path to
    the folder (a link, a mount, ``..``). ``log.db.lock`` beside a file names the process for operators, and
    is locked too, for older versions of tieline that know no other lock.
    """

    def __init__(self, path: Path) -> None:
        """``path``: the log file. Raises ``DataDirInUseError`` with the owner's process id, ``OSError``."""
        self._name = path.name
        with _guard:
            self._key, folder = _own_folder(path)
            try:
                if self._name in folder.files:
                    raise already_owned(str(path), os.getpid(), _FIX)
                self._file = _write_pid(path)
            except BaseException:
                _release_folder(self._key)
                raise
            folder.files.add(self._name)

    def release(self) -> None:
        """Release the file, and the folder after its last file."""
        with _guard:
            _owned[self._key].files.discard(self._name)
            os.close(self._file)
            _release_folder(self._key)


def _own_folder(path: Path) -> tuple[tuple[int, int], _OwnedFolder]:
    while True:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        opened = os.fstat(descriptor)
        key = (opened.st_dev, opened.st_ino)
        if key in _owned:
            os.close(descriptor)
            return key, _owned[key]
        try:
            lock_exclusively(descriptor, f"the folder {path.parent}", _FIX)
        except DataDirInUseError as error:
            known = lock_holder(descriptor) is not None
            os.close(descriptor)
            if known:
                raise
            raise already_owned(f"the folder {path.parent}", _written_pid(path), _FIX) from error
        except OSError as error:
            if error.errno not in _CANNOT_LOCK_FOLDERS:
                os.close(descriptor)
                raise
            log.warning("the file system of %s cannot lock folders: only lock files guard it", path.parent)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path.parent), opened):  # it was not replaced meanwhile
                _owned[key] = _OwnedFolder(descriptor)
                return key, _owned[key]
        os.close(descriptor)


def _release_folder(key: tuple[int, int]) -> None:
    if not _owned[key].files:
        os.close(_owned.pop(key).descriptor)


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _write_pid(path: Path) -> int:
    file = open_private(_lock_file(path), os.O_NONBLOCK)
    try:
        try:
            lock_exclusively(file, str(path), _FIX)
        except DataDirInUseError:
            raise already_owned(str(path), lock_holder(file) or _written_pid(path), _FIX) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(file)
        raise
    return file


def _written_pid(path: Path) -> int | None:
    try:
        file = os.open(_lock_file(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return int(os.read(file, 32))
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None


def tighten(files: Iterable[Path]) -> None:
    """Remove the permissions of other users from files, which an older tieline left to the umask."""
    changed = [path.name for path in files if _remove_permissions(path, PRIVATE_FILE)]
    if changed:
        log.warning(
            "removed the permissions of other users, because these files hold data: %s", ", ".join(changed)
        )


def tighten_folder(folder: Path) -> None:
    """Remove the permissions of other users from a folder, if it holds only a worker's data."""
    try:
        mode = folder.stat().st_mode
        if not mode & _OTHERS:
            return
        foreign = sorted(name for name in os.listdir(folder) if not _OURS.fullmatch(name))
    except OSError:
        return
    if foreign or mode & stat.S_ISVTX:
        log.info("%s stays accessible to other users, because it holds other files too", folder)
    elif _remove_permissions(folder, PRIVATE_FOLDER):
        log.warning("%s is now accessible to this user alone, because it holds readings and commands", folder)


def _remove_permissions(path: Path, mode: int) -> bool:
    try:
        if path.is_symlink() or not path.stat().st_mode & _OTHERS:
            return False
        path.chmod(mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning(
            "%s can be read by other users: its permissions cannot be changed: %s", path, error.strerror
        )
        return False
    return True
