"""The calls that a driver or an actuator receives for a point, over a bus that records every call."""

from collections import defaultdict
from contextlib import contextmanager

import pytest

from tieline_connectors.command.execution.errors import DeviceRefusedError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.model.point import point_of
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.connection import Endpoint

DEVICE = "campus/b1/ahu1"
NAMES = {
    "Zone$20Temp": "Zone$20Temp",
    "SAT-SP [x]": "SAT-SP [x]",
    "A|B^C{1}?": "A|B^C{1}?",
    "Zone Air Temp SP": "Zone Air Temp SP",
    "Au\u00dfen \u00b0C": "Au\u00dfen \u00b0C",
    "Zone{/}Temp": "Zone/Temp",
    "Temp{*}": "Temp*",
}


class Registers:
    """A driver as 8 to 10 have it: a device, then a name, each exactly; and an actuator before it."""

    def __init__(self):
        self.values = defaultdict(lambda: 20.0)
        self.known = {(DEVICE, name) for name in NAMES.values()}

    def _at(self, path, name):
        if (path, name) not in self.known:
            raise KeyError(path)
        return path, name

    def get_point(self, path, name):
        return self.values[self._at(path, name)]

    def set_point(self, path, name, value):
        self.values[self._at(path, name)] = value
        return value

    def revert_point(self, path, name):
        del self.values[self._at(path, name)]

    @property
    def driver(self):
        return {name: getattr(self, name) for name in ("get_point", "set_point", "revert_point")}

    @property
    def actuator(self):
        def split(topic: str, point: str | None) -> tuple[str, str]:
            device, _, name = topic.strip("/").rpartition("/")
            return (device, name) if point is None else (topic.strip("/"), point)

        return {
            "get_point": lambda topic, point=None: self.get_point(*split(topic, point)),
            "set_point": lambda _, topic, value, point=None: self.set_point(*split(topic, point), value),
            "revert_point": lambda _, topic, point=None: self.revert_point(*split(topic, point)),
        }


@contextmanager
def opened(bus, agent="auto"):
    platform = Platform(Endpoint(bus.address, "tieline.test"), 2.0, agent=agent)
    try:
        platform.connect()
        yield platform
    finally:
        platform.close()


@pytest.mark.parametrize("agent", ["platform.driver", "platform.actuator"])
@pytest.mark.parametrize("written", NAMES)
def test_every_name_that_a_driver_publishes_is_read_written_and_reverted(agent, written):
    registers = Registers()
    point = point_of(f"{DEVICE}/{written}")
    rpc = {agent: registers.driver if agent == "platform.driver" else registers.actuator}
    with FakeRouter(rpc=rpc) as bus, opened(bus) as platform:
        platform.set(point, 21.5)
        assert platform.get(point) == 21.5
        assert dict(registers.values) == {(DEVICE, NAMES[written]): 21.5}
        platform.revert(point)
        assert not registers.values


def test_a_device_with_our_own_identity_as_its_path_is_refused():
    """The driver of 2.x takes such a call for one of an old actuator, and the name for a whole path."""
    registers = Registers()
    with FakeRouter(rpc={"platform.driver": registers.driver}) as bus, opened(bus) as platform:
        for call in (platform.get, platform.revert, lambda point: platform.set(point, 1)):
            with pytest.raises(DeviceRefusedError, match="our identity"):
                call("tieline.test/campus{/}b1{/}ahu1{/}Mode")
    assert not registers.values


@pytest.mark.parametrize("kind", ["2.x", "10.x", "10.x with its actuator", "who knows"])
def test_a_name_that_no_topic_can_contain_is_written_only_if_the_write_is_not_published(kind):
    registers = Registers()
    registers.known.add((DEVICE, "\u6e29\u5ea6"))
    methods = {"2.x": ["request_new_schedule", "set_point"], "10.x": ["set_point"], "who knows": 7}
    driver = registers.driver | {"inspect": lambda: {"methods": methods.get(kind)}}
    rpc = {"platform.driver": driver} | (
        {"platform.actuator": registers.actuator} if kind.endswith("actuator") else {}
    )
    agent = "actuator" if kind.endswith("actuator") else "driver"
    point = point_of(f"{DEVICE}/\u6e29\u5ea6")
    with FakeRouter(rpc=rpc) as bus, opened(bus, agent) as platform:
        assert platform.get(point) == 20.0
        if kind == "10.x":
            platform.set(point, 21.5)
            platform.revert(point)
        else:
            for call in (platform.revert, lambda point: platform.set(point, 21.5)):
                with pytest.raises(DeviceRefusedError, match="outside ISO-8859-1"):
                    call(point)
            assert registers.values == {(DEVICE, "\u6e29\u5ea6"): 20.0}
