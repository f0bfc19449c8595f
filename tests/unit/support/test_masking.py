"""What a support bundle shows of settings and messages."""

import base64

import pytest

from tieline.logs import Redaction
from tieline.support.masking import MASK, OMITTED, mask_content, mask_quoted, mask_settings

KNOWN = {"name", "topics", "connection.uri", "poll.ms"}


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("name", "sink", "sink"),
        ("poll.ms", "100", "100"),
        ("connection.uri", "mongodb://me:hunter22@host/db", f"mongodb://{MASK}@host/db"),
        ("connection.uri", "mongodb://me:p@ss/word@host/db", f"mongodb://{MASK}@host/db"),
        ("connection.password", "hunter22", MASK),
        ("connection.password", "${env:MONGO}", "${env:MONGO}"),
        ("connection.password", "x${env:MONGO}", MASK),
        ("connection.pwd", "hunter22", MASK),
        ("pin", "1234", MASK),
        ("sasl.jaas.config", "hunter22", MASK),
        ("security.protocol", "SASL_SSL", "SASL_SSL"),
        ("transforms.a.type", "filter", "filter"),
    ],
)
def test_a_setting_is_shown_if_it_is_declared_and_no_secret(key, text, shown):
    known = {*KNOWN, "connection.password"}
    assert mask_settings({key: text}, {"pin"}, known)[key] == shown


def test_of_a_configuration_that_cannot_be_checked_only_names_are_shown():
    settings = {"name": "n", "topics": "t", "connection.uri": "mongodb://h", "x": "1", "y": "${env:A}"}
    masked = mask_settings(settings, (), None)
    assert masked == {"name": "n", "topics": "t", "connection.uri": MASK, "x": MASK, "y": "${env:A}"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("the field 'temp' holds 'secret text'", "the field 'temp' holds '…'"),
        ("b'\\x00secret' is not JSON", "'…' is not JSON"),
        ('{"a": "secret"} of the worker\'s', '{"…": "…"} of the worker\'s'),
        ("the worker's and the task's state", "the worker's and the task's state"),
        ("two\n'lines\nsecret' end", "two\n'…' end"),
    ],
)
def test_quotations_in_messages_are_replaced_except_names(text, masked):
    assert mask_quoted(text, {"temp"}) == masked


def test_fields_with_the_content_of_records_are_left_out():
    line = {"event": "failed", "topic": "a'b'c", "value": {"a": 1}, "inner": [{"headers": "secret", "n": 5}]}
    assert mask_content(line, ()) == {
        "event": "failed",
        "topic": "a'b'c",
        "value": OMITTED,
        "inner": [{"headers": OMITTED, "n": 5}],
    }


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("after", ["", "!", "!!"])
def test_a_secret_is_masked_in_base64_wherever_it_begins(before, after):
    secret = "correct horse+battery/staple?"
    redaction = Redaction()
    redaction.add([secret])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(f"{before}{secret}{after}".encode()).decode()
        left = redaction.clean(f"Basic {text}").replace("Basic ", "").replace("********", "")
        assert len(left) <= len(encode(f"{before}{after}".encode())) + 8
        assert len(left) < 17
