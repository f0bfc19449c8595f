"""The number of documents of an insert, on links and servers of any speed."""

from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.mongo.writing.insert_size import InsertSize

TIMEOUT, LONGEST = 4.0, 60.0


def insert_all(size, costs, fixed):
    """Insert documents that cost so many seconds each; the number of time-outs. As the sink does it."""
    timeouts, position = 0, 0
    while position < len(costs):
        chunk = costs[position : position + size.documents]
        seconds = fixed + sum(chunk)
        if seconds > size.insert_timeout:
            assert not size.exhausted
            size.timed_out(len(chunk))
            timeouts += 1
        else:
            size.succeeded(len(chunk), seconds)
            position += len(chunk)
    return timeouts


@given(st.lists(st.floats(0, 50), min_size=1, max_size=300), st.floats(0, 5), st.integers(1, 1000))
def test_documents_of_any_cost_are_all_written(costs, fixed, most):
    insert_all(InsertSize(most, TIMEOUT, LONGEST), costs, fixed)


@given(st.floats(0.0001, 3.9), st.integers(1, 1000))
def test_on_a_steady_link_only_shrinking_times_out_and_growing_never_does(cost, most):
    size = InsertSize(most, TIMEOUT, LONGEST)
    first = insert_all(size, [cost] * most, 0)
    assert first <= 10  # halvings from 1,000 to 1

    assert insert_all(size, [cost] * 3 * most, 0) == 0


@given(
    st.lists(st.one_of(st.tuples(st.just("out"), st.just(0.0)), st.tuples(st.just("in"), st.floats(0, 60))))
)
def test_the_number_and_the_time_stay_within_their_bounds(events):
    size = InsertSize(1000, TIMEOUT, LONGEST)
    for kind, seconds in events:
        if kind == "out":
            size.timed_out(size.documents)
        else:
            size.succeeded(size.documents, seconds)
        assert 1 <= size.documents <= 1000
        assert TIMEOUT <= size.insert_timeout <= LONGEST
        assert size.insert_timeout == TIMEOUT or size.documents == 1


def test_when_the_link_is_fast_again_inserts_are_full_again():
    size = InsertSize(1000, TIMEOUT, LONGEST)
    while not size.exhausted:
        size.timed_out(size.documents)
    inserts = 0
    while size.limited:
        size.succeeded(size.documents, 0.1)
        inserts += 1
    assert (size.documents, size.insert_timeout) == (1000, TIMEOUT)
    assert inserts < 40
