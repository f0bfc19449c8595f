"""The input of the benchmarks: device readings of six points, as frames and as the bus source's records."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from tieline.api import SourceRecord
from tieline_connectors.volttron_bus.messages.message import ParseLimits, parse_message
from tieline_connectors.volttron_bus.messages.records import RecordMapper, Route
from tieline_connectors.volttron_bus.vip.frames import PROTOCOL

POINTS = ("ZoneTemperature", "CoolingSetpoint", "SupplyFanSpeed", "DamperPosition", "CO2", "Humidity")
UNITS = ("degreesCelsius", "degreesCelsius", "percent", "percent", "ppm", "percent")
_START = 1_767_225_600  # 2026-01-01, seconds


def frames(number: int) -> list[bytes]:
    """Return the frames of a publication as a platform's router sends them; 500 devices take turns."""
    generator = random.Random(number)
    second = _START + number // 500
    day, clock = divmod(second - _START, 86_400)
    minutes, seconds = divmod(clock, 60)
    hours, minutes = divmod(minutes, 60)
    stamp = f"2026-01-{1 + day:02}T{hours:02}:{minutes:02}:{seconds:02}.{number % 500:03}000+00:00"
    points = {name: round(generator.random() * 100, 6) for name in POINTS}
    metadata = {n: {"units": u, "type": "float", "tz": "UTC"} for n, u in zip(POINTS, UNITS, strict=True)}
    body = {
        "bus": "",
        "sender": "platform.driver",
        "headers": {"Date": stamp, "TimeStamp": stamp, "SynchronizedTimeStamp": stamp},
        "message": [points, metadata],
    }
    topic = f"devices/campus/building{number % 7}/unit{number % 500}/all"
    return [b"", PROTOCOL, b"", b"", b"pubsub", b"publish", topic.encode(), json.dumps(body).encode()]


def records(topic: str, count: int, first: int = 0) -> Iterator[SourceRecord]:
    """Yield the records that the bus source creates from ``count`` publications."""
    mapper = RecordMapper("lab", [Route("devices", topic)], "")
    for number in range(first, first + count):
        yield mapper.record(
            parse_message(frames(number), (_START + number // 500) * 1_000_000, ParseLimits())
        )
