"""The verdict on readings that are stored value by value, with a history file. Pure functions.

The observer's messages are taken apart here, without any code of the connectors.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from tieline_lab.comparison import ExpectedReadings, Message, Verdict, find_implausible

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NOT_DEVICES = ("devices/actuators/",)
"""What the driver publishes below ``devices`` about writes."""


class StoredValue(NamedTuple):
    """The value of a point at a time. Values of different types differ: 1, 1.0 and true."""

    device: str
    point: str
    time: int
    """Microseconds since 1970."""
    value: str
    """Canonical JSON."""

    @classmethod
    def of(cls, device: str, point: str, time: int, value: Any) -> StoredValue:
        """Return a value that was read from a store, or published in a message."""
        return cls(device, point, time, json.dumps(value, sort_keys=True, default=str))


@dataclass(frozen=True)
class ValueFindings:
    """The messages and values of a run at its end."""

    seen: Counter[Message]
    """The messages that the observer saw."""
    stored: Counter[StoredValue]
    """The values in the store."""
    received: int
    """What the bus source has spooled since its start, which was before the observer's."""
    dropped: int
    """The number of messages that any connector dropped or quarantined."""
    expected: ExpectedReadings


def values_of(message: Message) -> Iterator[StoredValue]:
    """Yield the values that a message reports; a message that is not about a device's points has none."""
    prefix, _, rest = message.topic.partition("/")
    device, _, name = rest.rpartition("/")
    body = json.loads(message.body)
    if prefix != "devices" or message.topic.startswith(_NOT_DEVICES) or not message.time:
        return
    if not isinstance(body, list) or not body:
        return
    time = (datetime.fromisoformat(message.time) - _EPOCH) // timedelta(microseconds=1)
    if name in ("all", "multi"):
        for point, value in body[0].items():
            yield StoredValue.of(device, point, time, value)
    else:
        yield StoredValue.of(device, name, time, body[0])


def judge(findings: ValueFindings) -> Verdict:
    """Compare the values of the messages with those that are stored.

    ``missing`` counts values that were seen and are not stored. ``duplicates`` counts values that are stored
    more than once. Of a point that was published twice with one time, the store keeps one value; both count
    as stored then, if it is one of them.
    """
    values = {value for message in findings.seen for value in values_of(message)}
    places = Counter((value.device, value.point, value.time) for value in findings.stored.elements())
    superseded = _find_superseded(values, findings.stored)
    missing = sorted(values - findings.stored.keys() - superseded)
    numbers = {
        "seen": findings.seen.total(),
        "in": findings.received,
        "values_seen": len(values),
        "values": findings.stored.total(),
        "duplicates": sum(number - 1 for number in places.values()),
        "missing": len(missing),
        "dropped": findings.dropped,
    }
    faults = [
        *_find_faults(numbers),
        *find_implausible(findings.seen, findings.expected),
        *(f"missing: {_summarize(value)}" for value in missing[:3]),
    ]
    return Verdict(numbers, faults)


def to_datetime(time: int) -> datetime:
    """Return a time in microseconds as a datetime."""
    return _EPOCH + timedelta(microseconds=time)


def _find_superseded(values: set[StoredValue], stored: Counter[StoredValue]) -> set[StoredValue]:
    """Return the values in whose place the store has another one that was seen, too."""
    kept = {value[:3] for value in values & stored.keys()}
    return {value for value in values - stored.keys() if value[:3] in kept}


def _find_faults(numbers: dict[str, int]) -> Sequence[str]:
    faults = []
    if not numbers["seen"]:
        faults.append("no message was seen on the bus")
    if numbers["missing"]:
        faults.append(
            f"{numbers['missing']} of {numbers['values_seen']} values seen on the bus are not stored"
        )
    if numbers["duplicates"]:
        faults.append(f"{numbers['duplicates']} values are stored more than once")
    if numbers["dropped"]:
        faults.append(f"{numbers['dropped']} messages were dropped or quarantined")
    return faults


def _summarize(value: StoredValue) -> str:
    return f"{value.device}/{value.point} = {value.value[:80]} of {to_datetime(value.time).isoformat()}"
