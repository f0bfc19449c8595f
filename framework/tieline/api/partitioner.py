"""Which partition a key belongs to: murmur2, bit for bit as in Kafka's Java client."""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=8192)
def murmur2(data: bytes) -> int:
    """The hash of Kafka's ``Utils.murmur2`` as an unsigned number. Cached: devices have few keys."""
    length = len(data)
    hashed = 0x9747B28C ^ length
    for k in unpack_from(f"<{length // 4}I", data):
        k = k * _M & _MASK
        k ^= k >> 24
        hashed = (hashed * _M & _MASK) ^ (k * _M & _MASK)
    rest = length & 3
    if rest:
        hashed ^= int.from_bytes(data[-rest:], "little")
        hashed = hashed * _M & _MASK
    hashed ^= hashed >> 13
    hashed = hashed * _M & _MASK
    return hashed ^ (hashed >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key in a topic with so many: ``toPositive(murmur2(key)) % partitions``.

    tieline's own producers and Kafka's Java client place records so; a producer of librdkafka does with
    ``partitioner=murmur2_random``.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
