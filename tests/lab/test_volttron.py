"""The real platforms, and what the lab's driver publishes on their bus."""

import json
import signal
import time
from typing import Any

import pytest

from tieline_lab import volttron
from tieline_lab.driver import POINTS, DriverSettings
from tieline_lab.vip import BusMessage, VipError
from tieline_lab.volttron import VolttronPlatform

DEVICE = "campus/building/device1"
NAMES = {point.name for point in POINTS}
needs_volttron = pytest.mark.skipif(volttron.why_not() is not None, reason=str(volttron.why_not()))


def next_message(bus, topic, seconds=10.0):
    """Return the next message of exactly this topic."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = bus.receive(0.5)
        if message and message.topic == topic:
            return message
    raise AssertionError(f"no message of {topic} arrived")


def is_reading(message):
    values, metadata = message.message
    return (
        message.sender == "platform.driver"
        and message.headers["Date"] == message.headers["TimeStamp"]
        and set(values) == set(metadata) == NAMES
        and metadata["Reading"] == {"units": "count", "type": "integer", "tz": "UTC"}
        and metadata["SupplyFanEnable"]["type"] == "boolean"
        and [type(values[point.name]) for point in POINTS] == [type(point.first) for point in POINTS]
    )


def test_every_device_publishes_all_its_points_and_they_move(volttron_platform):
    with volttron_platform.connect() as bus:
        bus.subscribe("devices/")
        for topic in volttron_platform.settings.topics():
            first, second = (next_message(bus, f"devices/{topic}/all") for _ in range(2))
            assert is_reading(first)
            values, later = first.message[0], second.message[0]
            assert later["Reading"] == values["Reading"] + 1
            assert later["EnergyMeter"] == values["EnergyMeter"] + 0.25
            assert later["OutsideAirTemperature"] != values["OutsideAirTemperature"]


def test_a_write_reaches_the_device_once_and_is_published_and_recorded(volttron_platform):
    with volttron_platform.connect() as bus:
        before = len(volttron_platform.writes())
        bus.subscribe("devices/")
        assert bus.call("platform.driver", "set_point", DEVICE, "ZoneTemperatureSetPoint", 75) == 75.0
        assert bus.call("platform.driver", "set_point", DEVICE, "DamperPosition", 44, priority=8) == 44
        next_message(bus, f"devices/{DEVICE}/all")  # may be a reading from before the write
        values = next_message(bus, f"devices/{DEVICE}/all").message[0]
        assert values["ZoneTemperatureSetPoint"] == 75.0
        assert values["DamperPosition"] == 44
        bus.call("platform.driver", "revert_point", DEVICE, "ZoneTemperatureSetPoint")
        assert bus.call("platform.driver", "get_point", DEVICE, "ZoneTemperatureSetPoint") == 72.0
        writes: list[dict[str, Any]] = volttron_platform.writes()[before:]
    assert all(write.pop("time").endswith("+00:00") for write in writes)
    assert writes == [
        {"device": DEVICE, "point": "ZoneTemperatureSetPoint", "value": 75.0, "kind": "set"},
        {"device": DEVICE, "point": "DamperPosition", "value": 44, "kind": "set", "priority": 8},
        {"device": DEVICE, "point": "ZoneTemperatureSetPoint", "value": 72.0, "kind": "revert"},
    ]


def test_several_points_that_are_written_at_once_reach_only_their_device(volttron_platform):
    with volttron_platform.connect() as bus:
        before = len(volttron_platform.writes())
        points = [["DamperPosition", 45], ["SupplyFanEnable", False]]
        bus.call("platform.driver", "set_multiple_points", DEVICE, points)
        writes = volttron_platform.writes()[before:]
    assert [(write["device"], write["value"]) for write in writes] == [(DEVICE, 45), (DEVICE, False)]


@pytest.mark.parametrize(
    ("point", "value", "reason"),
    [
        ("Reading", 1, "read-only"),
        ("SupplyFanEnable", "no", "takes a bool"),
        ("DamperPosition", True, "takes a int"),
    ],
)
def test_a_write_that_is_refused_reaches_no_device(volttron_platform, point, value, reason):
    before = volttron_platform.writes()
    with volttron_platform.connect() as bus, pytest.raises(VipError, match=reason):
        bus.call("platform.driver", "set_point", DEVICE, point, value)
    assert volttron_platform.writes() == before


@pytest.mark.volttron
@needs_volttron
@pytest.mark.parametrize(
    ("shapes", "topics"),
    [
        (
            ("all", "multi", "point", "breadth_multi", "breadth_point"),
            {f"devices/{DEVICE}/{kind}" for kind in ("all", "multi", *NAMES)}
            | {"points/device1/building/campus/multi"}
            | {f"points/{name}/device1/building/campus" for name in NAMES},
        ),
        (("breadth_all",), {"points/device1/building/campus/all"}),
    ],
    ids=["all-but-breadth-all", "breadth-all"],
)
def test_the_driver_publishes_every_shape(tmp_path, shapes, topics):
    settings = DriverSettings(devices=1, shapes=shapes)
    seen: dict[str, BusMessage] = {}
    with VolttronPlatform(tmp_path, settings=settings) as platform, platform.connect() as bus:
        bus.subscribe("devices")
        bus.subscribe("points")
        end = time.monotonic() + 10
        while set(seen) < topics and time.monotonic() < end:
            if message := bus.receive(0.5):
                seen[message.topic] = message
    assert set(seen) == topics
    for topic, message in seen.items():
        if topic.endswith(("/all", "/multi")):
            assert is_reading(message)
        else:
            value, metadata = message.message
            assert set(metadata) == {"units", "type", "tz"}
            assert isinstance(value, bool | int | float | str)


@pytest.mark.volttron
@needs_volttron
def test_a_platform_that_was_killed_restarts_with_its_driver(tmp_path):
    with VolttronPlatform(tmp_path, settings=DriverSettings(devices=1, shapes=("multi",))) as platform:
        platform.kill()
        assert platform.platform.status == 128 + signal.SIGKILL
        platform.restart()
        with platform.connect("tieline") as bus:
            bus.subscribe("devices")
            assert is_reading(next_message(bus, f"devices/{DEVICE}/multi"))
        platform.stop_driver()
        assert platform.driver.status is not None
        assert platform.platform.status is None


def test_volttron_10_publishes_and_can_be_written(volttron10_platform):
    with volttron10_platform.connect("tieline") as bus:
        bus.subscribe("devices")
        message = next_message(bus, f"devices/{DEVICE}/all")
        assert is_reading(message)
        assert "SynchronizedTimeStamp" in message.headers
        before = len(volttron10_platform.writes())
        assert bus.call("platform.driver", "set_point", DEVICE, "ZoneTemperatureSetPoint", 70.5) == 70.5
        assert [write["value"] for write in volttron10_platform.writes()[before:]] == [70.5]


def test_only_the_owner_may_read_the_files_with_the_keys(volttron_platform):
    files = volttron_platform.write_key_files("tieline")
    assert {name: file.read_text() for name, file in files.items()} == volttron_platform.keys("tieline")
    assert {len(key) for key in volttron_platform.keys("tieline").values()} == {40}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files.values())
    credentials = json.loads((volttron_platform.home / "credentials_store" / "tieline.json").read_text())
    assert credentials["identity"] == "tieline"
