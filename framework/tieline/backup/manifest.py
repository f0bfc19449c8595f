"""The manifest of a backup. It is written last, so a folder without one is an incomplete backup."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tieline.api import StartupError
from tieline.api.files import read_small_file
from tieline.api.private_files import open_private, sync_folder

FILE = "manifest.json"
DATA = "data"
"""The folder of the copies, beside the manifest."""
FORMAT = 1

_MAX_BYTES = 16 << 20
_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CopiedFile:
    """A copy. ``problem``: what SQLite's integrity check found in it; empty if nothing."""

    path: str
    kind: Literal["sqlite", "bytes"]
    size: int
    sha256: str
    copied_at: str
    problem: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds, and whose it is. Times are ISO 8601, UTC."""

    tieline: str
    sqlite: str
    worker: Mapping[str, str]
    started: str
    ended: str
    files: Sequence[CopiedFile]
    not_covered: Sequence[str] = ()
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write the manifest so that it is there completely or not at all. Raises ``OSError``."""
        new = folder / f"{FILE}.new"
        with os.fdopen(open_private(new, os.O_TRUNC), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / FILE)
        sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a backup. Raises ``StartupError`` if it is missing or not valid."""
    path = folder / FILE
    try:
        content = json.loads(read_small_file(path, _MAX_BYTES))
    except FileNotFoundError:
        raise StartupError(
            f"{folder} is not a complete backup: it has no {FILE}, which is written last. Take another backup"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise StartupError(f"{path} cannot be read: {error}. Use another backup") from None
    if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise StartupError(
            f"{path} has format {content['format']}, this tieline knows up to {FORMAT}: restore it with the "
            f"version that took it, {content.get('tieline')}, or a newer one"
        )
    try:
        return _parse(content)
    except (TypeError, KeyError, ValueError) as error:
        raise StartupError(f"{path} is not the manifest of a backup: {error}. Use another backup") from None


def verify(
    folder: Path, manifest: Manifest, advanced: Callable[[int], None] = lambda done: None
) -> list[str]:
    """Return a sentence for each file of the manifest that is missing or changed.

    ``advanced`` is called with the number of bytes that were read.
    """
    problems = []
    for copied in manifest.files:
        path = folder / DATA / copied.path
        try:
            if path.is_symlink() or not path.is_file():
                problems.append(f"{copied.path} is missing")
            elif path.stat().st_size != copied.size:
                problems.append(f"{copied.path} has {path.stat().st_size} bytes instead of {copied.size}")
            elif sha256_of(path, advanced) != copied.sha256:
                problems.append(f"{copied.path} was changed: its SHA-256 is not that of the manifest")
        except OSError as error:
            problems.append(f"{copied.path} cannot be read: {error.strerror}")
    return problems


def sha256_of(path: Path, advanced: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of a file. Raises ``OSError``."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            advanced(len(chunk))
    return digest.hexdigest()


def _parse(content: Any) -> Manifest:
    if not isinstance(content, dict):
        raise ValueError("it is not an object")
    files = [_parse_file(entry) for entry in content["files"]]
    if len({copied.path for copied in files}) != len(files):
        raise ValueError("a file is in it twice")
    return Manifest(
        str(content["tieline"]),
        str(content["sqlite"]),
        {str(key): str(value) for key, value in dict(content["worker"]).items()},
        str(content["started"]),
        str(content["ended"]),
        files,
        tuple(map(str, content.get("not_covered", ()))),
        int(content["format"]),
    )


def _parse_file(entry: Mapping[str, Any]) -> CopiedFile:
    path = entry["path"]
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError(f"{path!r} is not a path below the backup")
    if entry["kind"] not in ("sqlite", "bytes") or type(entry["size"]) is not int or entry["size"] < 0:
        raise ValueError(f"{path}: its kind or its size is not valid")
    if not _SHA256.fullmatch(entry["sha256"]):
        raise ValueError(f"{path}: its SHA-256 is not valid")
    return CopiedFile(
        path, entry["kind"], entry["size"], entry["sha256"], str(entry["copied_at"]), str(entry["problem"])
    )
