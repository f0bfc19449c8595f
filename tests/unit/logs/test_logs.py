"""No log line shows a secret, in whatever part of it the secret stands."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog

from tieline import logs

SECRET = 'p@ss"w\\ö rd/1'
WRITTEN = [
    SECRET,
    repr(SECRET)[1:-1],
    json.dumps(SECRET)[1:-1],
    "p%40ss%22w%5C%C3%B6%20rd%2F1",
    "p%40ss%22w%5C%C3%B6+rd%2F1",
]


class Written(io.StringIO):
    def getvalue(self):
        logging.getLogger().handlers[0].flush()
        return super().getvalue()


@pytest.fixture(params=["json", "human"])
def output(request, monkeypatch):
    """Standard error of a process whose log is set up in either style; all as it was afterwards."""
    stream = Written()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logs, "redaction", logs.Redaction())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.redaction.add([SECRET, "secret-2", "abc"])
    logs.set_up(style=request.param, level="DEBUG")
    yield stream
    root.handlers[0].close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()


def shown(stream):
    text = stream.getvalue()
    assert text
    assert all(written not in text for written in WRITTEN)
    assert "secret-2" not in text
    return text


class Connection:
    def __init__(self, password):
        self.password = password

    def __str__(self):
        return f"Connection({self.password})"

    __repr__ = __str__


def test_a_secret_in_the_message_is_masked(output):
    logging.getLogger("x").warning("wrong password %s for %s", SECRET, "ahu1")
    assert "wrong password ******** for ahu1" in shown(output)


@pytest.mark.parametrize("written", WRITTEN)
def test_a_secret_is_masked_however_it_is_written(written, output):
    logging.getLogger("x").warning("it is %s", written)
    assert "it is ********" in shown(output)


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        [SECRET],
        {"a": {"b": (SECRET,)}},
        {SECRET: 1},
        {SECRET},
        ValueError(SECRET),
        Connection(SECRET),
        SECRET.encode(),
        [Connection(SECRET)],
    ],
    ids=["text", "list", "deep", "key", "set", "error", "object", "bytes", "object in a list"],
)
def test_a_secret_in_an_extra_is_masked(value, output):
    logging.getLogger("x").warning("hello", extra={"detail": value})
    assert "********" in shown(output) or isinstance(value, bytes)


def test_a_secret_in_an_error_and_its_traceback_is_masked(output):
    def connect(password):
        local_copy = password + "!"
        raise RuntimeError(f"cannot connect with {password}") from ValueError(local_copy)

    try:
        connect(SECRET)
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    text = shown(output)
    assert "cannot connect with ********" in text
    assert "test_logs.py" in text


def test_the_locals_of_a_traceback_are_not_logged(output):
    def connect():
        from_a_file_not_yet_known = "unknown-secret"
        raise RuntimeError("failed" if from_a_file_not_yet_known else "")

    try:
        connect()
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    assert "unknown-secret'" not in output.getvalue().replace('= "unknown-secret"', "")


def test_a_secret_in_the_names_of_the_task_is_masked(output):
    with logs.about(connector=SECRET, task=0):
        logging.getLogger("x").warning("hello")
    assert "********" in shown(output)


def test_a_secret_that_holds_another_is_masked_as_a_whole(output):
    logs.redaction.add(["secret", "secret-2-and-more"])
    logging.getLogger("x").warning("it is secret-2-and-more.")
    assert "it is ********." in shown(output)


def test_what_is_too_short_to_be_a_secret_is_left_alone(output):
    logging.getLogger("x").warning("abc")
    assert "abc" in shown(output)


def test_numbers_and_booleans_keep_their_types(output):
    logging.getLogger("x").warning(
        "hello", extra={"ledger": {"in": 3, "ok": True, "rate": 0.5, "none": None}}
    )
    text = shown(output)
    if text.startswith("{"):
        assert json.loads(text)["ledger"] == {"in": 3, "ok": True, "rate": 0.5, "none": None}
    else:
        assert "ledger={'in': 3, 'ok': True, 'rate': 0.5, 'none': None}" in text


def test_every_line_says_when_what_who_and_which_task(output):
    with logs.about(connector="c", task=1):
        logging.getLogger("tieline.x").warning("hello", extra={"partition": "t-0@5"})
    text = output.getvalue()
    assert len(text.splitlines()) == 1
    if text.startswith("{"):
        line = json.loads(text)
        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "event": "hello",
            "level": "warning",
            "logger": "tieline.x",
            "connector": "c",
            "task": 1,
            "partition": "t-0@5",
        }
    else:
        assert "connector=c" in text


def test_a_line_break_in_a_message_makes_no_second_json_line(output):
    logging.getLogger("x").warning('one\n{"event": "forged"}')
    text = output.getvalue()
    if text.startswith("{"):
        assert len(text.splitlines()) == 1
