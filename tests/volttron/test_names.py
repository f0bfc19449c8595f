"""Every name that a real driver publishes is read, written and given back, on each kind of platform."""

import time

import pytest

from tieline_connectors.command.execution.errors import DeviceRefusedError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.model.point import point_of
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys
from tieline_lab.driver import DriverSettings, Point
from tieline_lab.volttron import VolttronPlatform, why_not

pytestmark = pytest.mark.volttron

DEVICE = "campus/building/device1"
NAMES = {
    "Zone$20Temp": "Zone$20Temp",
    "SAT-SP [x]": "SAT-SP [x]",
    "A|B^C{1}?": "A|B^C{1}?",
    "Zone Air Temp SP": "Zone Air Temp SP",
    "C:\\Temp": "C:\\Temp",
    "50% (max)": "50% (max)",
    "Au\u00dfen \u00b0C": "Au\u00dfen \u00b0C",
    "Zone{/}Temp": "Zone/Temp",
    "Temp{*}": "Temp*",
}
WIDE = "\u6e29\u5ea6"


@pytest.fixture(scope="module", params=["2", "10", "10 with its actuator"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def platform(kind, tmp_path_factory):
    generation, _, actuator = kind.partition(" ")
    if reason := why_not():
        pytest.skip(reason)
    names = (*NAMES.values(), WIDE)
    points = tuple(Point(name, "degF", "float", 20.0, writable=True) for name in names)
    settings = DriverSettings(devices=1, added_points=points)
    with VolttronPlatform(tmp_path_factory.mktemp("names"), generation, settings) as platform:
        if actuator:
            platform.start_actuator()
        yield platform


@pytest.fixture(scope="module")
def points(kind, platform):
    keys = platform.keys("tieline.command")
    curve = CurveKeys(**{name: key.encode() for name, key in keys.items()})
    endpoint = Endpoint(platform.address, "tieline.command", curve)
    points = Platform(endpoint, 5.0, agent="driver" if kind == "10" else "auto")
    points.connect()
    yield points
    points.close()


@pytest.mark.parametrize("written", NAMES)
def test_a_name_is_published_read_written_and_reverted(platform, points, written):
    name, point = NAMES[written], point_of(f"{DEVICE}/{written}")
    with platform.connect("spare1") as observer:
        observer.subscribe(f"devices/{DEVICE}/all")
        deadline = time.monotonic() + 20
        while True:
            message = observer.receive(10)
            assert message is not None
            if name.rpartition("/")[2] in message.message[0] or name in message.message[0]:
                break
            assert time.monotonic() < deadline
    before = len(platform.writes())
    assert points.get(point) == 20.0
    reservation = points.reserve([DEVICE], "LOW", 2)
    points.set(point, 21.5)
    assert points.get(point) == 21.5
    points.revert(point)
    assert points.get(point) == 20.0
    reservation.release()
    done = [(write["device"], write["point"], write["value"]) for write in platform.writes()[before:]]
    assert done == [(DEVICE, name, 21.5), (DEVICE, name, 20.0)]


def test_a_name_that_no_topic_can_carry_breaks_no_agent(kind, platform, points):
    publishes_writes = kind != "10"  # an agent of it publishes each write under the name of the point
    wide, plain = point_of(f"{DEVICE}/{WIDE}"), point_of(f"{DEVICE}/Zone$20Temp")
    before = len(platform.writes())
    assert points.get(wide) == 20.0
    reservation = points.reserve([DEVICE], "LOW", 4)
    if publishes_writes:
        with pytest.raises(DeviceRefusedError, match="outside ISO-8859-1"):
            points.set(wide, 21.5)
    else:
        points.set(wide, 21.5)
        points.revert(wide)
    points.set(plain, 22.5)
    points.revert(plain)
    reservation.release()
    done = [(write["point"], write["value"]) for write in platform.writes()[before:]]
    assert done == [(WIDE, 21.5), (WIDE, 20.0)] * (not publishes_writes) + [
        ("Zone$20Temp", 22.5),
        ("Zone$20Temp", 20.0),
    ]
