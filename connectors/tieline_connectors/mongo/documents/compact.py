r"""Makes documents that are too large for MongoDB smaller, without loss; pure.

An array of a million small integers is 2 MB of JSON and 12 MB of BSON. If a document is too large, its
largest fields are written as JSON text, ``{"_json": text}``. If that is not enough, they are written as
compressed JSON text, ``{"_json_zlib": Binary}`` (RFC 1950), until the document fits. If no field is large,
all fields become one, ``_json_zlib``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection
from typing import Any

import bson
from bson import json_util

from tieline_connectors.mongo.client import CODEC

TEXT, COMPRESSED = "_json", "_json_zlib"

_MIN_BYTES = 1024
"""Smaller fields are not replaced."""
_OVERHEAD = 64
_LEVEL = 1  # higher levels are too slow for a sink, and JSON compresses well


def compact(original: dict[str, Any], max_bytes: int, kept: Collection[str]) -> bytes | None:
    """Return the document in at most ``max_bytes`` of BSON, or ``None`` if that is impossible.

    Fields in ``kept`` do not change. Raises bson's errors for values that it cannot encode.
    """
    sizes = {name: len(_bson({name: value})) for name, value in original.items()}
    total = sum(sizes.values())
    document = dict(original)
    for fold in (_as_text, _as_compressed_text):
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            if total <= max_bytes - _OVERHEAD or sizes[name] < _MIN_BYTES:
                break
            if name in kept:
                continue
            folded = fold(original[name])
            size = len(_bson({name: folded}))
            if size < sizes[name]:
                total += size - sizes[name]
                sizes[name], document[name] = size, folded
    raw = _bson(document)
    if len(raw) > max_bytes > max(sizes.values()):  # many fields, none of them large
        rest = {name: value for name, value in original.items() if name not in kept}
        raw = _bson(
            {**{name: original[name] for name in kept if name in original}, **_as_compressed_text(rest)}
        )
    return raw if len(raw) <= max_bytes else None


def to_json_text(value: Any) -> str:
    """Return JSON as Python writes it, with MongoDB's Extended JSON for types that JSON does not have."""
    encode: Callable[[Any], str] = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), default=lambda item: json.loads(json_util.dumps(item))
    ).encode
    return encode(value)


def _as_text(value: Any) -> Any:
    return value if isinstance(value, (str, bytes)) else {TEXT: to_json_text(value)}


def _as_compressed_text(value: Any) -> Any:
    return {COMPRESSED: zlib.compress(to_json_text(value).encode("utf-8", "surrogatepass"), _LEVEL)}


def _bson(document: dict[str, Any]) -> bytes:
    return bson.encode(document, codec_options=CODEC)
