"""CURVE keys: from settings, or from the files of a VOLTTRON home's ``credentials_store``."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from tieline.api.files import read_small_file


@dataclass(frozen=True)
class CurveKeys:
    """The three keys of a connection, in z85. The secret one is never shown."""

    publickey: bytes
    secretkey: bytes = field(repr=False)
    serverkey: bytes


def curve_key(text: str) -> bytes:
    """A key in z85, from z85 (40 characters) or from VOLTTRON's url-safe base64 (43).

    Raises ``ValueError`` without the text in it.
    """
    text = text.strip()
    try:
        if len(text) == 40:
            z85.decode(text.encode("ascii"))
            return text.encode("ascii")
        raw = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", validate=True)
    except (ValueError, KeyError, binascii.Error):
        raw = b""
    if len(raw) != 32:
        raise ValueError("is no CURVE key: 40 characters of z85, or 43 of url-safe base64, are needed")
    encoded: bytes = z85.encode(raw)
    return encoded


def stored_key(file: Path, name: str) -> bytes:
    """``publickey`` or ``secretkey`` of a file of ``credentials_store``; ``ValueError``, ``OSError``."""
    try:
        text = json.loads(read_small_file(file).decode("utf-8"))[name]
    except (KeyError, TypeError, IndexError, RecursionError):
        raise ValueError(f"has no {name}: a file of a VOLTTRON home's credentials_store is needed") from None
    except json.JSONDecodeError as error:  # its own text would quote the file
        raise ValueError(f"is no JSON (line {error.lineno})") from None
    except UnicodeDecodeError:
        raise ValueError("is no text in UTF-8") from None
    return curve_key(text if isinstance(text, str) else "")


def key_pair(publickey: bytes | None, secretkey: bytes | None) -> tuple[bytes, bytes]:
    """Both halves: what is missing follows from the secret one; without any, a new pair.

    A 2.x platform lets any pair in that knows its server key.
    """
    if secretkey is None:
        new: tuple[bytes, bytes] = zmq.curve_keypair()
        return new
    return publickey or zmq.curve_public(secretkey), secretkey
