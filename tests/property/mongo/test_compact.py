"""Documents that are too large are made smaller, and hold the same."""

import json
import zlib

import bson
from bson import Decimal128, json_util
from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.mongo.documents.compact import COMPRESSED, TEXT, compact

KEPT = {"_id", "_digest"}
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def unfolded(value):
    """What a reader makes of it."""
    if isinstance(value, dict) and value.keys() == {TEXT}:
        return json.loads(value[TEXT])
    if isinstance(value, dict) and COMPRESSED in value:
        rest = json.loads(zlib.decompress(value[COMPRESSED]))
        others = {k: v for k, v in value.items() if k != COMPRESSED}
        return {**others, **rest} if others else rest
    return value


@given(st.dictionaries(st.sampled_from("abcdef"), VALUES), st.integers(0, 2000), st.integers(200, 4000))
def test_a_shrunk_document_keeps_its_content_and_its_ids(fields, repeat, most):
    fields["long"] = [1] * repeat
    document = {"_id": "x", **fields, "_digest": "y"}
    raw = compact(document, most, KEPT)
    if raw is None:
        return
    assert len(raw) <= most
    read = unfolded({name: unfolded(value) for name, value in bson.decode(raw).items()})
    assert read == document


def test_a_large_array_becomes_its_json_text_and_a_larger_one_compressed_text():
    numbers = [1] * 50_000  # 100 kB of JSON, 590 kB of BSON
    document = {"_id": "x", "small": 1, "numbers": numbers, "_digest": "y"}
    raw = compact(document, 200_000, KEPT)
    assert raw is not None
    assert bson.decode(raw)["numbers"] == {"_json": json.dumps(numbers, separators=(",", ":"))}
    raw = compact(document, 50_000, KEPT)
    assert raw is not None
    stored = bson.decode(raw)
    assert json.loads(zlib.decompress(stored["numbers"]["_json_zlib"])) == numbers
    assert stored["small"] == 1


def test_fields_that_look_like_folded_ones_are_not_taken_for_them():
    document = {"_id": "x", "a": {TEXT: 5}, "b": {COMPRESSED: [1] * 5000}}
    raw = compact(document, 20_000, KEPT)
    assert raw is not None
    stored = bson.decode(raw)
    assert stored["a"] == {TEXT: 5}
    assert json.loads(stored["b"][TEXT]) == {COMPRESSED: [1] * 5000}


def test_many_small_fields_become_one():
    document = {"_id": "x", **{f"f{n}": n for n in range(10_000)}, "_digest": "y"}
    raw = compact(document, 100_000, KEPT)
    assert raw is not None
    stored = bson.decode(raw)
    assert stored.keys() == {"_id", "_digest", "_json_zlib"}
    assert unfolded(stored) == document


def test_types_without_a_json_form_become_extended_json():
    document = {"_id": "x", "list": [Decimal128("1.5"), b"\x00"] * 1000}
    raw = compact(document, 20_000, KEPT)
    assert raw is not None
    text = zlib.decompress(bson.decode(raw)["list"][COMPRESSED]).decode()
    assert json_util.loads(text) == document["list"]


def test_a_document_that_cannot_shrink_is_none():
    import random

    noise = random.Random(7).randbytes(5000)
    assert compact({"_id": "x", "noise": noise}, 1000, KEPT) is None
