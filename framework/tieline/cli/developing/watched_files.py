"""Which files ``tieline dev`` watches: the author's, each local module that it imports, the settings file."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

Version: TypeAlias = "tuple[int, int]"
"""What changes when a file is saved: its time of modification in ns, and its size."""

_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


class WatchedFiles:
    """Files with the version that was seen last. Used by one thread."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._always = {path: version_of(path) for path in files}
        self._imported: dict[Path, Version | None] = {}

    def imported(self, files: Mapping[Path, Version]) -> None:
        """Replace the imported files. ``files``: their versions when they were imported."""
        self._imported = {path: version for path, version in files.items() if path not in self._always}

    def changed(self) -> Path | None:
        """Return a file that was saved since the last call, or ``None``.

        A file that cannot be read has not changed: an editor may be replacing it.
        """
        changed_file = None
        for seen in (self._always, self._imported):
            for path, before in seen.items():
                now = version_of(path)
                if now is not None and now != before:
                    seen[path] = now
                    changed_file = path
        return changed_file


def version_of(path: Path) -> Version | None:
    """Return the version of a file, or ``None`` if it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def local_modules(error: BaseException | None = None) -> set[Path]:
    """Return the files of all imported modules that are not installed into this Python.

    ``error``: what an import raised. The files that led to it are returned too, although they are not
    imported.
    """
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    while error is not None:
        names |= {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        if isinstance(error, SyntaxError):
            names.add(error.filename)
        error = error.__cause__
    installed = {Path(sysconfig.get_path(name)).resolve() for name in _INSTALLED}
    files = {Path(name).absolute() for name in names if name and not name.startswith("<")}
    return {file for file in files if file.is_file() and not installed.intersection(file.resolve().parents)}
