"""Back-fill's pure parts: gaps, pages, rebuilt messages, and the file of what was received."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.volttron_bus.backfill.history import (
    InvalidHistoryError,
    parse_metadata,
    parse_page,
    points_by_device,
    rebuild_message,
    to_historian_time,
)
from tieline_connectors.volttron_bus.backfill.received_file import SLOT, ReceivedFile
from tieline_connectors.volttron_bus.backfill.reception import (
    MAX_GAPS,
    Anchor,
    Device,
    Gap,
    Reception,
    form_of,
    is_filled,
)
from tieline_connectors.volttron_bus.messages.message import ParseLimits, canonical, parse_message

NOW = 2_000_000_000_000_000
TOPIC = "devices/campus/ahu1/all"
WEEK = 7 * 24 * 3_600_000_000
TIMES = st.integers(0, 7_258_118_399_999_999)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
POINTS = st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 60)), max_size=60))
def test_each_time_between_two_sessions_lies_in_a_gap_and_no_other(steps):
    """``steps``: session (sorted) and the number of a second of a reading, in any order."""
    reception = Reception(WEEK)
    last: tuple[int, int] | None = None
    expected = []
    for session, second in sorted(steps, key=lambda step: step[0]):
        moment = NOW + second
        reception.receive(session, TOPIC, "PAIR", Anchor(moment, f"{moment}"), NOW)
        if last is None or moment > last[1]:
            if last is not None and session != last[0]:
                expected.append((last[1], moment))
            last = session, moment
    gaps = [(gap.start.time, gap.end.time) for _, gap in reception.gaps()]
    assert gaps == expected
    assert reception.opened == len(expected)


@given(st.integers(MAX_GAPS + 1, 12))
def test_the_oldest_gaps_are_merged_and_cover_the_same_time(sessions):
    reception = Reception(WEEK)
    for session in range(sessions):
        reception.receive(session, TOPIC, "PAIR", Anchor(NOW + session, "x"), NOW)
    gaps = [gap for _, gap in reception.gaps()]
    assert len(gaps) == MAX_GAPS
    assert (gaps[0].start.time, gaps[-1].end.time) == (NOW, NOW + sessions - 1)
    assert all(one.end == two.start for one, two in itertools.pairwise(gaps))


def test_a_filled_gap_is_closed_only_at_the_end_that_was_filled():
    reception = Reception(WEEK)
    for session in range(MAX_GAPS + 1):
        reception.receive(session, TOPIC, "PAIR", Anchor(NOW + session, "x"), NOW)
    reception.receive(99, TOPIC, "PAIR", Anchor(NOW + 99, "x"), NOW)  # the first gap ends at 2 now
    reception.fill(TOPIC, NOW, NOW + 1, True, NOW + 1)
    first = next(gap for _, gap in reception.gaps())
    assert (first.start.time, first.position, first.end.time) == (NOW, NOW + 1, NOW + 2)
    reception.fill(TOPIC, NOW, NOW + 2, True, NOW + 2)
    assert next(gap for _, gap in reception.gaps()).start.time == NOW + 2


def test_a_silent_device_is_filled_up_to_the_begin_of_the_session_and_not_further():
    reception = Reception(WEEK)
    reception.receive(1, TOPIC, "PAIR", Anchor(NOW, "x"), NOW)
    (silent,) = reception.end_silence(2, NOW + 50, NOW + 1000)
    assert silent.gaps == [Gap(Anchor(NOW, "x"), Anchor(NOW + 50, ""), NOW - 1)]
    assert reception.end_silence(2, NOW + 50, NOW + 1000) == []
    reception.receive(2, TOPIC, "PAIR", Anchor(NOW + 100, "y"), NOW)
    assert len(silent.gaps) == 1


def test_a_reading_from_the_far_future_and_one_of_another_topic_are_ignored():
    reception = Reception(WEEK)
    assert reception.receive(1, TOPIC, "PAIR", Anchor(NOW + 2 * 3_600_000_000, "x"), NOW) is None
    assert reception.receive(1, "devices/a/multi", "PAIR", Anchor(NOW, "x"), NOW) is None
    assert list(reception.paths()) == []


@pytest.mark.parametrize(
    ("topic", "filled"),
    [(TOPIC, True), ("devices/all", False), ("devices/actuators/x/all", False), ("analysis/a/all", False),
     ("devices/a/multi", False), ("points/a/all", False), ("devices//all", False)],
)  # fmt: skip
def test_only_all_below_devices_is_filled(topic, filled):
    assert is_filled(topic) is filled


@given(JSON)
def test_the_form_of_a_body_is_that_with_which_it_is_rebuilt(body):
    form = form_of(body)
    if form:
        points = body if form == "BARE" else body[0]
        metadata = {} if form != "PAIR" else body[1]
        if form == "PAIR" and not (metadata.keys() <= points.keys()):
            return  # metadata of a point without a value is not stored
        frames = rebuild_message(TOPIC, form, NOW, points, metadata, "h")
        message = parse_message(frames, 0, ParseLimits())
        assert canonical(message.body) == canonical(body)


@given(TIMES, POINTS)
def test_a_rebuilt_message_has_the_time_to_the_microsecond(moment, points):
    message = parse_message(rebuild_message(TOPIC, "LIST", moment, points, {}, "h"), 0, ParseLimits())
    assert (message.time, message.time_source, message.topic) == (moment, "TIMESTAMP", TOPIC)


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.sets(st.integers(0, 30)),
    ),
    st.integers(2, 40),
)
def test_pages_of_any_size_give_every_reading_whole_and_once(rows, count):
    topics = {f"d/{point}": point for point in "abc"}

    def answer(start, end):
        values = {
            f"d/{point}": [[to_historian_time(NOW + t), t] for t in sorted(times) if start <= NOW + t < end][
                :count
            ]
            for point, times in rows.items()
        }
        return {"values": values, "metadata": {}} if values else {}

    found: dict[int, dict[str, int]] = {}
    start, end = NOW, NOW + 31
    while start < end:
        page = parse_page(answer(start, end), topics, start, end, count)
        assert not found.keys() & page.readings.keys()
        assert page.position >= start
        found |= page.readings
        start = page.position + 1
        if page.is_last:
            break
    expected: dict[int, dict[str, int]] = {}
    for point, times in rows.items():
        for t in times:
            expected.setdefault(NOW + t, {})[point] = t
    assert found == expected
    assert list(found) == sorted(found)


@given(JSON)
def test_any_answer_is_a_page_or_an_invalid_one(answer):
    for wrapped in (answer, {"values": answer}, {"values": {"d/a": answer}}, {"values": {"d/a": [answer]}}):
        for parse in (
            lambda value: parse_page(value, {"d/a": "a"}, NOW, NOW + 5, 3),
            lambda value: parse_metadata(value, {"values": "a"}),
            lambda value: points_by_device(value, ["d"]),
        ):
            with contextlib.suppress(InvalidHistoryError):  # and nothing else
                parse(wrapped)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([[NOW, 1]] * 4, "rows, and 3 were asked for"),
        ([[NOW + 2, 1], [NOW + 1, 1]], "not in the order of time"),
        ([[NOW + 9, 1]] * 3, "no row of a full page is within the time"),
    ],
)
def test_a_page_that_is_too_large_unsorted_or_without_progress_is_invalid(values, problem):
    rows = [[to_historian_time(moment), value] for moment, value in values]
    with pytest.raises(InvalidHistoryError, match=problem):
        parse_page({"values": rows}, {"d/a": "a"}, NOW, NOW + 5, 3)


def test_topics_belong_to_the_device_before_their_last_slash():
    topics = ["a/b/x", "a/b/c/x", "A/B/Y", "a/b/c/d/x", "x", "a/b/"]
    assert points_by_device(topics, ["a/b", "a/b/c"]) == {
        "a/b": {"a/b/x": "x", "A/B/Y": "Y"},
        "a/b/c": {"a/b/c/x": "x"},
    }


ANCHORS = st.builds(Anchor, TIMES, st.text("0123456789abcdef", max_size=32))
DEVICES = st.builds(
    Device,
    st.text(st.characters(min_codepoint=33, max_codepoint=255), min_size=1, max_size=60)
    .map(lambda path: f"devices/{path}/all")
    .filter(is_filled),
    st.sampled_from(["PAIR", "LIST", "BARE"]),
    ANCHORS,
    st.just(0),
    st.lists(
        st.builds(Gap, ANCHORS, ANCHORS, TIMES, st.sampled_from([True, False, None])), max_size=MAX_GAPS
    ),
)


@given(st.lists(DEVICES, max_size=8, unique_by=lambda device: device.topic), st.data())
def test_what_was_received_comes_back_and_a_damaged_slot_costs_one_device(tmp_path_factory, devices, data):
    path = tmp_path_factory.mktemp("received") / "folder" / "file"
    file = ReceivedFile(path)
    assert file.open() == []
    file.write(devices)
    file.write(devices[:2])  # in place
    file.close()
    assert path.stat().st_size == SLOT * len(devices)
    file = ReceivedFile(path)
    assert file.open() == devices
    file.close()
    if devices:
        damaged = data.draw(st.integers(0, len(devices) - 1))
        content = bytearray(path.read_bytes())
        content[damaged * SLOT + data.draw(st.integers(0, 40))] ^= 1
        path.write_bytes(content)
        file = ReceivedFile(path)
        assert file.open() == [device for number, device in enumerate(devices) if number != damaged]
        file.write([devices[damaged]])
        file.close()
        file = ReceivedFile(path)
        found = file.open()
        file.close()
        assert {device.topic for device in found} == {device.topic for device in devices}


def test_a_folder_that_cannot_be_written_is_reported_and_memory_is_used(tmp_path):
    (tmp_path / "folder").write_text("a file")
    file = ReceivedFile(tmp_path / "folder" / "file")
    assert file.open() == []
    assert "cannot be used" in file.error
    file.write([Device(TOPIC, "PAIR", Anchor(1, ""))])
    file.close()
