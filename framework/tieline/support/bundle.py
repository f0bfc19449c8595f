"""Write a support bundle: a bounded archive from which every known secret is removed."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tieline.api import StartupError
from tieline.api.private_files import PRIVATE_FILE
from tieline.logs import Redaction
from tieline.support.collecting import Part, collect

MAX_PART = 4 << 20
"""Bytes of one file of the bundle."""
_README = """\
A support bundle of tieline: versions, settings, status, ledgers, sizes, schema ids and the newest log lines.

Left out: values of secret settings, values from ${env:…}, ${file:…} and ${directory:…}, settings that no
plugin declares, records and schemas. In messages, what is in quotation marks is replaced by … because it may
be the content of a record. Read log.jsonl and status.json before you send this: an error may describe a
record in other words.
"""


def write_bundle(path: Path, parts: Iterable[Part], redaction: Redaction) -> dict[str, int]:
    """Write the parts to a new ``.tar.gz``, private to this user; return the size of each.

    Raises ``StartupError`` if the file exists, and ``OSError``.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    except FileExistsError:
        raise StartupError(f"{path} exists; give another name") from None
    sizes: dict[str, int] = {}
    try:
        with os.fdopen(file, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            _add(archive, "README.txt", _README.encode())
            for part in parts:
                content = _encode(part.name, redaction.clean(collect(part)), redaction)
                _add(archive, part.name, content)
                sizes[part.name] = len(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return sizes


def _encode(name: str, data: Any, redaction: Redaction) -> bytes:
    """Return the text of a part; of lines the newest that fit, of other data a note if it is too large."""
    if name.endswith(".jsonl") and isinstance(data, list):
        lines = [json.dumps(line, ensure_ascii=False) for line in data]
        size = 0
        kept: list[str] = []
        for line in reversed(lines):
            size += len(line.encode()) + 1
            if size > MAX_PART:
                break
            kept.append(line)
        text = "".join(f"{line}\n" for line in reversed(kept))
    else:
        text = json.dumps(data, indent=1, ensure_ascii=False, default=str)
        if len(text.encode()) > MAX_PART:
            text = json.dumps({"unavailable": f"it is larger than {MAX_PART} bytes"})
    return str(redaction.clean(text)).encode()  # also what only its JSON spells like a secret


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(f"tieline-support/{name}")
    member.size, member.mode, member.mtime = len(content), PRIVATE_FILE, int(time.time())
    archive.addfile(member, io.BytesIO(content))
