"""CURVE keys: from settings, or from the files in which VOLTTRON 2.x, 8, 9 and 10 keep them."""

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
    made: bool = False
    """Whether the pair is a new one, which nobody knows."""


def parse_curve_key(text: str) -> bytes:
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


_SPELT = {"publickey": ("publickey", "public"), "secretkey": ("secretkey", "secret")}
_LARGEST = 65_536


def read_stored_key(file: Path, name: str, address: str = "") -> bytes:
    """Return ``publickey`` or ``secretkey`` of a file; raises ``ValueError``, ``OSError``.

    The file is one of ``credentials_store`` (2.x, 10); a ``keystore`` or ``keystore.json``, or what
    ``vctl auth keypair`` prints (8, 9: ``public``, ``secret``); for a public key also a ``known_hosts``
    with the ``address`` in it, or what ``vctl auth serverkey`` prints: the key alone.
    """
    content = read_small_file(file, _LARGEST)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is no text in UTF-8") from None
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 and name == "publickey" and text.strip() and "[" not in text:
        return parse_curve_key(text.split()[-1])
    try:  # a program may have printed more around it
        found = json.loads(text[begin : end + 1] if 0 <= begin < end else text)
    except json.JSONDecodeError as error:  # its own text would quote the file
        raise ValueError(f"is no JSON (line {error.lineno})") from None
    except RecursionError:
        found = None
    names: tuple[str, ...] = _SPELT[name]
    if name == "publickey" and address.startswith("tcp://"):
        names = (*names, address.removeprefix("tcp://"), address)
    key = next((found[one] for one in names if one in found), None) if isinstance(found, dict) else None
    if key is None:
        raise ValueError(
            f"has no {' or '.join(names[:2])}: a file of the home's credentials_store (2.x, 10), its"
            " keystore, or the output of vctl auth keypair (8, 9) is needed"
        )
    return parse_curve_key(key if isinstance(key, str) else "")


def complete_key_pair(publickey: bytes | None, secretkey: bytes | None) -> tuple[bytes, bytes]:
    """Both halves: what is missing follows from the secret one; without any, a new pair.

    A 2.x platform lets any pair in that knows its server key.
    """
    if secretkey is None:
        new: tuple[bytes, bytes] = zmq.curve_keypair()
        return new
    return publickey or zmq.curve_public(secretkey), secretkey
