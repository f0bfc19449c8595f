from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tieline.api import ConfigError
from tieline.api.files import MAX_BYTES
from tieline.config.files import read_file, read_settings


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def problems(path):
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    return [problem.message for problem in caught.value.problems]


EXPECTED = {"name": "a", "tasks.max": "2", "flag": "true", "rate": "1.50", "topics": "x,y", "empty": ""}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "name: a\ntasks.max: 2\nflag: true\nrate: 1.50\ntopics: [x, y]\nempty:\n"),
        ("a.yml", "{name: a, tasks.max: 2, flag: true, rate: 1.50, topics: 'x,y', empty: null}"),
        (
            "a.json",
            '{"name":"a","tasks.max":2,"flag":true,"rate":1.50,"topics":["x","y"],"empty":null}',
        ),
        (
            "A.JSON",
            '{"name":"a","config":{"tasks.max":"2","flag":"true","rate":"1.50","topics":"x,y","empty":""}}',
        ),
        ("a.yaml", "name: a\nconfig: {tasks.max: 2, flag: true, rate: 1.50, topics: [x, y], empty: }\n"),
        (
            "a.properties",
            "# all of it\nname=a\ntasks.max = 2\nflag:true\nrate 1.50\ntopics=x,\\\n  y\nempty=\n",
        ),
    ],
)
def test_every_kind_of_file_gives_the_same_flat_map(name, text, tmp_path):
    assert read_settings(written(tmp_path, name, text)) == EXPECTED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z.]{0,10}", fullmatch=True).filter(lambda key: key != "config"),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).filter(lambda v: "${" not in v),
        max_size=5,
    )
)
def test_json_and_quoted_yaml_and_properties_are_equal_for_any_text(tmp_path, values):
    as_json = written(tmp_path, "p.json", json.dumps(values))
    as_yaml = written(tmp_path, "p.yaml", json.dumps(values, ensure_ascii=False))  # every JSON text is YAML
    properties = "".join(f"{key}={''.join(map(escaped, value))}\n" for key, value in values.items())
    as_properties = written(tmp_path, "p.properties", properties)
    assert read_settings(as_json) == read_settings(as_yaml) == read_settings(as_properties) == values


def escaped(character):
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[start : start + 2].hex()}" for start in range(0, len(units), 2))


@pytest.mark.parametrize(
    "text", ["0644", "12:30:45", "on", "yes", "1e3", "2024-01-02", "0x1F", "~x", "1_000"]
)
def test_yaml_values_are_read_as_text(text, tmp_path):
    assert read_settings(written(tmp_path, "a.yaml", f"key: {text}\n")) == {"key": text}


@pytest.mark.parametrize("text", ["1.10", "1e400", "123456789012345678901234567890", "-0.0", "NaN"])
def test_json_numbers_are_read_as_text(text, tmp_path):
    assert read_settings(written(tmp_path, "a.json", f'{{"key": {text}}}')) == {"key": text}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: !!python/object/apply:os.system ['true']", "tags are refused (line 1, column 4)"),
        ("a.yaml", "a: !!int 3", "tags are refused (line 1, column 4)"),
        ("a.yaml", "a: &x 1\nb: *x", "anchors and aliases are refused (line 1, column 4)"),
        ("a.yaml", "b: *x", "anchors and aliases are refused (line 1, column 4)"),
        ("a.yaml", "? [a]\n: 1", "a key is text"),
        ("a.json", '{"a": 1', "Expecting ',' delimiter"),
        ("a.properties", "a=\\u12", "a \\u without four hexadecimal digits"),
        ("a.toml", "a = 1", "unknown kind of file '.toml'; known are .yaml, .yml, .json, .properties"),
    ],
)
def test_a_file_that_cannot_be_parsed_says_why(name, text, message, tmp_path):
    (problem,) = problems(written(tmp_path, name, text))
    assert problem.startswith(f"cannot be parsed: {message}")


@pytest.mark.parametrize(
    ("name", "text"), [("a.yaml", "- a"), ("a.yaml", ""), ("a.json", "[]"), ("a.json", "3")]
)
def test_a_file_without_a_map_is_rejected(name, text, tmp_path):
    assert problems(written(tmp_path, name, text)) == ["holds no map of settings"]


def test_every_nested_map_of_a_file_is_named(tmp_path):
    path = written(tmp_path, "a.yaml", "a: {b: 1}\nc: 2\nd: [{e: 1}]\n")
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert [m.key for m in caught.value.problems] == ["a", "d"]


def test_a_missing_file_is_a_problem(tmp_path):
    assert problems(tmp_path / "no.yaml") == ["cannot be read: No such file or directory"]


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = written(tmp_path, "a.yaml", "a: 1\n" + "#" * MAX_BYTES)
    assert problems(path) == [f"is larger than {MAX_BYTES} bytes"]


def test_a_file_that_is_not_utf_8_is_a_problem(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff")
    (message,) = problems(path)
    assert message == "is not text in UTF-8 (byte 3)"


@pytest.mark.parametrize("depth", [50, 2_000, 100_000])
@pytest.mark.parametrize(
    ("name", "left", "right"), [("a.yaml", "[", "]"), ("a.json", "[", "]"), ("a.yaml", "{a: ", "}")]
)
def test_deep_nesting_is_rejected_at_once(name, left, right, depth, tmp_path):
    text = f'{{"a": {left * depth}{right * depth}}}'
    started = time.monotonic()
    assert len(problems(written(tmp_path, name, text))) == 1
    assert time.monotonic() - started < 5


def test_a_billion_laughs_cost_nothing(tmp_path):
    laughs = 'a0: &a0 ["lol","lol"]\n' + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    (message,) = problems(written(tmp_path, "a.yaml", laughs))
    assert message.startswith("cannot be parsed: anchors and aliases are refused")


def test_references_are_replaced_by_what_they_name(tmp_path, monkeypatch):
    monkeypatch.setenv("SITE", "campus")
    written(tmp_path, "kept.properties", "user=u\npassword=p\\u00e4ss\n")
    written(tmp_path, "token", "abc\n")
    path = written(
        tmp_path,
        "a.yaml",
        "plain: x\n"
        "env: in ${env:SITE} and ${env:SITE}\n"
        f"file: ${{file:{tmp_path}/kept.properties:password}}\n"
        f"directory: ${{directory:{tmp_path}:token}}\n"
        "other: $${unknown:x}\n",
    )
    assert read_settings(path) == {
        "plain": "x",
        "env": "in campus and campus",
        "file": "päss",
        "directory": "abc",
        "other": "${unknown:x}",
    }


def test_the_value_of_a_reference_is_not_resolved_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOP", "${env:LOOP}")
    assert read_settings(written(tmp_path, "a.yaml", "a: ${env:LOOP}")) == {"a": "${env:LOOP}"}


def test_every_unresolvable_reference_is_reported(tmp_path):
    written(tmp_path, "kept.properties", "user=u\n")
    path = written(
        tmp_path,
        "a.yaml",
        "a: ${env:TIELINE_NOT_SET}\n"
        f"b: ${{file:{tmp_path}/kept.properties:password}}\n"
        f"c: ${{file:{tmp_path}/none.properties:password}}\n"
        f"d: ${{directory:{tmp_path}:none}}\n",
    )
    assert problems(path) == [
        "the environment has no TIELINE_NOT_SET",
        f"{tmp_path}/kept.properties has no key password",
        f"${{file:{tmp_path}/none.properties:password}} cannot be read: No such file or directory",
        f"${{directory:{tmp_path}:none}} cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "password: '{}\nname: a\n"),
        ("a.yaml", "password: [{}\nname: a"),
        ("a.yaml", "password: !{} x\n"),
        ("a.yaml", "password: !{}!x y\n"),
        ("a.yaml", "password: *{}\n"),
        ("a.yaml", "password: &{} x\nb: 2"),
        ("a.yaml", "password: @{}\n"),
        ("a.yaml", "password: %{}\n"),
        ("a.yaml", 'password: "{}\\z"\n'),
        ("a.yaml", "password: {}: x: y\n"),
        ("a.json", '{{"password": "{}'),
        ("a.json", '{{"password": {}}}'),
        ("a.properties", "password={}\\u12\n"),
    ],
)
def test_no_text_of_a_broken_file_is_in_the_message(name, text, tmp_path):
    (message,) = problems(written(tmp_path, name, text.format("hunter2secret")))
    assert "hunter2" not in message
    assert "{" not in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${vault:secret/db:password}", "there is no provider vault; known: env, file, directory"),
        ("${ENV:HOME}", "there is no provider ENV; did you mean ${env:…}?"),
        ("${File:/x:y}", "there is no provider File; did you mean ${file:…}?"),
        ("${env:HOME", "${env:… is not closed: } is missing"),
        ("a${file:/x:k", "${file:… is not closed"),
        ("${HOME}", "write ${env:HOME} for the environment's variable"),
        ("${file:/dev/zero:x}", "is not a regular file"),
        ("${directory:/dev:zero}", "is not a regular file"),
        ("${file:/proc/self/environ:x}", "is not a file on a disk"),
        ("${file:/:x}", "is not a regular file"),
        ("${file:~nobody-of-that-name/f:x}", "no such home folder"),
    ],
)
def test_text_that_resembles_a_reference_is_rejected_with_a_suggestion(value, expected, tmp_path):
    (message,) = problems(written(tmp_path, "a.yaml", f"a: '{value}'\n"))
    assert expected in message


@pytest.mark.parametrize("text", ["$1", "${1}", "$", "a$b{c}", "${}", "{x}", "$(x)", "${a b:c}"])
def test_text_that_hardly_resembles_a_reference_is_unchanged(text, tmp_path):
    assert read_settings(written(tmp_path, "a.yaml", f"a: '{text}'\n")) == {"a": text}


def test_two_dollars_stand_for_the_text_itself(tmp_path):
    path = written(tmp_path, "a.yaml", "a: '$${env:HOME} and $${X}'\n")
    assert read_settings(path) == {"a": "${env:HOME} and ${X}"}


def test_a_huge_file_that_is_referred_to_is_refused(tmp_path):
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    (message,) = problems(written(tmp_path, "a.yaml", f"a: '${{file:{tmp_path}/huge:k}}'\n"))
    assert message.endswith("is larger than 1048576 bytes")


@pytest.mark.parametrize("kind", ["pipe.yaml", "folder.yaml"])
def test_a_configuration_that_is_not_a_regular_file_is_rejected_without_waiting(kind, tmp_path):
    path = tmp_path / kind
    os.mkfifo(path) if kind.startswith("pipe") else path.mkdir()
    assert problems(path) == ["is not a regular file"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: 1\nb: 2\n\na: 3\n", "duplicate key (line 4, first in line 1); remove one of them"),
        ("a.json", '{"a": 1, "b": 2, "a": 3}', "duplicate key; remove one of them"),
        (
            "a.properties",
            "a=1\nb=\\\n2\n#\na=3\n",
            "duplicate key (line 5, first in line 1); remove one of them",
        ),
    ],
)
def test_a_duplicate_key_is_reported_with_its_line_and_the_last_value_is_read(name, text, message, tmp_path):
    settings, wrong = read_file(written(tmp_path, name, text))
    assert settings == {"a": "3", "b": "2"}
    assert [(problem.key, problem.message) for problem in wrong] == [("a", message)]


def test_a_byte_order_mark_is_not_part_of_a_key(tmp_path):
    for name, text in (("a.properties", "a=1"), ("a.json", '{"a": 1}'), ("a.yaml", "a: 1")):
        assert read_settings(written(tmp_path, name, f"\ufeff{text}")) == {"a": "1"}


@pytest.mark.parametrize("name", ["config", "kafka.config", "config.json", "config.yaml"])
@pytest.mark.parametrize(
    ("agent", "text"),
    [
        (
            "KafkaAgent",
            '{"services_topic_list": ["devices"], "kafka_broker_ip": "10.0.0.1"}',
        ),
        ("CloudAgent", '{"destination_ip": "x", "cloud_broker_ip": "10.0.0.1", "database_name": "d"}'),
    ],
)
def test_a_config_file_of_the_old_agents_is_recognized_and_the_page_is_named(name, agent, text, tmp_path):
    (message,) = problems(written(tmp_path, name, text))
    assert f"is a config file of {agent}" in message
    assert "docs/how-to/old-agents.md" in message
