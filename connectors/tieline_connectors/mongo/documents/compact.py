r"""Documents that are larger than MongoDB takes, made smaller without loss; pure.

An array of a million small integers is 2 MB of JSON and 12 MB of BSON. Where a document is too large, its
largest fields are written as JSON text, ``{"_json": text}``, and if that is not enough as compressed JSON
text, ``{"_json_zlib": Binary}`` (RFC 1950), until the document fits. Where no field is large, all of them
become one, ``_json_zlib``.
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

_LEAST = 1024
"""A smaller field is not worth it."""
_OVERHEAD = 64
_LEVEL = 1  # a sink has no time for more, and JSON is easy


def compact(given: dict[str, Any], most: int, kept: Collection[str]) -> bytes | None:
    """The document in at most so many bytes of BSON; none where nothing helps.

    Fields in ``kept`` stay as they are. Raises as bson does for what it cannot encode.
    """
    sizes = {name: len(_bson({name: value})) for name, value in given.items()}
    total = sum(sizes.values())
    document = dict(given)
    for fold in (_as_text, _as_compressed_text):
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            if total <= most - _OVERHEAD or sizes[name] < _LEAST:
                break
            if name in kept:
                continue
            folded = fold(given[name])
            size = len(_bson({name: folded}))
            if size < sizes[name]:
                total += size - sizes[name]
                sizes[name], document[name] = size, folded
    raw = _bson(document)
    if len(raw) > most > max(sizes.values()):  # many fields, none of them large
        rest = {name: value for name, value in given.items() if name not in kept}
        raw = _bson({**{name: given[name] for name in kept if name in given}, **_as_compressed_text(rest)})
    return raw if len(raw) <= most else None


def text_of(value: Any) -> str:
    """JSON as Python writes it; of what JSON has no types for, MongoDB's Extended JSON."""
    encode: Callable[[Any], str] = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), default=lambda item: json.loads(json_util.dumps(item))
    ).encode
    return encode(value)


def _as_text(value: Any) -> Any:
    return value if isinstance(value, (str, bytes)) else {TEXT: text_of(value)}


def _as_compressed_text(value: Any) -> Any:
    return {COMPRESSED: zlib.compress(text_of(value).encode("utf-8", "surrogatepass"), _LEVEL)}


def _bson(document: dict[str, Any]) -> bytes:
    return bson.encode(document, codec_options=CODEC)
