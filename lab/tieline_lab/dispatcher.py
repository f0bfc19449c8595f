"""Who sends commands in a run that nobody looks at: good ones, and one of each kind that must not be done."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from tieline.api import Schema, SourceRecord
from tieline.api.commands import TopicClient
from tieline_lab.comparison import Message

COMMANDS, RESULTS, WAY_BACK = "commands", "command-results", "to-bus"
"""The topics, as the connectors' files say them."""

ISSUER = "lab"
"""Who sends these, as lab-policy.yaml knows it."""

_SECOND = 1_000_000


class Order(NamedTuple):
    """A command, and the state in which it has to end."""

    command: Mapping[str, Any]
    state: str


class Orders:
    """What is sent, second by second, to these devices; pure but for the ids.

    Each second a good one, which no other is equal to, and one of the other kinds, each in its turn: the
    same again, an expired one, one beyond what the policy allows, one of an unknown issuer, a dry run, one
    with a hold. The point of a hold is nobody else's, so that each hold ends by giving it back.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = devices
        self._n = 0

    def next(self, now: int) -> list[Order]:
        """The orders of the next second. ``now``: microseconds since 1970."""
        n, self._n = self._n, self._n + 1
        device = self._devices[n % len(self._devices)]
        round_ = n // len(self._devices)
        set_point = f"{device}/ZoneTemperatureSetPoint"
        if round_ % 2:
            good = self._order(now, f"{device}/DamperPosition", 5 * (round_ % 21))
        else:
            good = self._order(now, set_point, 70.0 + n % 400 / 100)
        others = (
            good,
            self._order(now - 10 * _SECOND, set_point, 74.5, "EXPIRED", expires_at=now - 5 * _SECOND),
            self._order(now, set_point, 120.0, "REJECTED"),
            self._order(now, set_point, 74.5, "REJECTED", issuer="a stranger"),
            self._order(now, set_point, 74.5, dry_run=True),
            self._order(now, f"{device}/Mode", ("heat", "cool")[round_ % 2], hold_ms=500),
        )
        return [good, others[n % len(others)]]

    def _order(self, now: int, point: str, value: Any, state: str = "SUCCEEDED", **more: Any) -> Order:
        command = {
            "command_id": str(uuid.uuid4()),
            "issuer": ISSUER,
            "issued_at": now,
            "action": "SET",
            "writes": [{"point": point, "value": value}],
            "dry_run": False,
            "reason": "the lab at work",
            **dict.fromkeys(("correlation_id", "expires_at", "not_before", "priority")),
            **dict.fromkeys(("hold_ms", "tolerance", "signature")),
            **more,
        }
        return Order(command, state)


class Dispatcher:
    """Sends the orders of each second, and a record for the way back, while it is asked to go on."""

    def __init__(self, topics: TopicClient, devices: Sequence[str]) -> None:
        self.wanted: dict[str, str] = {}
        """By command, the state in which it has to end."""
        self.published: Counter[Message] = Counter()
        """What has to be heard on the bus."""
        self._topics = topics
        self._orders = Orders(devices)
        self._due = 0.0

    def go_on(self) -> None:
        """Send what is due: once a second."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + 1.0
        now_us = time.time_ns() // 1000
        orders = self._orders.next(now_us)
        self.wanted.update((order.command["command_id"], order.state) for order in orders)
        self._topics.send([*map(_record, orders), *self._back(now_us)])

    def _back(self, now: int) -> Iterator[SourceRecord]:
        """A record in the old KafkaAgent's form; ``TimeStamp`` and number make it equal to no other."""
        headers = {"TimeStamp": datetime.fromtimestamp(now / 1e6, timezone.utc).isoformat()}
        topic, body = "analysis/lab/demand", {"kW": 40 + len(self.published) % 10, "n": len(self.published)}
        self.published[Message.of(topic, headers, body)] += 1
        yield SourceRecord(WAY_BACK, {"topic": topic, "headers": headers, "message": body}, topic)


def _record(order: Order) -> SourceRecord:
    """Its key is the device: the order of a device's commands is kept."""
    device = order.command["writes"][0]["point"].rpartition("/")[0]
    return SourceRecord(COMMANDS, order.command, device, value_schema=Schema.named("command.Command"))
