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
    """The three keys of a connection, in z85. ``repr`` does not show the secret key."""

    publickey: bytes
    secretkey: bytes = field(repr=False)
    serverkey: bytes
    is_generated: bool = False
    """Whether our pair was generated at this start, so that no platform knows it yet."""


def parse_curve_key(text: str) -> bytes:
    """Return a key in z85, from z85 (40 characters) or from VOLTTRON's url-safe base64 (43).

    Raises ``ValueError``, whose message does not contain the text.
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
        raise ValueError("is not a CURVE key: 40 characters of z85, or 43 of url-safe base64, are needed")
    encoded: bytes = z85.encode(raw)
    return encoded


_NAMES = {"publickey": ("publickey", "public"), "secretkey": ("secretkey", "secret")}
_MAX_BYTES = 65_536


def read_stored_key(file: Path, name: str, address: str = "") -> bytes:
    """Return ``publickey`` or ``secretkey`` from a file. Raises ``ValueError`` or ``OSError``.

    These files are accepted:
    - a file of ``credentials_store`` (2.x, 10);
    - a ``keystore`` or ``keystore.json``, or the output of ``vctl auth keypair`` (8, 9);
    - for a public key, a ``known_hosts`` that contains ``address``, or the output of ``vctl auth serverkey``.
    """
    content = read_small_file(file, _MAX_BYTES)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 and name == "publickey" and text.strip() and "[" not in text:
        return parse_curve_key(text.split()[-1])
    try:  # a program may have printed other lines around the object
        content_map = json.loads(text[begin : end + 1] if 0 <= begin < end else text)
    except json.JSONDecodeError as error:  # its message would quote the file
        raise ValueError(f"is not JSON (line {error.lineno})") from None
    except RecursionError:
        content_map = None
    names: tuple[str, ...] = _NAMES[name]
    if name == "publickey" and address.startswith("tcp://"):
        names = (*names, address.removeprefix("tcp://"), address)
    key = None
    if isinstance(content_map, dict):
        key = next((content_map[name] for name in names if name in content_map), None)
    if key is None:
        raise ValueError(
            f"has no {' or '.join(names[:2])}: give a file of VOLTTRON_HOME/credentials_store (2.x, 10), the"
            " keystore, or the output of vctl auth keypair (8, 9)"
        )
    return parse_curve_key(key if isinstance(key, str) else "")


def complete_key_pair(publickey: bytes | None, secretkey: bytes | None) -> tuple[bytes, bytes]:
    """Return both keys: the public key is derived if missing, and without a secret key the pair is new.

    A 2.x platform accepts every pair whose owner knows its server key.
    """
    if secretkey is None:
        generated: tuple[bytes, bytes] = zmq.curve_keypair()
        return generated
    return publickey or zmq.curve_public(secretkey), secretkey
