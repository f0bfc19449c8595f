"""From lines, files and options to commands; how commands are waited for, and how they look."""

import base64
import json
from typing import Any

import pytest

from tieline.api import Schema
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.cli.client import DraftDefaults, prepare
from tieline_connectors.command.cli.display import Screen, describe, json_line
from tieline_connectors.command.cli.parsing import CommandDraft
from tieline_connectors.command.cli.wait import CommandTracker
from tieline_connectors.command.model.command import Defaults, is_signed_by
from tieline_connectors.command.model.parsing import from_value

POINT = "campus/b1/ahu1/CoolingSetpoint"
NOW = 1_800_000_000_000_000
COMPLETE = DraftDefaults({}, "energy-manager", NOW, NOW + 60_000_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("22", 22),
        ("-5", -5),
        ("22.5", 22.5),
        ("1e3", 1000.0),
        ('"22"', "22"),
        ("auto", "auto"),
        ("True", "True"),
        ("NaN", "NaN"),
        ("007", "007"),
        ("", ""),
    ],
)
def test_a_typed_word_is_the_value_that_it_looks_like(text, value):
    parsed = parsing.value_of(text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("500ms", 0.5), ("15m", 900), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parsing.seconds_of(text, "--ttl") == seconds


@pytest.mark.parametrize("text", ["", "-5s", "5 minutes", "s", "1e9", "9" * 10])
def test_an_invalid_duration_is_reported_with_the_valid_forms(text):
    with pytest.raises(ValueError, match=r"--ttl: .* known forms: 90"):
        parsing.seconds_of(text, "--ttl")


def old(point, value):
    return CommandDraft(
        {"message": parsing.OLD_MESSAGE, "new_value": value, "device_point": point}, "commands"
    )


@pytest.mark.parametrize(
    ("line", "point", "value"),
    [
        (f"commands {POINT} 71\n", POINT, "71"),
        (f"commands  {POINT}\t71", POINT, "71"),
        (f'commands {POINT} "night mode"', POINT, "night mode"),
        ('commands "a/b/Zone Air Temp SP" 71', "a/b/Zone Air Temp SP", "71"),
        ("commands 'a/b/Zone \"x\"' 'night mode'", 'a/b/Zone "x"', "night mode"),
        ('commands a/b/5"-Valve 7"', 'a/b/5"-Valve', '7"'),
        ('"commands" a/b/O\'Brien ""', "a/b/O'Brien", ""),
    ],
)
def test_a_line_of_the_old_keyboard_program_is_topic_point_and_value_with_quotes_around_spaces(
    line, point, value
):
    assert parsing.old_line(line) == old(point, value)
    assert parsing.old_line("  \n") is None


@pytest.mark.parametrize(
    "line",
    ["commands a/b/Zone Air Temp SP 71", 'commands "a/b/Zone Air Temp SP 71', 'commands a/b/"Zone Air" 71'],
)
def test_a_line_that_can_be_read_in_two_ways_is_refused_and_says_how_to_write_it(line):
    with pytest.raises(ValueError, match="three words") as caught:
        parsing.old_line(line)
    if '"' not in line:
        assert 'write commands "a/b/Zone Air Temp SP" 71  or  commands a/b/Zone "Air Temp SP 71"' in str(
            caught.value
        )


@pytest.mark.parametrize("line", ["t", f"t {POINT}", "t point 5", "t a/*/c 5"])
def test_an_invalid_line_is_reported(line):
    with pytest.raises(ValueError, match=r"a line is|device_point"):
        parsing.old_line(line)


def test_the_old_file_becomes_a_command_each_on_its_topic():
    listed: list[dict[str, Any]] = [
        {"device_point": POINT, "new_value": 22.5},
        {"device_point": POINT, "new_value": "off"},
    ]
    content = json.dumps({"kafka_topic": "command-from-cloud", "device_point_list": listed}).encode()
    assert parsing.from_file(content) == [
        CommandDraft({"message": parsing.OLD_MESSAGE, **item}, "command-from-cloud") for item in listed
    ]


@pytest.mark.parametrize("form", ["lines", "list", "one"])
def test_lines_a_list_and_one_object_are_commands(form):
    commands = [{"writes": [{"point": POINT, "value": n}]} for n in range(1 if form == "one" else 3)]
    lines = "\n".join(map(json.dumps, commands)) + "\n\n"
    text = json.dumps(commands) if form == "list" else lines
    assert parsing.from_file(text.encode()) == [CommandDraft(command) for command in commands]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no command"),
        (b"[]", "no command"),
        (b'{"a": 1}\n{', "line 2 is not JSON"),
        (b'{"a": 1}\n5\n', "line 2 is not a JSON object"),
        (b"[1]", "command 1 is not a JSON object"),
        (b'{"device_point_list": 5}', "device_point_list must be a list"),
        (b'{"device_point_list": [5]}', "number 1 of device_point_list"),
        (b'{"device_point_list": [{"device_point": "a/b"}]}', "number 1 of device_point_list: the old form"),
        (b'{"kafka_topic": 5, "device_point_list": []}', "kafka_topic must be the name"),
        (b'{"kafka_topic": "t", "device_point_list": []}', "no command"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": ' * 50_000, "is not JSON"),
    ],
)
def test_a_file_that_is_wrong_says_where(content, says):
    with pytest.raises(ValueError, match=says):
        parsing.from_file(content)


def test_what_is_left_out_is_filled_in_and_what_is_said_is_kept():
    sent = prepare(CommandDraft({"writes": [{"point": POINT, "value": 5}]}), "commands", None, COMPLETE)
    own_fields = {"command_id": "mine", "issuer": "me", "issued_at": NOW - 5, "expires_at": NOW + 5}
    kept = prepare(
        CommandDraft({**own_fields, "writes": [{"point": POINT, "value": 5}]}), "commands", None, COMPLETE
    )

    assert sent.record.value_schema == Schema.named("command.Command")
    assert (sent.record.topic, sent.record.key) == ("commands", "campus/b1/ahu1")
    assert sent.command_id == sent.record.value["command_id"]
    assert sent.record.value["issuer"] == "energy-manager"
    assert (sent.record.value["issued_at"], sent.record.value["expires_at"]) == (NOW, NOW + 60_000_000)
    assert sent.seconds == 70
    assert {name: kept.record.value[name] for name in own_fields} == own_fields


def test_the_old_form_is_kept_unless_another_is_requested():
    wish = CommandDraft({"message": "m", "new_value": "22.5", "device_point": POINT}, "command-from-cloud")

    old = prepare(wish, "commands", None, COMPLETE)
    new = prepare(wish, "commands", "json", COMPLETE)

    assert (old.record.value, old.record.topic, old.command_id) == (
        wish.value,
        "command-from-cloud",
        None,
    )
    assert new.record.value["writes"] == [{"point": POINT, "value": 22.5}]
    assert (new.record.value["reason"], new.record.value_schema) == ("m", None)


@pytest.mark.parametrize(
    ("wish", "form", "complete", "says"),
    [
        ({"writes": [{"point": POINT}]}, "old", COMPLETE, "remove --form old"),
        ({"new_value": 5, "device_point": POINT}, None, COMPLETE._replace(key=b"k" * 16), "no signature"),
        (
            {"new_value": 5, "device_point": POINT},
            None,
            COMPLETE._replace(options={"priority": 5}),
            "options",
        ),
        ({"writes": []}, None, COMPLETE, "at least one point"),
        ({"writes": [{"point": POINT}], "pritority": 5}, None, COMPLETE, "not a field of a command"),
        ({"writes": [{"point": "a", "value": 5}]}, None, COMPLETE, "full path"),
    ],
)
def test_a_command_that_every_sink_would_reject_is_not_sent(wish, form, complete, says):
    with pytest.raises(ValueError, match=says):
        prepare(CommandDraft(wish), "commands", form, complete)


def test_a_signature_is_one_that_the_sink_takes():
    key = b"0123456789abcdef"
    wish = CommandDraft({"writes": [{"point": POINT, "value": 22}], "hold_ms": 5000})
    sent = prepare(wish, "commands", None, COMPLETE._replace(key=key))

    for defaults in (Defaults(), Defaults(5, 8, 0.5)):  # whatever the sink fills in
        assert is_signed_by(from_value(sent.record.value, defaults), key)
    assert not is_signed_by(from_value(sent.record.value | {"hold_ms": 5001}, Defaults()), key)


def result(command_id, state, at=1):
    return {"command_id": command_id, "state": state, "at": at}


def test_a_watch_prints_each_state_of_its_commands_once_and_ends_with_the_highest_status():
    watch = CommandTracker(["a", "b"])
    assert not watch.add(result("c", "SUCCEEDED"))
    assert not any(map(watch.add, (None, 5, {}, {"command_id": ["a"], "state": "x"}, b"\xff")))
    assert (watch.waiting, watch.status) == (2, 13)
    assert watch.add(result("a", "ACCEPTED"))
    assert watch.add(result("a", "SUCCEEDED", 2))
    assert not watch.add(result("a", "SUCCEEDED", 2))
    assert (watch.waiting, watch.status) == (1, 13)
    assert watch.add(result("b", "EXPIRED", 3))
    assert (watch.waiting, watch.status) == (0, 11)
    assert watch.add(result("a", "HOLD_ENDED", 4))
    assert watch.status == 11


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("SUCCEEDED", 0),
        ("REJECTED", 10),
        ("EXPIRED", 11),
        ("FAILED", 12),
        ("MISMATCH", 12),
        ("UNKNOWN", 14),
    ],
)
def test_each_end_has_its_exit_status(state, status):
    watch = CommandTracker(["a"])
    watch.add(result("a", state))
    assert watch.status == status


def test_a_result_is_printed_point_by_point_with_its_reason():
    write = {"point": POINT, "requested": 22.5, "previous": 21, "actual": 22, "outcome": "DIFFERENT"}
    value = {"writes": [write, {"point": "a/b", "requested": "x"}], "reason_code": "R", "reason": "why"}
    assert describe(value) == f'{POINT}=22.5 (21 → 22, DIFFERENT)  a/b="x"  R: why'
    assert describe({"writes": None, "dry_run": True}) == "(dry run)"
    assert json.loads(json_line({"raw": b"\xff"})) == {"raw": base64.b64encode(b"\xff").decode()}


def test_no_result_can_move_the_cursor(capsys):
    hostile = {"command_id": "\x1b[2J", "state": "\x07", "reason": "\x9b1A[red]\n", "issuer": "\u202e"}
    Screen().result(hostile, f"{hostile['command_id']} {hostile['issuer']}")
    Screen(as_json=True).result(hostile, "")
    line, as_json = capsys.readouterr().out.splitlines()
    assert line.split() == ["\\x1b[2J", "\\u202e", "\\x07", "\\x9b1A[red]\\n"]
    assert (as_json.isascii(), json.loads(as_json)) == (True, hostile)
