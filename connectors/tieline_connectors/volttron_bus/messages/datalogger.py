"""Data that agents log under ``datalogger/``: ``{point: {Readings, Units, tz, data_type}}``; pure.

``Readings`` is a value with the message's time, or ``[time, value]``, or a list of such pairs. A time has one
of the ``time_formats``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tieline_connectors.volttron_bus.messages.message import Message
from tieline_connectors.volttron_bus.messages.message_time import Moment, reading_time

ROOT = "datalogger/"

_TEXTS = {"Units": "units", "data_type": "type", "tz": "tz"}


def parse_readings(message: Message) -> list[dict[str, Any]] | None:
    """Return a message's readings in their order, in the form of ``volttron.DataLog`` with JSON values.

    Return ``None`` if any of them has another form, since a partial result would hide the others.
    """
    body = message.body
    if not message.topic.startswith(ROOT) or type(body) is not dict or not body:
        return None
    readings = []
    for point, item in body.items():
        if type(item) is not dict or "Readings" not in item or "Units" not in item:
            return None
        texts = {field: item.get(key) for key, field in _TEXTS.items()}
        if any(type(text) not in (str, type(None)) for text in texts.values()):
            return None
        for pair in _pairs(item["Readings"]):
            if pair is None or (reading := _reading(pair, texts["tz"], message)) is None:
                return None
            (time, source, _), value = reading
            readings.append({"point": point, "time": time, "time_source": source, "value": value, **texts})
    return readings


def _pairs(content: Any) -> Iterator[tuple[Any, ...] | None]:
    """Yield ``(value,)`` or ``(time, value)`` for each reading, ``None`` for any other form."""
    if type(content) is not list:
        yield (content,)
    elif content and all(type(pair) is list for pair in content):
        yield from (tuple(pair) if len(pair) == 2 else None for pair in content)
    else:
        yield tuple(content) if len(content) == 2 else None


def _reading(pair: tuple[Any, ...], zone: str | None, message: Message) -> tuple[Moment, Any] | None:
    if len(pair) == 1:
        return Moment(message.time, message.time_source), pair[0]
    when, value = pair
    moment = reading_time(when, zone, message.naive)
    return None if moment is None else (moment, value)
