"""The settings of the bus source: problems are reported together, keys have two spellings and stay secret."""

from __future__ import annotations

import base64
import json

import pytest
import zmq
from zmq.utils import z85

from tieline.api import ConfigError
from tieline_connectors.volttron_bus.source import VolttronBusSource
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.vip.credentials import parse_curve_key

MINIMAL = {"volttron.address": "tcp://127.0.0.1:22916", "platform.name": "lab"}


def config(**settings):
    return VolttronBusConfig.parse(
        MINIMAL | {key.replace("__", "."): value for key, value in settings.items()}
    )


def problems(**settings):
    with pytest.raises(ConfigError) as error:
        config(**settings)
    return {problem.key: problem.message for problem in error.value.problems}


def urlsafe(key):
    return base64.urlsafe_b64encode(z85.decode(key)).decode().rstrip("=")


@pytest.fixture
def keys():
    public, secret = zmq.curve_keypair()
    server, _ = zmq.curve_keypair()
    return public, secret, server


def test_two_settings_are_enough():
    endpoint = config().endpoint("bus")
    assert (endpoint.address, endpoint.identity, endpoint.keys) == (
        "tcp://127.0.0.1:22916",
        "tieline.bus",
        None,
    )
    assert config().read_prefixes() == ("actuators", "analysis", "datalogger", "devices")


def test_all_problems_of_the_source_are_reported_together():
    wrong = problems(
        volttron__address="127.0.0.1:22916",
        volttron__identity="42",
        volttron__serverkey="short",
        bus__prefixes="/",
        topic="a b",
        buffer__max__bytes="5",
    )
    assert set(wrong) == {
        "volttron.address",
        "volttron.identity",
        "volttron.serverkey",
        "bus.prefixes",
        "topic",
        "buffer.max.bytes",
    }


@pytest.mark.parametrize("identity", ["42", "true", "null", '"x"', "1e5", "NaN", " 7 ", "[]", "日本"])
def test_an_identity_that_would_harm_the_platform_is_rejected(identity):
    assert "volttron.identity" in problems(volttron__identity=identity)


def test_an_order_of_topics_is_named_by_its_base():
    assert {base.name: base.order for base in config().topic_bases()} == {
        "devices": "depth",
        "points": "breadth",
    }
    orders = {
        base.name: base.order for base in config(topic__order="devices=both, x/y = breadth").topic_bases()
    }
    assert orders == {"devices": "both", "points": "breadth", "x/y": "breadth"}
    assert "write base=depth" in problems(topic__order="devices")["topic.order"]


def test_all_stands_for_four_prefixes_and_record_is_named():
    assert config(bus__prefixes="all, record").read_prefixes() == (
        "actuators",
        "analysis",
        "datalogger",
        "devices",
        "record",
    )


def test_a_prefix_within_another_is_read_once():
    assert config(bus__prefixes="devices/a, devices, devices/a/b, devicesx").read_prefixes() == (
        "devices",
        "devicesx",
    )


def test_routes_name_a_topic_for_a_prefix():
    routes = config(topic="rest", topic__routes="devices=bus.devices, analysis/x = bus.x").all_routes()
    assert {route.prefix: route.topic for route in routes} == {
        "actuators": "rest",
        "analysis": "rest",
        "datalogger": "rest",
        "devices": "bus.devices",
        "analysis/x": "bus.x",
    }


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("devices", "write prefix=topic"),
        ("record=t", "not within bus.prefixes"),
        ("devices=a b", "cannot be the name of a topic"),
    ],
)
def test_a_wrong_route_is_reported(route, message):
    assert message in problems(topic__routes=route)["topic.routes"]


def test_keys_are_accepted_in_both_spellings(keys):
    public, secret, server = keys
    for spell in (bytes.decode, urlsafe, lambda key: urlsafe(key) + "="):
        key_pair = (
            config(
                volttron__publickey=spell(public),
                volttron__secretkey=spell(secret),
                volttron__serverkey=spell(server),
            )
            .endpoint("bus")
            .keys
        )
        assert (key_pair.publickey, key_pair.secretkey, key_pair.serverkey) == (public, secret, server)


def test_the_public_key_follows_from_the_secret_one(keys):
    public, secret, server = keys
    key_pair = (
        config(volttron__secretkey=secret.decode(), volttron__serverkey=server.decode()).endpoint("bus").keys
    )
    assert key_pair.publickey == public


def test_a_server_key_alone_comes_with_a_new_pair(keys):
    _, _, server = keys
    one, other = (config(volttron__serverkey=server.decode()).endpoint("bus").keys for _ in range(2))
    assert one.publickey == zmq.curve_public(one.secretkey) != other.publickey


def test_keys_are_read_from_the_files_of_a_home(keys, tmp_path):
    public, secret, server = keys
    own_file, platform = tmp_path / "tieline.json", tmp_path / "platform.json"
    own_file.write_text(json.dumps({"publickey": urlsafe(public), "secretkey": urlsafe(secret)}))
    platform.write_text(json.dumps({"publickey": urlsafe(server), "secretkey": "x"}))
    settings = {
        "volttron__credentials__file": str(own_file),
        "volttron__server__credentials__file": str(platform),
    }
    key_pair = config(**settings).endpoint("bus").keys
    assert (key_pair.publickey, key_pair.secretkey, key_pair.serverkey) == (public, secret, server)
    assert VolttronBusSource.validate(config(**settings)) == []


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"publickey": 5}', '{"publickey": "SECRET"}', b"\xff"]
)
def test_a_file_without_keys_is_named_and_never_quoted(content, tmp_path):
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    ((key, message),) = VolttronBusSource.validate(config(volttron__server__credentials__file=str(file)))
    assert key == "volttron.server.credentials.file"
    assert message.startswith(str(file))
    assert "SECRET" not in message


def test_unusable_keys_are_reported(keys):
    public, secret, _ = keys
    assert "without volttron.serverkey" in problems(volttron__secretkey=secret.decode())["volttron.secretkey"]
    assert "without volttron.secretkey" in problems(volttron__publickey=public.decode())["volttron.publickey"]
    assert (
        "one of the two"
        in problems(volttron__serverkey=public.decode(), volttron__server__credentials__file="f")[
            "volttron.server.credentials.file"
        ]
    )


def test_a_secret_is_never_shown(keys):
    _, secret, server = keys
    shown = config(volttron__secretkey=secret.decode(), volttron__serverkey=server.decode())
    assert secret.decode() not in f"{shown!r} {shown.endpoint('bus')!r} {shown.definition()}"
    with pytest.raises(ConfigError) as error:
        config(volttron__secretkey=secret.decode() + "x")
    assert secret.decode() not in str(error.value)


@pytest.mark.parametrize("text", ["", "x" * 40 + "ü", "~" * 40, "a" * 42, "a" * 44, "a" * 43 + "!"])
def test_an_invalid_key_is_rejected(text):
    with pytest.raises(ValueError, match="is not a CURVE key"):
        parse_curve_key(text)


PATTERNS = {
    "devices/*": "Write devices;",
    "devices/**": "Write devices;",
    "devices/#": "Write devices;",
    "devices/campus/*/all": "Write devices/campus;",
    "devices/campus/+/all": "Write devices/campus;",
    "devices*": "Write whole segments such as devices/campus;",
    "*": "Write all, or the first segments of the topics, such as devices;",
    "**": "Write all,",
    "#": "Write all,",
    "*/all": "Write all,",
    "$": "Write all,",
    "devices/$": "Write devices;",
    "devices/.*": "Write devices;",
    "^devices": "Write whole segments",
    "devices$": "Write whole segments",
    "devices/(a|b)": "Write whole segments",
    r"devices\/a": "Write whole segments",
    "devices/ahu[0-9]": "Write whole segments",
    "devices/.+": "Write whole segments",
    "/devices": "Write devices",
    "/devices/*": "Write devices;",
    "devices//campus": "Write devices/campus",
    "/": "name at least one prefix",
    "ALL": "write all, in lower case",
    "All": "write all, in lower case",
}


@pytest.mark.parametrize(("prefix", "fix"), PATTERNS.items())
def test_a_prefix_that_is_a_pattern_is_an_error_with_the_fix(prefix, fix):
    assert fix in problems(bus__prefixes=f"analysis, {prefix}")["bus.prefixes"]


@pytest.mark.parametrize("prefix", [p for p in PATTERNS if p.lower() != "all" and p != "/"])
def test_a_pattern_in_a_route_or_an_order_of_topics_is_an_error_with_the_fix(prefix):
    assert problems(topic__routes=f"{prefix}=t")["topic.routes"]
    if prefix != "/devices":  # slashes at its ends have always been left out there
        assert problems(topic__order=f"{prefix}=depth")["topic.order"]


@pytest.mark.parametrize(
    "prefix",
    ["devices", "devices/", "devices/campus/ahu#1", "devices/a/SAT-SP [x]", "devices/A|B^C{1}?",
     "devices/Zone$20Temp", "devices/Zone Air Temp", "devices/50%", "devices/a+b", "devices/x (old)"],
)  # fmt: skip
def test_a_name_that_a_driver_writes_is_a_prefix(prefix):
    assert config(bus__prefixes=prefix).read_prefixes() == (prefix.rstrip("/"),)
