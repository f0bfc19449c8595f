from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.api import Config, ConfigError, Secret, SinkConnector, setting
from tieline.config.plan import check_plan, plan
from tieline.config.settings import SinkSettings, SourceSettings, WorkerSettings
from tieline.plugins.discovery import SINKS
from tieline.testing.distribution import distribution
from tieline_connectors.file.sink import FileSink
from tieline_connectors.file.source import FileSource

WORKER = {"value.converter": "string"}
SOURCE = {"name": "a", "connector.class": "file", "file": "in.txt", "topic": "t"}
SINK = {"name": "b", "connector.class": "file", "file": "out.txt", "topics": "t"}

# Kafka 3.9's config/ folder, comments left out.
STANDALONE = """
bootstrap.servers=localhost:9092
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=true
value.converter.schemas.enable=true
offset.storage.file.filename=/tmp/connect.offsets
offset.flush.interval.ms=10000
#plugin.path=
"""
FILE_SOURCE = """
name=local-file-source
connector.class=FileStreamSource
tasks.max=1
file=test.txt
topic=connect-test
"""
FILE_SINK = """
name=local-file-sink
connector.class=FileStreamSink
tasks.max=1
file=test.sink.txt
topics=connect-test
"""


def problems_of(*connectors, worker=WORKER):
    """``where: key: message`` of every problem."""
    with pytest.raises(ConfigError) as caught:
        check_plan("worker", worker, [(f"file{n}", c) for n, c in enumerate(connectors)])
    return [str(problem) for problem in caught.value.problems]


def test_a_source_and_a_sink_of_the_same_name_are_distinguished_by_their_topics():
    planned = check_plan("worker", WORKER, [("x", SOURCE), ("y", SINK)])
    assert [p.connector for p in planned.connectors] == [FileSource, FileSink]


def test_all_problems_of_all_files_are_reported_together(tmp_path):
    (tmp_path / "worker.yaml").write_text("value.convertr: string\noffset.flush.interval.ms: soon\n", "utf-8")
    (tmp_path / "a.properties").write_text("name=a\nconnector.class=fiel\n", "utf-8")
    (tmp_path / "b.json").write_text(
        '{"name": "b/b", "connector.class": "file", "topics": "t", "fil": "x"}', "utf-8"
    )
    (tmp_path / "c.yaml").write_text("name: [", "utf-8")
    files = [tmp_path / name for name in ("a.properties", "b.json", "c.yaml", "d.yaml")]
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path / "worker.yaml", files)
    reported = {(m.where.removeprefix(f"{tmp_path}/"), m.key) for m in caught.value.problems}
    assert reported == {
        ("c.yaml", ""),
        ("d.yaml", ""),
        ("worker.yaml", "value.convertr"),
        ("worker.yaml", "offset.flush.interval.ms"),
        ("a.properties (a)", "connector.class"),
        ("b.json (b/b)", "name"),
        ("b.json (b/b)", "file"),
        ("b.json (b/b)", "fil"),
    }
    assert str(caught.value).startswith("8 problems in the configuration:\n  - ")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"fil": "x"}, "file0 (a): fil: no such setting; did you mean 'file'?"),
        ({"tasks.mx": "1"}, "file0 (a): tasks.mx: no such setting; did you mean 'tasks.max'?"),
        (
            {"zzz": "1"},
            "file0 (a): zzz: no such setting; known here: file, topic, batch.size, max.line.bytes",
        ),
        (
            {"connector.class": "fille"},
            "file0 (a): connector.class: no connector is called 'fille'; did you mean 'file'? ",
        ),
        (
            {"value.converter": "strin"},
            "file0 (a): value.converter: no converter is called 'strin'; did you mean",
        ),
        (
            {"value.converter": "json", "value.converter.schema.enable": "true"},
            "file0 (a): value.converter: schema.enable: no such setting; did you mean 'schemas.enable'?",
        ),
        ({"transforms": "r"}, "file0 (a): transforms.r.type: is required: the transform's plugin"),
        (
            {"transforms": "r", "transforms.r.type": "regex_rooter"},
            "file0 (a): transforms.r.type: no transform is called 'regex_rooter'; did you mean 'regex_router",
        ),
        (
            {"transforms.r.type": "filter"},
            "file0 (a): transforms.r.type: belongs to no transform; transforms names nothing",
        ),
        (
            {"transforms": "r", "transforms.r.type": "filter", "transforms.rr.topic.regex": "x"},
            "file0 (a): transforms.rr.topic.regex: belongs to no transform; transforms names r",
        ),
        (
            {"transforms": "r", "transforms.r.type": "filter", "transforms.r.topic.regexp": "x"},
            "file0 (a): transforms.r: topic.regexp: no such setting; did you mean 'topic.regex'?",
        ),
        ({"name": ""}, "file0: name: "),
        ({"tasks.max": "0"}, "file0 (a): tasks.max: "),
    ],
)
def test_a_problem_says_where_which_key_and_the_fix(wrong, expected):
    reported = problems_of({**SOURCE, **wrong})
    assert [line for line in reported if line.startswith(expected)] == reported[:1]


def test_a_required_setting_that_is_missing_says_what_it_is_for():
    assert problems_of({"name": "a"}) == ["file0 (a): connector.class: is required: The plugin's name."]
    assert problems_of({"name": "a", "connector.class": "file", "topic": "t"}) == [
        "file0 (a): file: is required: The file to read. It may be created later."
    ]


def test_two_connectors_without_a_name_are_two_problems():
    nameless = {k: v for k, v in SOURCE.items() if k != "name"}
    assert problems_of(nameless, nameless) == [
        "file0: name: is required: Unique in the worker.",
        "file1: name: is required: Unique in the worker.",
    ]


def test_two_connectors_of_one_name_are_a_problem():
    assert problems_of(SOURCE, {**SINK, "name": "a"}) == ["file1: name: 'a' is also the name in file0"]


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ({}, "topics: give either topics or topics.regex"),
        ({"topics": "a", "topics.regex": "b"}, "topics: give either topics or topics.regex"),
        ({"topics.regex": "("}, "topics.regex: not a regular expression: "),
    ],
)
def test_a_sink_names_its_topics_in_exactly_one_way(topics, message):
    reported = problems_of({"name": "s", "connector.class": "FileStreamSink", "file": "x", **topics})
    assert [line for line in reported if line.startswith(f"file0 (s): {message}")] == reported


def test_the_workers_converter_settings_go_to_connectors_that_use_its_converter():
    worker = {"value.converter": "json", "value.converter.schemas.enable": "true"}
    json_sink = {**SINK, "value.converter": "json"}
    planned = check_plan("worker", worker, [("x", SOURCE), ("y", json_sink)])
    assert [p.value.config.schemas_enable for p in planned.connectors] == [True, False]  # type: ignore[attr-defined]


def test_a_connectors_own_setting_precedes_kafka_connects_of_the_same_name(tmp_path):
    module = """
from tieline.api import Config, SinkConnector, setting

class GroupConfig(Config):
    group: str = setting("group.id", doc="A group.")

class Group(SinkConnector):
    config_type = GroupConfig
"""
    with distribution(
        tmp_path, "fixture_group", {SINKS: {"group": "fixture_group:Group"}}, {"fixture_group": module}
    ):
        settings = {"name": "g", "connector.class": "group", "topics": "t", "group.id": "mine"}
        planned = check_plan("worker", WORKER, [("x", settings), ("y", {**SINK, "header.converter": "z"})])
    assert planned.connectors[0].config.model_dump() == {"group": "mine"}
    assert planned.connectors[1].connector_settings == {"file": "out.txt"}


def test_a_broken_plugin_is_one_problem_among_the_others(tmp_path):
    with distribution(
        tmp_path,
        "fixture_bad",
        {SINKS: {"broken": "fixture_bad:Sink"}},
        {"fixture_bad": "import no_such_module"},
    ):
        reported = problems_of(
            {"name": "x", "connector.class": "broken", "topics": "t"}, {**SOURCE, "fil": "x"}
        )
    assert len(reported) == 2
    assert "'broken' of fixture_bad 1.0 is broken" in reported[0]


class SecretConfig(Config):
    password: Secret = setting("password", doc="A secret.", min_length=4)
    number: int = setting("number", 1, doc="A number.")

    def problems(self):
        return [("number", "is unlucky")] if self.number == 13 else []


class SecretSink(SinkConnector[SecretConfig]):
    config_type = SecretConfig


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=2, max_size=30).map(
    "§{}§".format
)


@given(secret=SECRETS, number=st.sampled_from(["1", "13", "x", ""]))
def test_a_secret_is_in_no_message_about_a_wrong_configuration(secret, number):
    settings = {"password": secret, "number": number, "numbr": "1"}
    with pytest.raises(ConfigError) as caught:
        SecretConfig.parse(settings, "here")
    error = caught.value
    assert secret not in f"{error} {error!r} {error.problems} {error.__cause__} {error.__context__}"


class StrictConfig(Config):
    password: Secret = setting("password", doc="A secret.", min_length=1000)


@given(secret=SECRETS)
def test_a_secret_that_is_itself_the_problem_is_in_no_message(secret):
    with pytest.raises(ConfigError) as caught:
        StrictConfig.parse({"password": secret})
    error = caught.value
    assert secret not in f"{error} {error!r} {error.__cause__} {error.__context__}"


@given(secret=SECRETS)
def test_a_secret_is_in_no_printed_configuration_but_is_what_the_connector_gets(secret):
    config = SecretConfig.parse({"password": secret})
    assert secret not in f"{config} {config!r} {config.definition()} {config.model_dump_json()}"
    assert config.password.get_secret_value() == secret


def test_the_plan_knows_every_secret_so_that_the_log_can_mask_it(tmp_path):
    module = """
from tieline.api import Config, Secret, SinkConnector, setting

class SecretConfig(Config):
    password: Secret = setting("password", doc="A secret.")

class SecretSink(SinkConnector):
    config_type = SecretConfig
"""
    with distribution(
        tmp_path,
        "fixture_secret",
        {SINKS: {"secret": "fixture_secret:SecretSink"}},
        {"fixture_secret": module},
    ):
        planned = check_plan(
            "worker",
            {**WORKER, "sasl.password": "secret-1", "ssl.key.password": "secret-2", "ssl.ca.location": "/ca"},
            [
                ("x", {"name": "x", "connector.class": "secret", "topics": "t", "password": "secret-3"}),
                (
                    "y",
                    {
                        **SINK,
                        "value.converter": "avro",
                        "value.converter.schema.registry.url": "http://127.0.0.1:1",
                        "value.converter.schema.registry.basic.auth.user.info": "user:secret-4",
                        "consumer.override.sasl.jaas.config": "secret-5",
                    },
                ),
            ],
        )
    assert sorted(planned.secrets) == [*(f"secret-{n}" for n in range(1, 6)), "user:secret-4"]


def test_kafka_connects_own_example_files_are_understood(tmp_path):
    for name, text in (("w", STANDALONE), ("source", FILE_SOURCE), ("sink", FILE_SINK)):
        (tmp_path / f"{name}.properties").write_text(text, "utf-8")
    planned = plan(tmp_path / "w.properties", [tmp_path / "source.properties", tmp_path / "sink.properties"])
    assert [(p.name, p.connector) for p in planned.connectors] == [
        ("local-file-source", FileSource),
        ("local-file-sink", FileSink),
    ]
    assert planned.worker.bootstrap_servers == ("localhost:9092",)
    assert planned.worker.offset_flush_interval_ms == 10_000
    assert all(p.value.config.schemas_enable for p in planned.connectors)  # type: ignore[attr-defined]
    assert planned.ignored == {"offset.storage.file.filename": "offsets are in the broker"}


@pytest.mark.parametrize("kind", [WorkerSettings, SourceSettings, SinkSettings, SecretConfig])
def test_a_configuration_is_exported_as_kafka_connects_config_def(kind):
    definition = kind.definition()
    assert [entry["name"] for entry in definition] == kind.keys()
    assert [entry["order"] for entry in definition] == list(range(1, len(definition) + 1))
    for entry in definition:
        assert set(entry) == {
            *("name", "type", "required", "default_value", "importance", "documentation"),
            *("group", "order", "width", "display_name", "dependents"),
        }
        assert entry["type"] in {"BOOLEAN", "DOUBLE", "LIST", "LONG", "PASSWORD", "STRING"}
        assert entry["importance"] in {"HIGH", "MEDIUM", "LOW"}
        assert entry["documentation"]
        assert entry["default_value"] is None or isinstance(entry["default_value"], str)


def test_an_exported_default_is_what_the_setting_would_be_parsed_from():
    by_name = {entry["name"]: entry for entry in WorkerSettings.definition()}
    properties = {
        name: entry["default_value"] for name, entry in by_name.items() if entry["default_value"] is not None
    }
    assert WorkerSettings.parse(properties) == WorkerSettings.parse({})
    assert by_name["offset.flush.interval.ms"]["type"] == "LONG"
    assert by_name["bootstrap.servers"]["type"] == "LIST"
    assert {e["name"]: e["type"] for e in SecretConfig.definition()} == {
        "password": "PASSWORD",
        "number": "LONG",
    }
    required = {entry["name"]: entry["required"] for entry in SinkSettings.definition()}
    assert required["name"] is True


def tieline(*arguments, cwd):
    command = [sys.executable, "-c", "from tieline.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_run_check_prints_every_problem_to_standard_error_and_exits_with_2(tmp_path):
    (tmp_path / "w.yaml").write_text("valu.converter: x\n", "utf-8")
    (tmp_path / "a.yaml").write_text("name: a\nconnector.class: fiel\n", "utf-8")
    ended = tieline("run", "--check", "w.yaml", "a.yaml", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[0] == "2 problems in the configuration:"
    assert "did you mean 'value.converter'?" in ended.stderr
    assert "did you mean 'file'?" in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml", "w.yaml"]


@pytest.mark.slow
def test_run_check_without_a_problem_starts_nothing_and_exits_with_0(tmp_path):
    (tmp_path / "w.yaml").write_text("value.converter: string\n", "utf-8")
    (tmp_path / "a.properties").write_text(FILE_SOURCE, "utf-8")
    ended = tieline("run", "--check", "w.yaml", "a.properties", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "1 connector(s) checked, no problems\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.properties", "w.yaml"]
