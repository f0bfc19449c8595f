"""The bus sink keeps the contract, on the stand-in router that tests/contract/bus verifies."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tieline.testing.contract import SinkContract
from tieline.testing.proxy import TcpProxy
from tieline_connectors.volttron_bus.sink import VolttronBusSink
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint

pytestmark = pytest.mark.slow


class TestVolttronBusSink(SinkContract):
    connector = VolttronBusSink
    idempotent = False
    not_idempotent_because = "a bus has no keys: a message that comes again is published again"

    @pytest.fixture
    def bus(self):
        with FakeRouter() as bus:
            yield bus
            assert bus.dropped == 0

    @pytest.fixture
    def proxy(self, bus):
        address = urlsplit(bus.address)
        with TcpProxy(address.hostname, address.port) as proxy:
            yield proxy

    @pytest.fixture
    def settings(self, proxy):
        return {
            "volttron.address": f"tcp://127.0.0.1:{proxy.port}",
            "reconnect.backoff.ms": "20",
            "reconnect.backoff.max.ms": "100",
            "platform.name": "lab",
            "bus.allowed.prefixes": "analysis",
            "value.shape": "kafkaagent",
            "on.refused": "stop",
            "max.age.ms": "-1",  # the kit's records are of 2023
        }

    @pytest.fixture
    def break_it(self, proxy):
        return proxy.refuse

    @pytest.fixture
    def heal_it(self, proxy):
        return proxy.accept

    @pytest.fixture
    def worker_settings(self):
        return {}

    @pytest.fixture
    def written(self, bus):
        with VipClient(Endpoint(bus.address, "observer")) as observer:
            observer.hello()
            observer.subscribe("")
            received: list[dict[str, object]] = []

            def written():
                observer.ping()  # whatever was handed on before the answer is here with it
                while message := observer.messages(0.001, 1):
                    received.extend({"topic": m.topic, "message": m.body} for m in message)
                return list(received)

            yield written

    @pytest.fixture
    def bad_value(self):
        return {"topic": "42", "message": "would bring a platform down"}

    @pytest.fixture
    def outage(self):
        return {
            "volttron.address": "tcp://127.0.0.1:1",
            "platform.name": "lab",
            "bus.allowed.prefixes": "analysis",
        }

    def value(self, number):
        return {"topic": f"analysis/{number}", "message": number}
