"""Every name that a real driver publishes is read, written and given back, on each kind of platform."""

import time

import pytest

from tieline_connectors.command.platform import Platform
from tieline_connectors.command.point import point_of
from tieline_connectors.volttron_bus.connection import Endpoint
from tieline_connectors.volttron_bus.credentials import CurveKeys
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


@pytest.fixture(scope="module", params=["2", "10", "10 with its actuator"])
def platform(request, tmp_path_factory):
    generation, _, actuator = request.param.partition(" ")
    if reason := why_not():
        pytest.skip(reason)
    points = tuple(Point(name, "degF", "float", 20.0, writable=True) for name in NAMES.values())
    settings = DriverSettings(devices=1, more_points=points)
    with VolttronPlatform(tmp_path_factory.mktemp("names"), generation, settings) as platform:
        if actuator:
            platform.start_actuator()
        yield platform


@pytest.fixture(scope="module")
def points(platform):
    keys = platform.keys("tieline.command")
    curve = CurveKeys(**{name: key.encode() for name, key in keys.items()})
    points = Platform(Endpoint(platform.address, "tieline.command", curve), 5.0)
    points.connect()
    yield points
    points.close()


@pytest.mark.parametrize("written", NAMES)
def test_a_name_is_published_read_written_and_given_back(platform, points, written):
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
