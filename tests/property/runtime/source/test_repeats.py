"""Equal messages of one source are events of their own; of redundant sources they are the same events."""

from __future__ import annotations

import collections
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tieline.api import BACKFILL_HEADER, DIGEST_HEADER, ID_HEADER, SourceRecord, header, identity
from tieline.runtime.source.repeats import Repeats
from tieline.runtime.task.clock import Counters

KINDS = ["on", "off", "alarm"]
STREAM = st.lists(st.sampled_from(KINDS), max_size=40)


def record(kind):
    return SourceRecord(
        "t", kind, headers=(*identity("p", "topic", 7, kind, digest_of=kind.encode()), ("o", b""))
    )


def ids(stream, folder, *, batch=3, crash=(), window=65_536):
    """The ids that a source gives, whose worker is killed before these messages."""
    out: list[bytes | None] = []
    repeats = Repeats(folder / "seen", Counters(), window)
    for start in range(0, len(stream), batch):
        if start in crash:
            repeats = Repeats(folder / "seen", Counters(), window)
        out += [
            header(r, ID_HEADER) for r in repeats.number([record(k) for k in stream[start : start + batch]])
        ]
    return out


@given(STREAM, st.integers(1, 5), st.sets(st.integers(0, 40)))
@example(["on", "off", "on"], 3, set())
@example(["alarm"] * 5, 1, {1, 2, 3, 4})
def test_each_message_of_a_source_is_an_event_and_the_first_of_equal_ones_keeps_its_id(stream, batch, crash):
    with tempfile.TemporaryDirectory() as folder:
        given_ids = ids(stream, Path(folder), batch=batch, crash=crash)
    assert len(set(given_ids)) == len(stream)
    assert {header(record(kind), ID_HEADER) for kind in stream} <= set(given_ids)


@given(STREAM, st.integers(1, 5), st.integers(1, 5), st.sets(st.integers(0, 40)))
def test_redundant_sources_that_see_the_same_stream_number_alike(stream, one_batch, other_batch, crash):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        assert ids(stream, Path(one), batch=one_batch) == ids(
            stream, Path(other), batch=other_batch, crash=crash
        )


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["a", "b", "ab"])), max_size=40))
def test_sources_that_missed_some_of_them_give_as_many_events_as_the_better_one_saw_of_each_kind(stream):
    kinds = {name: [kind for kind, by in stream if name in by] for name in "ab"}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        stored = {*ids(kinds["a"], Path(one)), *ids(kinds["b"], Path(other))}
    counts = [collections.Counter(kinds[name]) for name in "ab"]
    assert len(stored) == sum(max(count[kind] for count in counts) for kind in KINDS)


@given(st.lists(st.integers(0, 6), max_size=60), st.sets(st.integers(0, 60)))
def test_no_two_messages_within_the_window_get_one_id_and_memory_is_bounded(numbers, crash):
    stream = [f"message {number}" for number in numbers]
    with tempfile.TemporaryDirectory() as folder:
        given_ids = ids(stream, Path(folder), batch=1, crash=crash, window=4)
        assert (Path(folder) / "seen").stat().st_size <= 4 * 32
    for start in range(len(stream)):
        near = given_ids[start : start + 4]
        assert len(set(near)) == len(near)


def test_numbering_a_repeat_changes_only_its_identity_and_skips_records_without_one(tmp_path):
    counters = Counters()
    repeats = Repeats(tmp_path / "seen", counters)
    anonymous = SourceRecord("t", "v")
    batch = [record("on"), anonymous, record("on"), anonymous]
    first, second, third, fourth = repeats.number(batch)
    assert (first, second, fourth) == (batch[0], anonymous, anonymous)
    assert third._replace(headers=()) == batch[2]._replace(headers=())
    assert [name for name, _ in third.headers] == [ID_HEADER, DIGEST_HEADER, "o"]
    assert third.headers[1:] == batch[2].headers[1:]
    assert counters.all() == {"repeats": 1}


def test_a_damaged_file_loses_only_its_damaged_part(tmp_path):
    path = tmp_path / "seen"
    assert len(set(ids(["on", "off"], tmp_path))) == 2
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        repeats = Repeats(path, Counters())
        given_ids = [header(r, ID_HEADER) for r in repeats.number([record("on"), record("off")])]
        fresh = [header(record(kind), ID_HEADER) for kind in ("on", "off")]
        assert [a == b for a, b in zip(given_ids, fresh, strict=True)] == [bit < 256, bit >= 256]
        repeats.close()


def test_an_unusable_file_is_reported_and_identities_are_kept_in_memory(tmp_path, caplog):
    (tmp_path / "seen").mkdir()
    assert len(set(ids(["on", "on", "on"], tmp_path))) == 3
    assert caplog.messages == [
        f"equal messages are counted until this worker ends: {tmp_path / 'seen'} cannot be used: "
        "Is a directory. Check the disk"
    ]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=40))
def test_back_filled_records_keep_their_identity_and_do_not_change_the_count(stream):
    with tempfile.TemporaryDirectory() as folder:
        repeats = Repeats(Path(folder) / "seen", Counters())
        given_ids = [
            (kind, late, header(repeats.number([back_filled(kind) if late else record(kind)])[0], ID_HEADER))
            for kind, late in stream
        ]
        repeats.close()
        live = [kind for kind, late in stream if not late]
        (Path(folder) / "new").mkdir()
        assert [record_id for _, late, record_id in given_ids if not late] == ids(live, Path(folder) / "new")
        assert all(
            record_id == header(record(kind), ID_HEADER) for kind, late, record_id in given_ids if late
        )


def back_filled(kind):
    live = record(kind)
    return live._replace(headers=(*live.headers, (BACKFILL_HEADER, b"verified")))
