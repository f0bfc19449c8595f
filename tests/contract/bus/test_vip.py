"""What a client of the VIP router may rely on; each test on the stand-in and on a real platform."""

from __future__ import annotations

import itertools
import math
import socket
from contextlib import suppress
from dataclasses import replace

import pytest
import zmq

from tieline.testing.proxy import TcpProxy
from tieline_connectors.volttron_bus.vip import frames
from tieline_connectors.volttron_bus.vip.client import (
    PeerUnreachableError,
    RpcError,
    VipClient,
    VipError,
    VipTimeoutError,
)
from tieline_connectors.volttron_bus.vip.connection import Connection, Endpoint, State
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys

_numbers = itertools.count()


def _topic() -> str:
    """A topic that no other test publishes on."""
    return f"analysis/contract{next(_numbers)}"


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


def _received(connection: Connection, count: int, seconds: float = 5.0) -> list[list[bytes]]:
    messages: list[list[bytes]] = []
    for _ in range(int(seconds / 0.1)):
        connection.wait(0.1)
        messages += [m for m in connection.receive(100) if m[4] != b"peerlist"]
        if len(messages) >= count:
            break
    return messages


def test_a_hello_is_welcomed_by_a_router_that_keeps_its_name(bus):
    with bus.client("hello") as client:
        assert client.hello() == client.hello() != ""


def test_a_ping_is_answered(bus):
    with bus.client("ping") as client:
        client.ping()


def test_what_is_published_comes_back_with_its_publisher_and_its_types(bus):
    topic = _topic()
    body = [1, 1.0, True, None, -0.0, 2**70, "text", {"": [], "b": 1, "a.$": 2}]
    headers = {"TimeStamp": "2026-01-01T00:00:00+00:00", "number": 7}
    with bus.client("types", topic) as client:
        assert client.publish(topic, headers, body) == 1
        (message,) = client.messages(5, 1)
    assert message[:3] == (topic, "types", headers)
    assert repr(message.body) == repr(body)


def test_nan_and_infinities_travel(bus):
    topic = _topic()
    with bus.client("nan", topic) as client:
        client.publish(topic, {}, [math.nan, math.inf, -math.inf])
        (message,) = client.messages(5, 1)
    assert repr(message.body) == "[nan, inf, -inf]"


def test_text_of_every_alphabet_travels_in_a_body_and_latin_text_in_a_topic(bus):
    topic = _topic() + "/Gebäude"
    with bus.client("text", topic[:15]) as client:
        client.publish(topic, {"é": "日本"}, ["\ud800", "😀", "ÿ"])
        (message,) = client.messages(5, 1)
    assert message.topic == topic
    assert message.headers == {"é": "日本"}
    assert message.body == ["\ud800", "😀", "ÿ"]


def test_the_frames_of_a_publication_are_what_the_source_reads(bus, context):
    topic = _topic()
    with Connection(context, bus.endpoint("frames")) as connection, bus.client("publisher") as publisher:
        connection.send(frames.hello_request(b"h"))
        connection.send(frames.subscribe_request(b"s", [topic]))
        hello, subscribed = _received(connection, 2)
        assert hello[:6] == [b"", b"VIP1", b"frames", b"h", b"hello", b"welcome"]
        assert subscribed == [b"", b"VIP1", b"frames", b"s", b"pubsub", b"request_response", b"\x01"]
        publisher.publish(topic, {"a": 1}, "é")
        (message,) = _received(connection, 1)
    data = b'{"sender": "publisher", "bus": "", "headers": {"a": 1}, "message": "\\u00e9"}'
    assert [message[1], *message[4:]] == [b"VIP1", b"pubsub", b"publish", topic.encode(), data]
    assert frames.is_publication(message)


def test_prefixes_match_as_text_and_overlapping_ones_give_one_message(bus):
    topic = _topic()
    with bus.client("overlap", topic, topic[:-1], f"{topic}/x") as client:
        assert client.publish(f"{topic}/x/y", {}, 1) == 1
        assert client.publish(f"{topic}other", {}, 2) == 1
        client.publish(topic, {}, 3)
        bodies = [message.body for message in client.messages(5, 3)]
        assert bodies == [1, 2, 3]
        assert client.messages(0.2) == []


def test_a_subscriber_receives_only_its_own_prefixes(bus):
    topic = _topic()
    with bus.client("elsewhere", _topic()) as client:
        assert client.publish(topic, {}, 1) == 0
        assert client.messages(0.2) == []


def test_the_order_of_one_publisher_is_kept(bus):
    topic = _topic()
    with bus.client("order", topic) as client:
        for number in range(200):
            client.publish_unconfirmed(topic, {}, number)
        assert [message.body for message in client.messages(10, 200)] == list(range(200))


def test_a_subscriber_that_left_is_forgotten(bus):
    topic = _topic()
    with bus.client("stays") as client:
        with bus.client("leaves", topic):
            assert client.publish(topic, {}, 1) == 1
        _until_no_subscriber_gets(client, topic)


def _until_no_subscriber_gets(client: VipClient, topic: str) -> None:
    for _ in range(100):
        if client.publish(topic, {}, 2) == 0:
            return
    pytest.fail("the router still counts a subscriber that has left")


def test_an_identity_may_reconnect_once_its_connection_is_closed(bus):
    topic = _topic()
    with bus.client("again", topic):
        pass
    for _ in range(50):  # until the router has seen the end of the first connection
        with VipClient(bus.endpoint("again")) as client, suppress(VipTimeoutError):
            client.hello(timeout=0.1)
            client.subscribe(topic)
            client.publish(topic, {}, 1)
            assert [message.body for message in client.messages(5, 1)] == [1]
            return
    pytest.fail("the identity stays taken")


def test_a_second_connection_under_an_identity_gets_no_answer(bus, context):
    with bus.client("double") as first, Connection(context, bus.endpoint("double")) as second:
        second.send(frames.hello_request(b"h"))
        assert _received(second, 1, 0.5) == []
        assert second.state is State.OPEN
        first.ping()


def test_a_half_open_connection_blocks_its_identity_and_no_other(bus):
    port = int(bus.address.rpartition(":")[2])
    with TcpProxy("127.0.0.1", port) as proxy:
        address = f"tcp://127.0.0.1:{proxy.port}"
        with VipClient(bus.endpoint("halfopen", address)) as client:
            client.hello()
            proxy.freeze()
            with pytest.raises(VipTimeoutError):
                client.ping(timeout=0.3)
        with VipClient(bus.endpoint("halfopen", address)) as client, pytest.raises(VipTimeoutError):
            client.hello(timeout=0.5)
        with VipClient(bus.endpoint("halfopen.2", address)) as client:
            client.hello()


def test_a_peer_pings_us_through_the_router(bus, context):
    with Connection(context, bus.endpoint("pinged")) as pinged, bus.client("pinger") as pinger:
        pinged.send(frames.hello_request(b"h"))
        _received(pinged, 1)
        with pytest.raises(VipTimeoutError):
            pinger.ping("pinged", timeout=0.2)
        (ping,) = _received(pinged, 1)
    assert [ping[0], ping[1], *ping[4:]] == [b"pinger", b"VIP1", b"ping", b"ping"]


def test_a_method_of_a_peer_is_called_and_its_result_comes_back(bus):
    with bus.client("caller1") as client:
        value = client.call("platform.driver", "get_point", bus.device, "Reading")
    assert isinstance(value, int | float)


def test_a_method_that_raises_or_is_missing_is_an_error_of_the_peer(bus):
    with bus.client("caller2") as client:
        with pytest.raises(RpcError) as raised:
            client.call("platform.driver", "get_point", bus.device, "no such point")
        with pytest.raises(RpcError) as missing:
            client.call("platform.driver", "no_such_method")
    assert (raised.value.code, missing.value.code) == (-32000, -32601)


def test_a_call_to_an_unknown_agent_fails_at_once(bus):
    with bus.client("caller3") as client, pytest.raises(VipError, match="No route to host"):
        client.call("nobody.here", "anything", timeout=5)


def test_an_agent_answers_a_ping_and_an_unknown_agent_is_reported(bus):
    with bus.client("caller5") as client:
        client.ping("platform.driver")
        with pytest.raises(PeerUnreachableError, match="No route to host"):
            client.ping("nobody.here")


def test_keyword_arguments_reach_the_method(bus):
    with bus.client("caller4") as client, pytest.raises(RpcError) as raised:
        client.call("platform.driver", "get_point", bus.device, no_such_keyword=1)
    assert raised.value.code == -32000


def test_an_unknown_subsystem_is_refused(bus, context):
    with Connection(context, bus.endpoint("unknown")) as connection:
        connection.send(frames.request("", b"u", b"nosuch", b"x"))
        (message,) = _received(connection, 1)
    answer = frames.parse_answer(message)
    assert answer is not None
    assert answer.is_error
    assert answer.args[0] == b"93"


def test_a_wrong_server_key_fails_the_handshake_at_once(bus, context):
    keys = replace(bus.keys, serverkey=zmq.curve_keypair()[0])
    with Connection(context, Endpoint(bus.address, "wrong", keys)) as connection:
        connection.send(frames.hello_request(b"h"))
        assert _received(connection, 1, 0.5) == []
        assert connection.state is State.FAILED


def test_any_pair_of_keys_with_the_server_key_is_accepted(bus):
    public, secret = zmq.curve_keypair()
    with VipClient(Endpoint(bus.address, "anybody", CurveKeys(public, secret, bus.keys.serverkey))) as client:
        client.hello()


def test_a_connection_to_an_unused_port_is_refused(context):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Connection(context, Endpoint(f"tcp://127.0.0.1:{port}", "nobody")) as connection:
        assert _received(connection, 1, 0.5) == []
        assert connection.state is State.REFUSED


ODD_TOPICS = [
    "[",
    "{",
    "4 2",
    "tru",
    "-",
    "/",
    " ",
    "\x00",
    "\x85",
    "é",
    "'x'",
    "a" * 10_000,
    "nullnull",
    "\\u0041",
]


def test_every_accepted_message_arrives_and_the_router_survives(bus):
    nested: object = None
    for _ in range(frames.MAX_DEPTH):
        nested = [nested]
    bodies = [None, "", {}, [], False, 0, nested, 10**4000, "x" * 100_000, {"bus": None, "sender": 1}]
    with bus.client("odd", "") as client:
        for number in range(max(len(ODD_TOPICS), len(bodies))):
            topic, body = ODD_TOPICS[number % len(ODD_TOPICS)], bodies[number % len(bodies)]
            assert client.publish(topic, {"": None}, body) >= 1
            message = next(m for m in client.messages(5, 1) if m.sender == "odd")
            assert message == (topic, "odd", {"": None}, body)
        client.ping()


def test_a_topic_that_would_bring_a_platform_down_is_never_sent(bus):
    with bus.client("never") as client:
        for topic in ("", "42", "true", "null", '"x"', "[]", "{}", " 1 ", "NaN", "-1e5", "日本", "9" * 5000):
            with pytest.raises(ValueError, match="the topic"):
                client.publish(topic, {}, 1)


def test_a_body_that_would_bring_a_platform_down_is_never_sent(bus):
    nested: object = None
    for _ in range(frames.MAX_DEPTH + 1):
        nested = [nested]
    endless: list[object] = []
    endless.append(endless)
    with bus.client("never2") as client:
        for body in (nested, endless, {1, 2}, b"bytes", {(1, 2): 3}):
            with pytest.raises(ValueError, match="analysis/x"):
                client.publish("analysis/x", {}, body)
        with pytest.raises(ValueError, match="headers"):
            client.publish("analysis/x", {1: "x"}, None)
