"""How all connectors find their platform, and find it again: addresses, patience, names, keys, farewell."""

import base64
import json
import socket
import threading
import time

import pytest
import zmq
from zmq.utils import z85

from tieline.testing.proxy import TcpProxy
from tieline_connectors.command.execution.errors import UnavailableError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.volttron_bus.buffer import ReceiveBuffer
from tieline_connectors.volttron_bus.publisher import Publisher
from tieline_connectors.volttron_bus.receiver import Receiver, Subscription
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip import reconnect as module
from tieline_connectors.volttron_bus.vip.addresses import resolve_address
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import ConnectionEndedError, Endpoint
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys, read_stored_key
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

LOST = ConnectionEndedError("lost")
SLOW = ConnectionEndedError("no answer", too_slow=True, about_keys=True)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_pauses_are_short_at_first_and_at_most_a_twentieth_of_the_outage(clock):
    """A platform restarts in some seconds: what is published in its first second must not be missed."""
    reconnect = ReconnectState(Endpoint("tcp://127.0.0.1:1", "me"))
    attempts = 0
    while clock.now < 1000.0 + 600:
        away = clock.now - 1000.0
        pause = reconnect.failed(LOST)
        assert 0.075 <= pause <= max(0.1, min(away / 20, 10.0))
        assert pause >= 0.75 * max(0.1, min(away / 20, 10.0))
        clock.now += pause
        attempts += 1
    assert attempts < 200
    reconnect.succeeded()
    assert reconnect.failed(LOST) <= 0.1


def test_the_handshake_timeout_doubles_on_a_slow_link_and_is_kept():
    reconnect = ReconnectState(Endpoint("tcp://127.0.0.1:1", "me"))
    assert reconnect.hello_timeout == 1.0
    reconnect.failed(LOST)
    reconnect.failed(ConnectionEndedError("taken", identity_taken=True))
    assert reconnect.hello_timeout == 1.0
    assert reconnect.endpoint.identity == "me.2"
    for seconds in (2.0, 4.0, 8.0, 10.0, 10.0):
        reconnect.failed(SLOW)
        assert reconnect.hello_timeout == seconds
    reconnect.succeeded()
    assert reconnect.hello_timeout == 10.0
    assert reconnect.endpoint.identity == "me.2"


def receiver_of(endpoint):
    return Receiver(
        ReconnectState(endpoint), Subscription(("devices",)), ReceiveBuffer(10, 10**6), lambda *_: None
    )


@pytest.fixture
def slow():
    """A router behind a round trip of 300 ms: its handshake takes more than a second."""
    with FakeRouter(curve=True, rpc={"platform.driver": {"get_point": lambda *_: 21.5}}) as bus:
        port = int(bus.address.rpartition(":")[2])
        with TcpProxy("127.0.0.1", port, delay=0.15) as proxy:
            public, secret = zmq.curve_keypair()
            keys = CurveKeys(public, secret, bus.serverkey.encode())
            bus.endpoint = Endpoint(f"tcp://127.0.0.1:{proxy.port}", "me", keys)  # type: ignore[attr-defined]
            yield bus


@pytest.mark.slow
def test_the_source_connects_through_a_slow_handshake(slow):
    receiver = Receiver(
        ReconnectState(slow.endpoint), Subscription(("devices",)), ReceiveBuffer(10, 10**6), lambda *_: None
    )
    receiver.start()
    slow.wait_for_subscriber("me", 20.0)
    receiver.stop()
    receiver.join()


@pytest.mark.slow
def test_the_bus_sink_connects_through_a_slow_handshake(slow):
    reconnect, context, publisher = ReconnectState(slow.endpoint), zmq.Context(), None
    deadline = time.monotonic() + 20
    while publisher is None:
        try:
            publisher = Publisher(
                context, reconnect.endpoint, 5.0, reconnect.hello_timeout, threading.Event()
            )
        except ConnectionEndedError as ended:
            reconnect.failed(ended)
            assert time.monotonic() < deadline
    publisher.close()
    context.term()
    assert reconnect.endpoint.identity == "me"  # a slow router is not one that has our name taken


@pytest.mark.slow
def test_the_command_sink_connects_through_a_slow_handshake(slow):
    platform = Platform(slow.endpoint, 5.0)
    deadline = time.monotonic() + 20
    while True:
        try:
            assert platform.get("a/b") == 21.5
            break
        except UnavailableError:
            assert time.monotonic() < deadline
    platform.close()


def test_a_closing_client_announces_it_as_volttrons_own_agents_do():
    with FakeRouter(rpc={"platform.driver": {"get_point": lambda *_: 21.5}}) as bus:
        with VipClient(Endpoint(bus.address, "a tool")) as client:
            client.hello()
        platform = Platform(Endpoint(bus.address, "commands"), 5.0)
        assert platform.get("a/b") == 21.5
        platform.close()
        receiver = receiver_of(Endpoint(bus.address, "source"))
        receiver.start()
        bus.wait_for_subscriber("source")
        receiver.stop()
        receiver.join()
        deadline = time.monotonic() + 5
        while len(bus.left) < 3:
            assert time.monotonic() < deadline
        assert bus.left == ["a tool", "commands", "source"]
        assert bus.subscriptions() == {}
        assert bus.dropped == 0


def resolving(monkeypatch, *places):
    """The name ``platform`` stands for these addresses, in this order."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, **options):
        if host != "platform":
            return real(host, port, **options)
        return [address for place in places for address in real(place, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("order", [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.1",)])
@pytest.mark.parametrize("listening", ["127.0.0.1", "[::1]"])
def test_a_name_connects_to_whichever_of_its_addresses_answers(monkeypatch, order, listening):
    if listening == "[::1]" and not _has_ipv6():
        pytest.skip("this computer has no ::1")
    if listening.strip("[]") not in order:
        pytest.skip("the name does not resolve to the listening address")
    resolving(monkeypatch, *order)
    with FakeRouter(f"tcp://{listening}:*") as bus:
        port = bus.address.rpartition(":")[2]
        with VipClient(Endpoint(f"tcp://platform:{port}", "me")) as client:
            client.hello(5.0)


def _has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:22916",
        "tcp://[::1]:22916",
        "ipc:///run/vip.socket",
        "ipc://@/home/volttron/.volttron/run/vip.socket",
        "tcp://no.such.host.invalid:22916",
        "tcp://127.0.0.1:99999",
    ],
)
def test_every_other_address_stays_as_it_is(address):
    assert resolve_address(address) == address


def test_an_address_that_swallows_everything_does_not_hide_one_that_answers(monkeypatch):
    resolving(monkeypatch, "192.0.2.1", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert resolve_address(f"tcp://platform:{port}") == f"tcp://127.0.0.1:{port}"


def urlsafe(key):
    return base64.urlsafe_b64encode(z85.decode(key)).decode().rstrip("=")


FORMS = {
    "credentials_store of 2.x and 10": '{{"identity": "platform", "publickey": "{p}", "secretkey": "{s}"}}',
    "keystore of 8 and 9": '{{"public": "{p}", "secret": "{s}"}}',
    "vctl auth keypair": '{{\n  "public": "{p}",\n  "secret": "{s}"\n}}\n',
    "vctl auth keypair with a warning": 'WARNING: x\n{{"public": "{p}", "secret": "{s}"}}\n',
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_keys_are_read_from_every_file_that_volttron_writes(tmp_path, form):
    public, secret = zmq.curve_keypair()
    file = tmp_path / "keys"
    file.write_text(form.format(p=urlsafe(public), s=urlsafe(secret)))
    assert read_stored_key(file, "publickey") == public
    assert read_stored_key(file, "secretkey") == secret


def test_the_platforms_key_is_read_from_known_hosts_and_from_the_output_of_serverkey(tmp_path):
    public, _ = zmq.curve_keypair()
    other, _ = zmq.curve_keypair()
    file = tmp_path / "keys"
    file.write_text(json.dumps({"@": urlsafe(other), "10.0.0.5:22916": urlsafe(public)}))
    assert read_stored_key(file, "publickey", "tcp://10.0.0.5:22916") == public
    file.write_text(urlsafe(public) + "\n")
    assert read_stored_key(file, "publickey") == public
    with pytest.raises(ValueError, match="JSON"):
        read_stored_key(file, "secretkey")


def test_keys_that_change_are_read_again_after_a_refusal_and_the_message_says_what_was_tried(tmp_path):
    """The platform was reinstalled: its key has changed, and is in the configured file."""
    with FakeRouter(curve=True) as bus:
        file = tmp_path / "keystore"
        old, secret = zmq.curve_keypair()
        file.write_text(json.dumps({"public": urlsafe(old), "secret": urlsafe(secret)}))
        settings = {
            "volttron.address": bus.address,
            "platform.name": "lab",
            "topic": "t",
            "volttron.server.credentials.file": str(file),
        }
        reports: list[str | None] = []
        receiver = Receiver(
            VolttronBusConfig.parse(settings).reconnect_state("bus"),
            Subscription(("devices",)),
            ReceiveBuffer(10, 10**6),
            lambda *_: None,
            report=reports.append,
        )
        receiver.start()
        deadline = time.monotonic() + 10
        while not reports:
            assert time.monotonic() < deadline
        assert str(file) in str(reports[0])
        assert "read at 20" in str(reports[0])
        file.write_text(json.dumps({"public": bus.serverkey, "secret": urlsafe(secret)}))
        bus.wait_for_subscriber("tieline.bus", 20.0)
        receiver.stop()
        receiver.join()


def test_while_a_file_of_keys_is_being_written_the_last_keys_are_used(tmp_path, caplog):
    keys = [CurveKeys(b"a" * 40, b"b" * 40, b"c" * 40), None]

    def read():
        key = keys.pop(0)
        if key is None:
            raise ValueError("/x is not JSON")
        return Endpoint("tcp://127.0.0.1:1", "me", key, "the platform's key of /x")

    reconnect = ReconnectState(read)
    reconnect.load()
    reconnect.failed(SLOW)
    assert reconnect.endpoint.keys == CurveKeys(b"a" * 40, b"b" * 40, b"c" * 40)
    assert "/x is not JSON" in caplog.text


@pytest.mark.slow
def test_a_platform_that_restarts_is_read_again_within_moments():
    """Three seconds of absence: the next attempt comes at most a twentieth of that later."""
    with FakeRouter() as bus:
        receiver = receiver_of(Endpoint(bus.address, "me"))
        receiver.start()
        bus.wait_for_subscriber("me")
        bus.stop()
        time.sleep(3.0)
        bus.start()
        began = time.monotonic()
        bus.wait_for_subscriber("me")
        assert time.monotonic() - began < 0.8
        receiver.stop()
        receiver.join()
