"""Chooses the partition of a key by murmur2, exactly as Kafka's Java client."""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=8192)
def murmur2(data: bytes) -> int:
    """Return the hash of Kafka's ``Utils.murmur2``, unsigned. Cached, since devices have few keys."""
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
    """Return the partition of a key in a topic: ``toPositive(murmur2(key)) % partitions``.

    tieline's producers and Kafka's Java client use this rule, and librdkafka with
    ``partitioner=murmur2_random``.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
