"""A check reports every problem at once, and nothing that is not one."""

import re
from pathlib import Path
from typing import Any

import pytest

from tieline.api import Config, ConfigError, setting
from tieline.api.config import PathText
from tieline.config.files import read_settings
from tieline.config.plan import check_plan, plan
from tieline.registry.http.server import RegistryConfig

FILE = {"name": "in", "connector.class": "file", "file": "x", "topic": "t"}
SINK = {"name": "out", "connector.class": "FileStreamSink", "file": "x", "topics": "t"}
MONGO = {"name": "db", "connector.class": "mongo", "database": "d", "topics": "t"}
BUS = {
    "name": "bus",
    "connector.class": "volttron_bus",
    "platform.name": "p",
    "volttron.address": "tcp://127.0.0.1:22916",
}


def problems(*connectors, worker=None):
    """``(where, key) → message``."""
    with pytest.raises(ConfigError) as caught:
        check_plan("worker", worker or {}, [(str(n), each) for n, each in enumerate(connectors)])
    reported = {(m.where.partition(" ")[0], m.key): m.message for m in caught.value.problems}
    assert len(reported) == len(caught.value.problems)
    return reported


def keys(*connectors, worker=None):
    return set(problems(*connectors, worker=worker))


def of_files(tmp_path, **texts):
    """``(file, key)`` of each problem of these files; ``worker`` is the worker's."""
    paths = {name: tmp_path / f"{name}.yaml" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        plan(paths["worker"], [path for name, path in paths.items() if name != "worker"])
    return {(Path(m.where.split(" ")[0].rstrip(":")).stem, m.key): m.message for m in caught.value.problems}


# -- one does not hide another


def test_a_wrong_number_does_not_hide_files_that_are_missing():
    reported = keys(
        BUS
        | {
            "ping.interval.ms": "soon",
            "volttron.credentials.file": "/no/such/own.json",
            "volttron.server.credentials.file": "/no/such/platform.json",
        }
    )
    assert reported == {
        ("0", "ping.interval.ms"),
        ("0", "volttron.credentials.file"),
        ("0", "volttron.server.credentials.file"),
    }


def test_an_unresolvable_reference_does_not_hide_the_rest_of_its_file(tmp_path):
    reported = of_files(
        tmp_path,
        worker="bootstrap.servers: ${env:NOT_THERE_AT_ALL}\nlog.level: LOUD\nvalue.converter: json\n",
        out="name: out\nconnector.class: FileStreamSink\nfile: ${env:NOT_THERE_AT_ALL}\ntasks.max: 0\n",
    )
    assert set(reported) == {
        ("worker", "bootstrap.servers"),
        ("worker", "log.level"),
        ("out", "file"),
        ("out", "tasks.max"),
        ("out", "topics"),
    }


def test_a_duplicate_key_does_not_hide_the_rest_of_its_file(tmp_path):
    reported = of_files(
        tmp_path,
        worker="log.level: INFO\nlog.level: DEBUG\ndata.dir: ' '\n",
        out="name: out\nconnector.class: FileStreamSink\nname: b\nfile: f\nfile: g\ntasks.max: 0\n",
    )
    assert reported["out", "file"] == "duplicate key (line 5, first in line 4); remove one of them"
    assert set(reported) == {
        ("worker", "log.level"),
        ("worker", "data.dir"),
        ("out", "name"),
        ("out", "file"),
        ("out", "tasks.max"),
        ("out", "topics"),
    }


def test_wrong_types_and_missing_settings_hide_no_rule_of_a_connector():
    wrong = {
        "topics.regex": "x",
        "max.batch.size": "0",
        "socket.timeout.ms": "soon",
        "connection.uri": "mongodb://user:p@ss/w0rd@host",
        "write.concern": "0",
        "layout": "timeserie",
        "collection": "a$b",
        "publishes": "SOME",
        "topic.override.t.layout": "nope",
    }
    without_database = {key: value for key, value in MONGO.items() if key != "database"}
    expected = {("0", key) for key in wrong if key != "topics.regex"} | {("0", "topics")}
    assert keys(MONGO | wrong) == expected
    assert keys(without_database | wrong) == expected | {("0", "database")}


def test_a_missing_address_hides_no_rule_of_a_platform():
    settings = {key: value for key, value in BUS.items() if key != "volttron.address"}
    reported = keys(settings | {"volttron.serverkey": "short", "bus.prefixes": "devices/*"})
    assert reported == {("0", "volttron.address"), ("0", "volttron.serverkey"), ("0", "bus.prefixes")}


def test_a_password_that_is_not_encoded_is_not_taken_for_a_host():
    reported = problems(MONGO | {"connection.uri": "mongodb://user:p@ss/w0rd@host"})
    assert set(reported) == {("0", "connection.uri")}
    assert "must be percent-encoded" in reported["0", "connection.uri"]
    assert "w0rd" not in reported["0", "connection.uri"]


@pytest.mark.parametrize(
    "key", ["name", "connector.class", "transforms", "value.converter", "topics", "file"]
)
def test_an_unresolvable_value_is_one_problem_wherever_it_is_used(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    whole = SINK | {"transforms": "f", "transforms.f.type": "filter", "transforms.f.key.regex": "x"}
    whole |= {"value.converter": "json", "value.converter.schemas.enable": "false"}
    text = "".join(f"{k}: {'${env:NOT_THERE_AT_ALL}' if k == key else v}\n" for k, v in whole.items())
    assert set(of_files(tmp_path, worker="data.dir: d\n", out=text)) == {("out", key)}


def test_an_exception_in_an_authors_rules_hides_no_other_problem():
    class Odd(Config):
        number: int = setting("number", 1, doc="A number.")
        file: PathText = setting("file", doc="A file.")

        def problems(self):
            raise ZeroDivisionError("oops")

    _, wrong = Odd.check({"file": "f"})
    assert [m.message for m in wrong] == ["cannot be checked: ZeroDivisionError: oops"]
    _, wrong = Odd.check({"number": "x"})
    assert {m.key for m in wrong} == {"number", "file"}


# -- nothing is reported that is not wrong


def test_a_problem_in_the_workers_file_causes_none_in_its_connectors():
    worker = {
        "value.converter": "json",
        "value.converter.schemas.enable": "true",
        "log.level": "LOUD",
        "progress.interval.ms": "x",
    }
    assert keys(SINK, FILE, worker=worker) == {("worker", "log.level"), ("worker", "progress.interval.ms")}


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        ({"value.converter": "jsn"}, "value.converter"),
        (
            {"value.converter": "json", "value.converter.schemas.x": "true"},
            "value.converter.schemas.x",
        ),
        ({"plugin.path": "/no/such/folder"}, "plugin.path"),
        ({"schema.registry.url": "http://h:99999"}, "schema.registry.url"),
    ],
)
def test_a_problem_in_a_shared_setting_is_reported_once_for_the_worker(worker, expected):
    assert keys(FILE, SINK, worker=worker) == {("worker", expected)}


@pytest.mark.parametrize("text", ["a: [", "- a\n"])
def test_an_unreadable_worker_file_causes_no_problem_elsewhere(tmp_path, text):
    reported = of_files(
        tmp_path,
        worker=text,
        out="name: out\nconnector.class: acme_sink\nvalue.converter.schemas.enable: true\nacme: 1\n",
        ok="name: in\nconnector.class: file\nfile: x\ntopic: t\nvalue.converter.schemas.enable: false\n",
    )
    assert set(reported) == {("worker", "")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"bus.prefixes": "devices/*"},
        {"volttron.serverkey": "short"},
        {"volttron.serverkey": "0" * 40, "volttron.secretkey": "short"},
        {"volttron.serverkey": "0" * 40, "volttron.secretkey": "0" * 40, "volttron.publickey": "short"},
    ],
)
def test_a_wrong_value_is_reported_once_at_the_key_that_has_it(wrong):
    assert keys(BUS | wrong) == {("0", list(wrong)[-1])}


def test_a_wrong_prefix_does_not_hide_a_wrong_route():
    reported = keys(BUS | {"bus.prefixes": "devices/*", "topic.routes": "devices"})
    assert reported == {("0", "bus.prefixes"), ("0", "topic.routes")}


# -- what no setting can be


@pytest.mark.parametrize(
    ("connector", "key", "value", "expected"),
    [
        (SINK, "topics", "devices/campus", r"perhaps 'devices\.campus'\?"),
        (SINK, "topics", "ok,bad topic", "'bad topic' cannot be the name of a topic"),
        (SINK, "topics", "..", "cannot be the name of a topic"),
        (SINK, "topics", "x" * 250, "cannot be the name of a topic"),
        (FILE, "topic", "a/b", "cannot be the name of a topic"),
        (FILE, "topic", "", "at least 1 character"),
        (FILE, "file", "", "at least 1 character"),
        (FILE, "file", "/tmp", "is a folder"),
        (FILE, "file", "~nobody-of-that-name/x", "no such home folder"),
        (FILE, "file", "a\0b", "contains a NUL character"),
        (FILE, "batch.size", "9" * 20, "is too large"),
        (FILE, "batch.size", "9" * 5000, "is too large"),
        (FILE, "errors.retry.delay.max.ms", "9" * 15, "is too large"),
        (FILE, "topic.creation.default.partitions", "0", "0 is not possible"),
        (MONGO, "database", "my db", "cannot contain ' '"),
        (MONGO, "database", "a/b", "cannot contain '/'"),
        (MONGO, "database", "x" * 64, "1 to 63 bytes"),
        (MONGO, "collection", "a$b", "collection's name"),
        (MONGO, "collection", "system.x", "reserved by MongoDB"),
        (MONGO, "topic.override.t.database", "my db", "cannot contain ' '"),
        (MONGO, "topic.override.t.collection", "x.", "collection's name"),
        (MONGO, "connection.uri", "mongodb://h:99999", "Port must be"),
        (MONGO, "connection.uri", "localhost:27017", "must begin with mongodb://"),
        (MONGO, "write.concern", "51", "number of members"),
        (BUS, "volttron.address", "tcp://127.0.0.1:99999", "from 1 to 65535"),
        (BUS, "volttron.address", "tcp://127.0.0.1:0", "from 1 to 65535"),
        (BUS, "volttron.address", "ipc://@$VOLTTRON_HOME/run/vip.socket", "not expanded in an address"),
        (BUS, "volttron.address", "ipc://~/run/vip.socket", "not expanded in an address"),
        (BUS, "volttron.address", "ipc://@~/run/vip.socket", "not expanded in an address"),
        (BUS, "volttron.address", "ipc://run/vip.socket", "'run/vip.socket' is a relative path"),
        (BUS, "bus.prefixes", "$VOLTTRON_HOME", "not expanded in a prefix"),
        (BUS, "bus.prefixes", "~/devices", "not expanded in a prefix"),
        (BUS, "platform.name", "  ", "match pattern"),
        (BUS, "volttron.server.credentials.file", "/dev/zero", "is not a regular file"),
    ],
)
def test_settings_that_can_never_work_are_rejected(connector, key, value, expected):
    reported = problems(connector | {key: value})
    assert {k for _, k in reported} == {key}
    assert re.search(expected, reported["0", key])


@pytest.mark.parametrize(
    "address", ["ipc:///run/vip.socket", "ipc://@/home/volttron/.volttron/run/vip.socket", "ipc://@name"]
)
def test_a_platforms_address_on_this_machine_is_accepted(address):
    config: Any = check_plan("w", {}, [("0", BUS | {"volttron.address": address})]).connectors[0].config
    assert config.address == address


@pytest.mark.parametrize("servers", ["h:99999", "h:0", "a:9092,h:x", "PLAINTEXT://h:70000"])
def test_a_broker_with_an_impossible_port_is_rejected(servers):
    reported = problems(worker={"bootstrap.servers": servers})
    assert reported["worker", "bootstrap.servers"] == "the port is not a number from 1 to 65535"


@pytest.mark.parametrize("servers", ["a b:9092", "/dev/zero", "devices/*", "h:9092/x", "http://h/x", "$x"])
def test_an_invalid_broker_address_is_rejected(servers):
    reported = problems(worker={"bootstrap.servers": servers})
    assert reported["worker", "bootstrap.servers"] == "is not host:port (several with commas)"


@pytest.mark.parametrize("servers", ["h", "h:9092,i:9093", "PLAINTEXT://h:9092", "[::1]:9092", "10.0.0.1:1"])
def test_a_possible_broker_address_is_accepted(servers):
    assert check_plan("w", {"bootstrap.servers": servers}, []).worker.bootstrap_servers == tuple(
        servers.split(",")
    )


def test_an_empty_path_is_rejected_and_an_empty_optional_one_is_not_set(tmp_path):
    assert problems(worker={"data.dir": " "}) == {("worker", "data.dir"): "is empty; give a path"}
    config, wrong = RegistryConfig.check({"users.file": ""})
    assert (config.users_file, wrong) == (None, [])


def test_a_ca_file_that_is_missing_is_named_and_no_password_is_shown():
    uri = "mongodb://me:s3cret@h/?tls=true&tlsCAFile=~/no-such-ca.pem"
    (message,) = problems(MONGO | {"connection.uri": uri}).values()
    assert "tlscafile ~/no-such-ca.pem: there is no such file" in message
    assert "s3cret" not in message


def test_the_home_folder_is_found_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "plugins").mkdir()
    planned = check_plan(
        "w", {"data.dir": "~/data", "plugin.path": "~/plugins"}, [("f", FILE | {"file": "~/in.txt"})]
    )
    assert planned.worker.data_dir == tmp_path / "data"
    config: Any = planned.connectors[0].config
    assert config.file == str(tmp_path / "in.txt")
    (tmp_path / "secret.properties").write_text("k=v\n")
    (tmp_path / "a.yaml").write_text("a: ${file:~/secret.properties:k}\n")
    assert read_settings(tmp_path / "a.yaml") == {"a": "v"}


# -- refusals give their reason


@pytest.mark.parametrize(
    ("connector", "key", "value", "expected"),
    [
        (SINK, "predicates", "p", "there are no predicates yet"),
        (SINK, "predicates.p.type", "x", "there are no predicates yet"),
        (SINK, "consumer.auto.offset.reset", "latest", "write consumer.override.auto.offset.reset"),
        (FILE, "producer.linger.ms", "5", "write producer.override.linger.ms"),
        (FILE, "admin.override.client.id", "x", "with the worker's own rights"),
        (MONGO, "writemodel.strategy", "x", "each record is inserted once, with its identity as _id"),
        (MONGO, "document.id.strategy", "x", "each record is inserted once, with its identity as _id"),
        (MONGO, "bulk.write.ordered", "true", "a bad record does not affect others"),
        (MONGO, "mongo.errors.tolerance", "all", "errors.tolerance=all with errors.deadletterqueue.topic"),
    ],
)
def test_a_rejected_setting_of_connect_says_why_and_what_to_do(connector, key, value, expected):
    (message,) = problems(connector | {key: value}).values()
    assert expected in message


def test_a_workers_settings_for_one_client_say_where_they_belong():
    reported = problems(worker={"consumer.max.poll.records": "5", "producer.override.linger.ms": "5"})
    consumer, producer = reported.values()
    assert "write consumer.override.max.poll.records in its file" in consumer
    assert "write producer.override.linger.ms in its file" in producer


def test_a_predicate_of_a_transform_is_reported_beside_its_other_problems():
    transform = {"transforms": "f", "transforms.f.type": "filter", "transforms.f.predicate": "p"}
    assert {k for _, k in problems(SINK | transform)} >= {"transforms.f.predicate"}
