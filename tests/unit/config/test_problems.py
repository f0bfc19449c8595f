"""Every problem is reported before the first record, all of them together."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BeforeValidator

from tieline.api import Config, ConfigError, setting
from tieline.broker.client_secrets import secrets, without_secrets
from tieline.config.plan import check_plan
from tieline.config.planned import SinkPlan
from tieline.plugins.discovery import CONVERTERS, SINKS
from tieline.testing.distribution import distribution

LOCAL = {"value.converter": "string"}
KAFKA = {**LOCAL, "bootstrap.servers": "127.0.0.1:1"}
AVRO = {**LOCAL, "value.converter": "avro"}
SOURCE = {"name": "a", "connector.class": "file", "file": "in.txt", "topic": "t"}
SINK = {"name": "b", "connector.class": "file", "file": "out.txt", "topics": "t"}
REGISTRY = "value.converter.schema.registry"


def problems_of(*connectors, worker=LOCAL):
    """``(where, key)`` and the message of every problem."""
    with pytest.raises(ConfigError) as caught:
        check_plan("worker", worker, [(f"file{n}", c) for n, c in enumerate(connectors)])
    problems = caught.value.problems
    assert len(problems) == len({(m.where, m.key, m.message) for m in problems})
    return {(m.where, m.key): m.message for m in problems}


def test_wrong_settings_of_kafkas_clients_are_reported_with_all_other_problems():
    reported = problems_of(
        {
            **SOURCE,
            "fil": "x",
            "producer.override.acks": "0",
            "producer.override.no.such.thing": "1",
            "producer.override.nor.this": "1",
            "producer.override.linger.ms": "soon",
            "producer.override.stats_cb": "x",
            "producer.override.batch.num.messages": "10",
        },
        {**SINK, "consumer.override.group.id": "g", "consumer.override.fetch.max.bytes": "many"},
        worker={**KAFKA, "ssl.nonsense": "1", "sasl.nonsense": "2", "socket.timeout.ms": "5000"},
    )
    assert set(reported) == {
        ("worker", "ssl.nonsense"),
        ("worker", "sasl.nonsense"),
        ("file0 (a)", "fil"),
        ("file0 (a)", "producer.override.acks"),
        ("file0 (a)", "producer.override.no.such.thing"),
        ("file0 (a)", "producer.override.nor.this"),
        ("file0 (a)", "producer.override.linger.ms"),
        ("file0 (a)", "producer.override.stats_cb"),
        ("file1 (b)", "consumer.override.group.id"),
        ("file1 (b)", "consumer.override.fetch.max.bytes"),
    }
    assert reported["worker", "ssl.nonsense"] == 'No such configuration property: "ssl.nonsense"'
    assert "all replicas in sync" in reported["file0 (a)", "producer.override.acks"]


def test_a_missing_certificate_is_reported_once_for_the_worker(tmp_path):
    worker = {**KAFKA, "security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "none")}
    reported = problems_of(SOURCE, {**SINK, "consumer.override.no.such": "1"}, worker=worker)
    assert set(reported) == {("worker", "ssl.ca.location"), ("file1 (b)", "consumer.override.no.such")}
    assert "ssl.ca.location failed" in reported["worker", "ssl.ca.location"]


def test_overrides_that_kafkas_clients_accept_are_valid():
    source = {**SOURCE, "producer.override.linger.ms": "0", "producer.override.compression.type": "zstd"}
    sink = {
        **SINK,
        "consumer.override.isolation.level": "read_uncommitted",
        "producer.override.linger.ms": "1",  # of the records that are written with the sink's offsets
    }
    planned = check_plan("worker", KAFKA, [("x", source), ("y", sink)])
    assert [dict(p.overrides) for p in planned.connectors] == [
        {"linger.ms": "0", "compression.type": "zstd"},
        {"isolation.level": "read_uncommitted"},
    ]
    assert isinstance(planned.connectors[1], SinkPlan)
    assert dict(planned.connectors[1].producer_overrides) == {"linger.ms": "1"}


def test_an_override_of_a_sinks_producer_that_would_break_a_promise_is_reported():
    sink = {**SINK, "producer.override.acks": "0", "consumer.override.no.such": "1"}
    reported = problems_of(sink, worker=KAFKA)
    assert {key for _, key in reported} == {"producer.override.acks", "consumer.override.no.such"}


def test_without_kafka_the_settings_of_its_clients_have_no_effect():
    worker = {**LOCAL, "ssl.nonsense": "1", "bootstrap.servers": ""}
    check_plan("worker", worker, [("x", {**SOURCE, "producer.override.no.such.thing": "1"})])


def test_settings_that_the_registrys_client_does_not_know_are_problems():
    url = {f"{REGISTRY}.url": "http://127.0.0.1:1"}
    reported = problems_of(
        {**SOURCE, **url, "value.converter": "avro", f"{REGISTRY}.nonsense": "1", f"{REGISTRY}.more": "1"},
        {**SINK, **url, "value.converter": "avro", f"{REGISTRY}.max.retries": "few"},
    )
    assert reported == {
        ("file0 (a)", f"{REGISTRY}.url"): "Unrecognized properties: nonsense, more",
        ("file1 (b)", f"{REGISTRY}.url"): "could not convert string to float: 'few'",
    }


def test_settings_of_a_registry_without_its_url_are_problems():
    reported = problems_of({**SOURCE, "value.converter": "avro", f"{REGISTRY}.urll": "http://127.0.0.1:1"})
    assert reported == {("file0 (a)", f"{REGISTRY}.urll"): f"has no effect without {REGISTRY}.url"}


def test_a_converter_without_a_registry_rejects_registry_settings():
    reported = problems_of({**SOURCE, "value.converter": "json", f"{REGISTRY}.urll": "http://127.0.0.1:1"})
    assert set(reported) == {("file0 (a): value.converter", "schema.registry.urll")}
    reported = problems_of({**SOURCE, "value.converter": "json", f"{REGISTRY}.url": "http://127.0.0.1:1"})
    assert set(reported) == {("file0 (a): value.converter", "schema.registry.url")}


def test_the_password_in_a_wrong_registry_url_is_not_shown():
    reported = problems_of({**SOURCE, "value.converter": "avro", f"{REGISTRY}.url": "htp://u:p4ss@h"})
    assert reported == {("file0 (a)", f"{REGISTRY}.url"): "is not a URL: it begins with http:// or https://"}


def test_the_workers_own_registry_is_checked_and_its_problems_are_reported():
    worker = {**AVRO, "schema.registry.url": "ftp://127.0.0.1"}
    assert set(problems_of(SOURCE, {**SINK, "key.converter": "bytes"}, worker=worker)) == {
        ("worker", "schema.registry.url")
    }


def test_a_setting_goes_by_its_key_and_not_by_the_name_of_its_field():
    assert set(problems_of({**SOURCE, "batch_size": "7"})) == {("file0 (a)", "batch_size")}


def test_problems_of_transforms_and_common_settings_are_reported_together():
    reported = problems_of({**SOURCE, "tasks.max": "0", "transforms": "r", "transforms.r.type": "no_such"})
    assert set(reported) == {("file0 (a)", "tasks.max"), ("file0 (a)", "transforms.r.type")}


def test_a_broken_rule_between_settings_is_reported_beside_a_setting_of_the_wrong_type():
    reported = problems_of({"name": "s", "connector.class": "FileStreamSink", "file": "x", "tasks.max": "0"})
    assert set(reported) == {("file0 (s)", "tasks.max"), ("file0 (s)", "topics")}


class SpanConfig(Config):
    low: int = setting("span.low", 5, doc="From.")
    high: int = setting("span.high", 1, doc="To.")
    name: str = setting("name", doc="A name.")

    def problems(self):
        return [("span.low", "is above span.high")] if self.low > self.high else []


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({}, {"name", "span.low"}),
        ({"span.low": "1"}, {"name"}),
        ({"span.low": "x", "name": "n"}, {"span.low"}),
        ({"span.high": "x"}, {"span.high", "name"}),
    ],
)
def test_a_rule_about_a_setting_of_the_wrong_type_is_skipped(settings, keys):
    with pytest.raises(ConfigError) as caught:
        SpanConfig.parse(settings)
    assert {m.key for m in caught.value.problems} == keys
    assert len(caught.value.problems) == len(keys)


class PortsConfig(Config):
    ports: Annotated[tuple[int, ...], BeforeValidator(lambda text: text.split(","))] = setting(
        "ports", doc="Numbers with commas."
    )


def test_a_wrong_part_of_a_list_is_reported_with_its_place():
    with pytest.raises(ConfigError) as caught:
        PortsConfig.parse({"ports": "1,x,2,y"})
    assert [m.key for m in caught.value.problems] == ["ports.1", "ports.3"]


RAISING = """
from tieline.api import Config, Secret, SinkConnector, setting

class RaisingConfig(Config):
    password: Secret = setting("password", doc="A secret.")

class Raising(SinkConnector):
    config_type = RaisingConfig

    @classmethod
    def validate(cls, config):
        yield "password", "is too easy"
        raise KeyError(config.password.get_secret_value())

class Unmade(Raising):
    @classmethod
    def validate(cls, config):
        raise RuntimeError("no libfoo")
"""


def test_an_exception_of_a_connectors_check_is_one_problem_among_the_others(tmp_path):
    entry_points = {SINKS: {"raising": "fixture_raising:Raising", "unmade": "fixture_raising:Unmade"}}
    with distribution(tmp_path, "fixture_raising", entry_points, {"fixture_raising": RAISING}):
        sink = {"name": "r", "topics": "t", "password": "p4ss"}
        reported = problems_of(
            {**sink, "connector.class": "raising"},
            {**sink, "name": "u", "connector.class": "unmade"},
            {**SOURCE, "fil": "x"},
        )
    failed = "the connector failed while it was checked"
    assert reported.pop(("file2 (a)", "fil"))
    assert reported == {
        ("file0 (r)", "connector.class"): f"{failed}: KeyError: '***'",
        ("file1 (u)", "connector.class"): f"{failed}: RuntimeError: no libfoo",
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sasl.password": "s"}, {"s"}),
        ({"ssl.key.password": "s", "ssl.key.pem": "k", "ssl.key.location": "/k"}, {"s", "k"}),
        ({"sasl.oauthbearer.client.secret": "s", "sasl.oauthbearer.token.endpoint.url": "http://h"}, {"s"}),
        ({"sasl.oauthbearer.assertion.private.key.passphrase": "s"}, {"s"}),
        ({"basic.auth.user.info": "u:s", "basic.auth.credentials.source": "USER_INFO"}, {"u:s", "s"}),
        ({"bearer.auth.token": "s", "sasl.jaas.config": "j"}, {"s", "j"}),
        ({"url": "http://u:p%40ss@h,http://v:q@h"}, {"p%40ss", "p@ss", "q"}),
        ({"url": "http://h", "other": "a@b", "sasl.password": "", "x": "http://[u:p@h"}, set()),
    ],
)
def test_the_secrets_among_the_settings_of_a_client_are_known(settings, expected):
    assert set(secrets(settings)) == expected
    assert not any(s in without_secrets(" ".join(expected), settings) for s in expected)


def test_a_password_in_the_url_of_a_registry_is_masked_in_the_log():
    worker = {**AVRO, "schema.registry.url": "http://u:p4ss@127.0.0.1:1"}
    assert set(check_plan("worker", worker, [("x", SOURCE)]).secrets) == {"p4ss"}


def test_a_third_party_converter_with_a_registry_gets_its_settings(tmp_path):
    module = """
from tieline.api import Config, Converter, setting

class MineConfig(Config):
    url: str = setting("schema.registry.url", "", doc="A registry.")

class Mine(Converter):
    config_type = MineConfig
"""
    with distribution(
        tmp_path, "fixture_mine", {CONVERTERS: {"mine": "fixture_mine:Mine"}}, {"fixture_mine": module}
    ):
        source = {**SOURCE, "value.converter": "mine", f"{REGISTRY}.url": "http://127.0.0.1:1"}
        planned = check_plan("worker", LOCAL, [("x", source)])
    assert planned.connectors[0].value.registry == {"url": "http://127.0.0.1:1"}
    assert planned.connectors[0].key.registry == {}
