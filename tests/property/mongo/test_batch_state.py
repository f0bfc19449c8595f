"""Records of a batch that count as written when an outage interrupts it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tieline.api import SinkRecord
from tieline_connectors.mongo.writing.batch_state import BatchState

RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 3), st.sampled_from(["made", "made", "made", "skipped", "bad"])
    ),
    max_size=20,
)


def attempt(state, batch, kinds, limit):
    """Write at most ``limit`` documents of a batch; yield the offset and key of each."""
    for index, record in enumerate(batch):
        documents: dict[str, Any] = {}
        if kinds[record.offset] == "skipped":
            state.skipped[index] = "skipped.x"
        elif kinds[record.offset] == "bad":
            state.failures[index] = ValueError("cannot be stored")
        else:
            documents = {f"/{n}": {} for n in range(record.value)}
        pending = state.add(index, documents)
        written, limit = pending[:limit], limit - len(pending[:limit])
        state.confirm(written, {})
        yield from ((record.offset, item.key) for item in written)
        if len(written) < len(pending):
            return


def check_reached(record, kinds, wrote):
    """A record that counts as done was not bad, and all its documents were written."""
    assert kinds[record.offset] != "bad"
    if kinds[record.offset] == "made":
        keys = {key for offset, key in wrote if offset == record.offset}
        assert keys == {f"/{n}" for n in range(record.value)}


@given(RECORDS, st.data())
def test_only_written_records_count_as_written_and_the_rest_is_written_once(records, data):
    """Each attempt may end anywhere; the next one gets what the last one did not reach."""
    batch, kinds = [], {}
    for offset, (partition, documents, kind) in enumerate(records):
        batch.append(SinkRecord("t", partition, offset, documents))
        kinds[offset] = kind
    wrote: list[tuple[int, str]] = []
    remembered: set[Any] = set()
    skipped = 0
    while batch:
        state = BatchState(batch, remembered)
        wrote += attempt(state, batch, kinds, data.draw(st.integers(1, 12)))
        reached = state.reached()
        skipped += sum(state.skips(reached).values())
        for record in batch:
            if record.offset < reached.get(record.consumed_from, 0):
                check_reached(record, kinds, wrote)
        rest = [r for r in batch if r.offset >= reached.get(r.consumed_from, 0)]
        if len(rest) == len(batch) and all(kinds[r.offset] == "bad" for r in rest[:1]):
            break  # a bad record stops its task
        batch = rest
    assert len(wrote) == len(set(wrote))
    assert skipped <= sum(kind == "skipped" for kind in kinds.values())
