"""Reading messages to send, each with its place."""

import json
import os
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.cli.producing.messages import MAX_LINE, InputMessage, InvalidLine, arriving_lines, messages

GOOD = {"sender": "a", "topic": "x/y", "value": 1.5, "description": "d"}


def read(data):
    return list(messages("f", data if isinstance(data, bytes) else data.encode()))


def problems(data):
    return [str(line) for line in read(data) if isinstance(line, InvalidLine)]


def sent(data):
    return [(message.where, message.value) for message in read(data) if isinstance(message, InputMessage)]


def test_each_line_is_a_message_and_empty_ones_are_skipped():
    messages = read(b'{"a": 1.10}\r\n\n  "text" \nnull\n')
    assert messages == [
        InputMessage("f: line 1", {"a": 1.1}, b'{"a": 1.10}'),
        InputMessage("f: line 3", "text", b'"text"'),
        InputMessage("f: line 4", None, b"null"),
    ]


def test_every_line_that_is_not_json_is_reported_by_its_number():
    data = b'{"a": 1}\n{"a"\n[1]\n\xff\n' + b"[" * 100_000 + b"\n"
    assert [problem.partition(": not JSON")[0] for problem in problems(data)] == [
        "f: line 2",
        "f: line 4",
        "f: line 5",
    ]
    assert [where for where, _ in sent(data)] == ["f: line 1", "f: line 3"]


def test_each_entry_of_an_old_message_file_is_a_message():
    text = json.dumps({"message_list": [GOOD, {**GOOD, "value": None}]})
    assert sent(text) == [("f: line 1", GOOD), ("f: line 1", {**GOOD, "value": None})]
    assert json.loads(read(text)[0].text) == GOOD


def test_an_old_message_file_may_have_other_entries_first_and_no_description():
    text = '{"kafka_topic": "t",\n "note": {"message_list": [1]},\n "message_list": [\n' + json.dumps(GOOD)
    short = {name: GOOD[name] for name in ("sender", "topic", "value")}
    text += ",\n\n" + json.dumps(short) + "]}"
    assert sent(text) == [("f: line 4", GOOD), ("f: line 6", short)]


def test_every_problem_of_an_old_message_file_is_reported_by_its_line():
    entries = [
        json.dumps(GOOD),
        "7",
        '{"sender": "a",\n "topic": "t"}',
        '{"sender": 1, "topic": "", "value": {"]": "}"}}',
        json.dumps({**GOOD, "extra": 1}),
    ]
    assert problems('{"message_list": [\n' + ",\n".join(entries) + "\n]}") == [
        "f: line 3: is not an object; a message is {sender, topic, value, description}",
        "f: line 4: has no value; a message is {sender, topic, value, description}",
        "f: line 6: sender is not a text; topic is empty",
        "f: line 7: has extra; a message is {sender, topic, value, description}",
    ]


def test_a_broken_old_file_is_reported_once_with_the_line_of_the_break():
    assert problems('{\n "message_list": [\n  {"sender": }\n ]\n}') == [
        "f: line 3: not JSON: Expecting value (column 14)"
    ]


def test_a_file_of_commands_is_rejected_with_the_right_command():
    (problem,) = problems('{"kafka_topic": "t", "device_point_list": []}')
    assert "tieline command send --file" in problem
    assert problems('{"message_list": {}}') == ["f: line 1: message_list is not a list"]


def test_lines_of_json_that_mention_a_message_list_stay_lines():
    data = b'{"text": "message_list"}\n{"a": "\\"message_list\\""}\n'
    assert len(sent(data)) == 2


@given(st.lists(st.recursive(st.none() | st.text() | st.floats(allow_nan=False), st.lists)), st.data())
def test_the_line_of_an_entry_is_the_one_on_which_it_begins(values, data):
    pieces, line, lines = ['{"message_list": ['], 1, []
    for index, value in enumerate(values):
        space = data.draw(st.text(" \n\t\r", max_size=3))
        line += space.count("\n")
        lines.append(line)
        entry = json.dumps({**GOOD, "value": value}, indent=data.draw(st.sampled_from([None, 1])))
        line += entry.count("\n")
        pieces += [space, entry, "," if index < len(values) - 1 else ""]
    messages = read("".join(pieces) + "]}")
    assert [(message.where, message.value["value"]) for message in messages] == [
        (f"f: line {number}", value) for number, value in zip(lines, values, strict=True)
    ]


@pytest.fixture
def pipe():
    """Both ends, unbuffered."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as target:
        yield source, target


def test_lines_arrive_as_they_are_written_also_in_pieces_and_without_an_end(pipe):
    source, target = pipe
    lines = arriving_lines(source.fileno())
    target.write(b"one\ntw")
    assert next(lines) == [b"one"]
    target.write(b"o\n\nthree\nfour")
    assert next(lines) == [b"two", b"", b"three"]
    target.close()
    assert list(lines) == [[b"four"]]


def test_a_line_without_an_end_is_not_buffered_without_limit(pipe):
    source, target = pipe

    def write():
        with suppress(BrokenPipeError):
            while True:
                target.write(b"x" * (1 << 16))

    thread = threading.Thread(target=write)
    thread.start()
    with pytest.raises(ValueError, match=str(MAX_LINE)):
        list(arriving_lines(source.fileno()))
    source.close()
    thread.join()
