"""Verify audit logs on disk, also while they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tieline_connectors.command.audit.chain import MAX_LINE, ChainBreak, ChainHead, verify


def verify_files(paths: Sequence[Path], head: ChainHead | None = None) -> tuple[Path, ChainBreak] | None:
    """Return the file and line of the first break of a log; ``None`` if it is whole.

    ``paths``: the log's files, the oldest first. ``head``: a head kept elsewhere; ``None``: the one beside
    the last file, if it exists. Raises ``OSError``.
    """
    if head is None:
        try:
            head = read_head(paths[-1])  # before the log: lines that are appended meanwhile make it longer
        except (ValueError, RecursionError):
            return paths[-1], ChainBreak(0, f"{head_path(paths[-1]).name} is damaged")
    current, start, number = paths[0], 0, 0

    def lines() -> Iterator[bytes]:
        nonlocal current, start, number
        for path in paths:
            current, start = path, number
            with path.open("rb") as log:
                for line in _lines(log):
                    number += 1
                    yield line

    broken = verify(lines(), head)
    return broken and (current, broken._replace(line=broken.line - start))


def verify_file(path: Path, head: ChainHead | None = None) -> ChainBreak | None:
    """Return the first break of a log that is one file; as `verify_files`."""
    broken = verify_files([path], head)
    return broken and broken[1]


def read_head(path: Path) -> ChainHead | None:
    """Return the head beside a log; ``None`` if its file does not exist, or is empty after a power loss.

    Raises ``ValueError`` if it is damaged, ``OSError``.
    """
    try:
        content = head_path(path).read_bytes()
    except FileNotFoundError:
        return None
    return ChainHead.parse(content) if content else None


def head_path(log: Path) -> Path:
    """Return the path of the head beside a log."""
    return log.with_name(log.name + ".head")


def _lines(log: BinaryIO) -> Iterator[bytes]:
    """Yield lines of a bounded length; the writer's unfinished last line does not count yet."""
    while line := log.readline(MAX_LINE + 1):
        if line.endswith(b"\n") or len(line) > MAX_LINE:
            yield line
