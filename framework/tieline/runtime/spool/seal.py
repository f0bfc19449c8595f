"""A checksum on each record of the spool: SQLite does not notice a byte that the disk changed in a row.

The checksum is compared before anything of the row is decoded, the bytes of its headers included.
"""

from __future__ import annotations

import zlib

from tieline.api import Headers
from tieline.broker.local.codec import decode_headers, encode_headers

_SIZE = 4  # bytes before each record


def seal(data: bytes, headers: Headers) -> bytes:
    """Return the data behind a checksum of it and its headers. Raises as ``encode_headers`` does."""
    return _checksum(data, encode_headers(headers) if headers else b"") + data


def unseal(sealed: bytes | None, raw_headers: bytes | None) -> tuple[bytes, Headers]:
    """Return the data and its headers. Raises ``ValueError`` if they are not what ``seal`` was given."""
    sealed, raw_headers = sealed or b"", raw_headers or b""
    data = sealed[_SIZE:]
    if sealed[:_SIZE] == _checksum(data, raw_headers):
        return data, decode_headers(raw_headers) if raw_headers else ()
    if (headers := _headers_of_0_1(sealed[:_SIZE], data, raw_headers)) is not None:
        return data, headers
    raise ValueError("its checksum does not fit")


def _checksum(data: bytes, raw_headers: bytes) -> bytes:
    return zlib.crc32(raw_headers, zlib.crc32(data, len(data) & 0xFFFFFFFF)).to_bytes(_SIZE, "big")


def _headers_of_0_1(checksum: bytes, data: bytes, raw_headers: bytes) -> Headers | None:
    """Return the headers if version 0.1 sealed the record, over their names and values; else ``None``."""
    try:
        headers = decode_headers(raw_headers) if raw_headers else ()
        if (encode_headers(headers) if headers else b"") != raw_headers:  # lengths that do not fit
            return None
    except Exception:  # noqa: BLE001 - damaged bytes may raise anything
        return None
    expected = zlib.crc32(data)
    for name, value in headers:
        expected = zlib.crc32(value or b"", zlib.crc32(name.encode(), expected))
    return headers if expected.to_bytes(_SIZE, "big") == checksum else None
