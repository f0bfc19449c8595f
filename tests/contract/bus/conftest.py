"""One suite of what a client of the VIP router may rely on, on the stand-in and on a real platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from zmq import curve_keypair

from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys

POINTS = {"Reading": 21.5}


class Bus:
    """A router, and how to connect to it."""

    def __init__(self, address: str, keys: CurveKeys, device: str) -> None:
        self.address = address
        self.keys = keys
        self.device = device

    def endpoint(self, identity: str, address: str = "") -> Endpoint:
        return Endpoint(address or self.address, identity, self.keys)

    @contextmanager
    def client(self, identity: str, *prefixes: str) -> Iterator[VipClient]:
        with VipClient(self.endpoint(identity)) as client:
            client.hello()
            if prefixes:
                client.subscribe(*prefixes)
            yield client


def _get_point(device: str, point: str) -> float:
    return POINTS[point]


@pytest.fixture(params=["fake", pytest.param("2.x", marks=pytest.mark.volttron)])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """10.x is not among them: it dies when a client leaves within the seconds after its start."""
    if request.param == "2.x":
        platform = request.getfixturevalue("volttron_platform")
        keys = {key: value.encode() for key, value in platform.keys("tieline").items()}
        yield Bus(platform.address, CurveKeys(**keys), platform.settings.topics()[0])
        return
    with FakeRouter(rpc={"platform.driver": {"get_point": _get_point}}, curve=True) as fake:
        public, secret = curve_keypair()
        yield Bus(fake.address, CurveKeys(public, secret, fake.serverkey.encode()), "campus/a")
        assert fake.dropped == 0
