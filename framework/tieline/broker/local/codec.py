"""Headers as bytes: their count, the length of each key and value (-1: null), then the contents in a row.

The lengths come first, so that one ``unpack`` reads them all. Headers are decoded for each record on its own.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from tieline.api import Headers

MAX_HEADERS = 0xFFFF


@lru_cache(maxsize=64)
def _layout(count: int) -> Struct:
    return Struct(f"<H{2 * count}i")


def encode_headers(headers: Headers) -> bytes:
    """Encode headers. Raises ``ValueError`` or ``TypeError`` for those that Kafka cannot hold either."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"{len(headers)} headers; at most {MAX_HEADERS} are possible")
    lengths: list[int] = []
    parts: list[bytes] = [b""]
    for name, value in headers:
        key = name.encode()
        parts.append(key)
        if value is None:
            lengths += (len(key), -1)
        else:
            parts.append(value)
            lengths += (len(key), len(value))
    parts[0] = _layout(len(headers)).pack(len(headers), *lengths)
    return b"".join(parts)


def decode_headers(data: bytes) -> Headers:
    """Decode what ``encode_headers`` has encoded."""
    count = data[0] | data[1] << 8
    layout = _layout(count)
    lengths = layout.unpack_from(data)
    start = layout.size
    headers: list[tuple[str, bytes | None]] = []
    for index in range(1, 2 * count, 2):
        middle = start + lengths[index]
        key = data[start:middle].decode()
        if lengths[index + 1] < 0:
            headers.append((key, None))
            start = middle
        else:
            start = middle + lengths[index + 1]
            headers.append((key, data[middle:start]))
    return tuple(headers)
