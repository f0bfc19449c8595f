"""Which records of a batch count as written when an outage ends it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tieline.api import SinkRecord
from tieline_connectors.mongo.writing.offered import Offered

KINDS = st.sampled_from(["made", "made", "made", "skipped", "bad"])
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 3), st.sampled_from(["made", "made", "made", "skipped", "bad"])
    ),
    max_size=20,
)


@given(RECORDS, st.data())
def test_nothing_counts_as_written_that_is_not_and_the_rest_is_written_once(records, data):
    """Attempts that break off anywhere, each offered what the one before did not reach."""
    batch, kinds = [], {}
    for offset, (partition, documents, kind) in enumerate(records):
        batch.append(SinkRecord("t", partition, offset, documents))
        kinds[offset] = kind
    wrote: list[tuple[int, str]] = []
    remembered: set[Any] = set()
    skipped = 0
    while batch:
        offered = Offered(batch, remembered)
        limit = data.draw(st.integers(1, 12))
        for number, record in enumerate(batch):
            made: dict[str, Any] = {}
            if kinds[record.offset] == "skipped":
                offered.skipped[number] = "skipped.x"
            elif kinds[record.offset] == "bad":
                offered.failures[number] = ValueError("no place")
            else:
                made = {f"/{n}": {} for n in range(record.value)}
            pieces = offered.pieces(number, made)
            here, limit = pieces[:limit], limit - len(pieces[:limit])
            offered.confirm(here, {})
            wrote += [(record.offset, piece.key) for piece in here]
            if len(here) < len(pieces):
                break
        reached = offered.reached()
        skipped += sum(offered.skips(reached).values())
        for record in batch:
            if record.offset < reached.get(record.consumed_from, 0):
                assert kinds[record.offset] != "bad"
                if kinds[record.offset] == "made":
                    assert {key for offset, key in wrote if offset == record.offset} == {
                        f"/{n}" for n in range(record.value)
                    }
        rest = [r for r in batch if r.offset >= reached.get(r.consumed_from, 0)]
        if len(rest) == len(batch) and all(kinds[r.offset] == "bad" for r in rest[:1]):
            break  # a bad record stops its task
        batch = rest
    assert len(wrote) == len(set(wrote))
    assert skipped <= sum(kind == "skipped" for kind in kinds.values())
