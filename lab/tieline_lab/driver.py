"""The lab's devices: their points, and how often and in which shapes they are published on the bus."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Shape = Literal["all", "multi", "point", "breadth_all", "breadth_multi", "breadth_point"]


class Point(NamedTuple):
    """A point of every device. ``move`` gives its next value at each reading (files/volttron_device.py)."""

    name: str
    units: str
    type: Literal["bool", "int", "float", "string"]
    first: bool | int | float | str
    move: Literal["none", "count", "ramp", "sine", "toggle", "follow"] = "none"
    writable: bool = False


POINTS = (
    Point("Reading", "count", "int", 0, "count"),
    Point("OutsideAirTemperature", "degF", "float", 60.0, "sine"),
    Point("EnergyMeter", "kWh", "float", 1000.0, "ramp"),
    Point("SupplyFanStatus", "On/Off", "bool", True, "toggle"),
    Point("ZoneTemperature", "degF", "float", 70.0, "follow"),
    Point("ZoneTemperatureSetPoint", "degF", "float", 72.0, writable=True),
    Point("SupplyFanEnable", "On/Off", "bool", True, writable=True),
    Point("DamperPosition", "%", "int", 20, writable=True),
    Point("Mode", "Enum", "string", "auto", writable=True),
)


@dataclass(frozen=True)
class DriverSettings:
    """Settings of the platform driver: each device is read every ``interval`` s and published in ``shapes``.

    The shapes on the bus of a 2.x platform, most of them tested by tests/lab/test_volttron.py:

    - ``all``: ``devices/campus/building/device1/all`` → ``[{point: value, …}, {point: META, …}]``; the last
      known values, so up to an interval old, under the time of publishing, on whole intervals.
    - ``multi``: ``devices/campus/building/device1/multi`` → the same body, under the time of the reading;
      2.x's own default.
    - ``point``: ``devices/campus/building/device1/Reading`` → ``[value, META]``; a message per point, all
      points of a reading under one time.
    - ``breadth_all``: ``points/device1/building/campus/all``, unless ``all`` is among the shapes: the
      driver publishes one or the other. ``breadth_multi``: ``points/device1/building/campus/multi``.
      ``breadth_point``: ``points/Reading/device1/building/campus``. Bodies as above. The base is ``points``,
      so that a subscriber of ``devices`` does not receive them.

    META is ``{"units": …, "type": "integer" | "float" | "boolean" | "string", "tz": "UTC"}``; points come in
    any order. Headers: ``Date`` and ``TimeStamp``, equal (``2026-01-31T12:00:00.001234+00:00``),
    ``min_compatible_version`` ``"3.0"``, ``max_compatible_version`` ``""``. The sender is
    ``platform.driver``, in the body beside ``headers`` and ``message``. Devices are read 20 ms apart.

    The driver also publishes a write by RPC, under the prefix ``devices`` but not as a reading:
    ``devices/actuators/write/devices/campus/building/device1/Mode`` → the requested value, then
    ``devices/actuators/value/devices/…`` → the written value. A revert is
    ``devices/actuators/reverted/point/devices/…`` → null. Headers: ``time``, ``requesterID``, the versions.
    ``set_multiple_points`` publishes nothing and offers each write to *every* device. It answers with the
    error of a device that does not have the point, even if the right device was written.

    On 10.x: a further header ``SynchronizedTimeStamp`` (the whole interval); ``all`` has the time of the
    reading; no ``multi`` shapes; breadth first under ``devices`` with the kind or point in front,
    ``devices/all/device1/building/campus``, ``devices/Reading/device1/building/campus``; the driver does not
    publish writes; ``heartbeat/platform.driver`` → ``"GOOD"``.
    """

    devices: int = 3
    interval: int = 1
    shapes: tuple[Shape, ...] = ("all",)
    added_points: tuple[Point, ...] = ()
    """Points that every device has in addition to ``POINTS``."""

    def topics(self) -> list[str]:
        """Return the devices' names in RPC calls, which lack the prefix ``devices/``."""
        return [f"campus/building/device{number}" for number in range(1, self.devices + 1)]

    def store(self, write_log: Path) -> dict[str, Any]:
        """Return the content of ``configuration_store/platform.driver.store``, for both generations."""
        shapes = set(self.shapes)
        registry = [
            {
                "Point Name": point.name,
                "Volttron Point Name": point.name,
                "Units": point.units,
                "Writable": point.writable,
                "Starting Value": point.first,
                "Type": point.type,
                "Move": point.move,
            }
            for point in (*POINTS, *self.added_points)
        ]
        config = {
            "driver_scrape_interval": 0.02,
            "group_offset_interval": 0.0,
            "publish_depth_first_all": "all" in shapes,
            "publish_breadth_first_all": "breadth_all" in shapes,
            # 2.x
            "publish_depth_first_multi": "multi" in shapes,
            "publish_breadth_first_multi": "breadth_multi" in shapes,
            "publish_depth_first_single": "point" in shapes,
            "publish_breadth_first_single": "breadth_point" in shapes,
            # 10.x
            "publish_depth_first": "point" in shapes,
            "publish_breadth_first": "breadth_point" in shapes,
        }
        store = {"config": _create_entry(config), "points": _create_entry(registry)}
        for topic in self.topics():
            device = {
                "driver_type": "lab",
                "driver_config": {"device": topic, "write_log": str(write_log)},
                "registry_config": "config://points",
                "interval": self.interval,
                "all_publish_interval": self.interval,
                "timezone": "UTC",
            }
            store[f"devices/{topic}"] = _create_entry(device)
        return store


def _create_entry(data: object) -> dict[str, str]:
    return {"type": "json", "modified": "2026-01-01T00:00:00+00:00", "data": json.dumps(data)}


def half_configured(log: bytes) -> bool:
    """Return whether a driver of 2.x has read only a part of its configuration, as its log shows.

    In one start of many it reads its configuration twice at the same time. It then answers for its devices,
    but publishes them once a minute instead of at their interval.
    """
    return b"socket_lock already configured!" in log
