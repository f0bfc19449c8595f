"""What back-fill may rely on of a historian; each test on the stand-in and on real ones."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tieline_connectors.volttron_bus.backfill.historian import (
    Historian,
    HistorianRefusedError,
    HistorianUnavailableError,
)
from tieline_connectors.volttron_bus.backfill.history import rebuild_message, to_historian_time
from tieline_connectors.volttron_bus.messages.message import ParseLimits, canonical, parse_message
from tieline_connectors.volttron_bus.testing.fake_historian import FakeHistorian
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.client import VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

START = 1_767_225_600_000_001
SECOND = 1_000_000
POINTS = {"float": 1.0, "int": 1, "bool": True, "text": "é€", "list": [1, 2.0, {"a": None}], "big": 2**70,
          "tiny": 5e-324, "negative": -0.0, "nothing": None}  # fmt: skip
METADATA = {name: {"units": name, "type": "integer", "tz": "UTC"} for name in POINTS}
_numbers = itertools.count()


class Bus:
    """A router with a historian, and a client that publishes."""

    def __init__(self, endpoint: Callable[[str], Endpoint], client: VipClient) -> None:
        self.endpoint = endpoint
        self.client = client
        self.device = f"campus/{uuid.uuid4().hex}"

    @contextmanager
    def historian(self, identity: str = "platform.historian") -> Iterator[Historian]:
        historian = Historian(ReconnectState(self.endpoint("tieline.backfill")), identity)
        try:
            yield historian
        finally:
            historian.close()

    def publish(self, time_of: int, body: object, device: str = "") -> None:
        topic = f"devices/{device or self.device}/all"
        self.client.publish(topic, {"TimeStamp": to_historian_time(time_of)}, body)

    def stored(self, historian: Historian, names: set[str], count: int) -> dict[str, str]:
        """The topics of the device as soon as the historian lists all, and has that many readings."""
        end = time.monotonic() + 20
        points: dict[str, str] = {}
        while time.monotonic() < end:
            points = historian.points([self.device]).get(self.device, {})
            if (
                set(points.values()) == names
                and len(historian.page(points, START, START + 3600 * SECOND, 1000).readings) == count
            ):
                return points
            time.sleep(0.05)
        raise TimeoutError(points)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("historian_platform", marks=pytest.mark.volttron, id="2.x"),
        pytest.param("historian10_platform", marks=pytest.mark.volttron, id="10.x"),
    ]
)
def bus(request):
    if request.param == "fake":
        historian = FakeHistorian()
        with FakeRouter(rpc={"platform.historian": historian.methods}) as router:
            router.listeners.append(historian.capture)
            with VipClient(Endpoint(router.address, "publisher")) as client:
                yield Bus(lambda identity: Endpoint(router.address, identity), client)
            assert router.dropped == 0
        return
    platform = request.getfixturevalue(request.param)

    def endpoint(identity):
        keys = {name: key.encode() for name, key in platform.keys(identity).items()}
        return Endpoint(platform.address, identity, CurveKeys(**keys))

    with VipClient(endpoint(f"spare{1 + next(_numbers) % 3}")) as client:
        client.hello()
        yield Bus(endpoint, client)


def test_a_rebuilt_message_has_the_body_and_the_time_of_the_published_one(bus):
    body = [POINTS, METADATA]
    bus.publish(START, body)
    with bus.historian() as historian:
        points = bus.stored(historian, set(POINTS), 1)
        page = historian.page(points, START, START + 1, 10)
        metadata = historian.metadata(points)
    topic = f"devices/{bus.device}/all"
    frames = rebuild_message(topic, "PAIR", START, page.readings[START], metadata, "platform.historian")
    message = parse_message(frames, 0, ParseLimits())
    assert canonical(message.body) == canonical(body)
    assert (message.topic, message.time, message.time_source) == (topic, START, "TIMESTAMP")


def test_pages_follow_each_other_without_a_gap_and_end_before_the_end(bus):
    for number in range(10):
        points = {"a": number, "b": -number} if number % 3 else {"a": number}
        bus.publish(START + number * SECOND, [points, {}])
    with bus.historian() as historian:
        topics = bus.stored(historian, {"a", "b"}, 10)
        position, pages = START, 0
        readings: dict[int, dict[str, object]] = {}
        end = START + 9 * SECOND  # not included
        while True:
            page = historian.page(topics, position, end, 2)
            assert not readings.keys() & page.readings.keys()
            readings |= page.readings
            pages += 1
            position = page.position + 1
            if page.is_last:
                break
    assert readings == {
        START + number * SECOND: {"a": number, "b": -number} if number % 3 else {"a": number}
        for number in range(9)
    }
    assert pages == 5


def test_a_device_of_one_point_is_answered_in_another_form_and_read_alike(bus):
    bus.publish(START, {"only": 1})
    with bus.historian() as historian:
        points = bus.stored(historian, {"only"}, 1)
        assert points == {f"{bus.device}/only": "only"}
        page = historian.page(points, START, START + 1, 5)
        assert (page.readings, page.is_last) == ({START: {"only": 1}}, True)
        assert historian.page(points, START + 1, START + 2, 5).readings == {}


def test_an_unknown_device_has_no_points(bus):
    with bus.historian() as historian:
        assert historian.points(["campus/unknown"]) == {}
        assert historian.page({"campus/unknown/x": "x"}, START, START + 1, 5).readings == {}
        assert historian.metadata({"campus/unknown/x": "x"}) == {}


def test_metadata_is_only_returned_where_there_is_some(bus):
    bus.publish(START, [{"a": 1, "b": 2}, {"a": {"units": "F"}}])
    with bus.historian() as historian:
        points = bus.stored(historian, {"a", "b"}, 1)
        assert historian.metadata(points) == {"a": {"units": "F"}}


def test_a_refused_query_is_reported(bus):
    with bus.historian() as historian, pytest.raises(HistorianRefusedError):
        historian.page({5: "x", 6: "y"}, START, START + 1, 5)


def test_a_missing_historian_is_reported(bus):
    reason = r"no agent is connected as platform\.nobody"
    with (
        bus.historian("platform.nobody") as historian,
        pytest.raises(HistorianUnavailableError, match=reason),
    ):
        historian.points([])
