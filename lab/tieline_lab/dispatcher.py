"""Sends commands in a run that stops by itself: valid ones, and each kind that must not be executed."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from tieline.api import Schema, SourceRecord
from tieline.api.commands import TopicClient
from tieline_lab.comparison import Message

COMMANDS, RESULTS, WAY_BACK = "commands", "command-results", "to-bus"
"""The topics of the connectors' files."""

ISSUER = "lab"
"""The issuer of these commands, as in lab-policy.yaml."""

_SECOND = 1_000_000


class Order(NamedTuple):
    """A command, and the state in which it has to end."""

    command: Mapping[str, Any]
    expected_state: str


class Orders:
    """Creates the commands of each second for these devices; they depend on nothing but the second and ids.

    Each second has a valid command, which differs from all others, and one of the other kinds in turn: the
    same command again, an expired one, one that exceeds the policy's limit, one of an unknown issuer, a dry
    run, and one with a hold. No other command writes the point of a hold, so that each hold ends with a
    revert.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = devices
        self._second = 0

    def create_next(self, now: int) -> list[Order]:
        """Return the orders of the next second. ``now`` is in microseconds since 1970."""
        second = self._second
        self._second += 1
        device = self._devices[second % len(self._devices)]
        turn = second // len(self._devices)
        set_point = f"{device}/ZoneTemperatureSetPoint"
        if turn % 2:
            valid = _create_order(now, f"{device}/DamperPosition", 5 * (turn % 21))
        else:
            valid = _create_order(now, set_point, 70.0 + second % 400 / 100)
        others = (
            valid,
            _create_order(now - 10 * _SECOND, set_point, 74.5, "EXPIRED", expires_at=now - 5 * _SECOND),
            _create_order(now, set_point, 120.0, "REJECTED"),
            _create_order(now, set_point, 74.5, "REJECTED", issuer="a stranger"),
            _create_order(now, set_point, 74.5, dry_run=True),
            _create_order(now, f"{device}/Mode", ("heat", "cool")[turn % 2], hold_ms=500),
        )
        return [valid, others[second % len(others)]]


class Dispatcher:
    """Sends each second the next orders, and a record for the bus sink."""

    def __init__(self, topics: TopicClient, devices: Sequence[str]) -> None:
        self.expected_states: dict[str, str] = {}
        """The state in which each command has to end, by the command's id."""
        self.published: Counter[Message] = Counter()
        """The messages that must be seen on the bus."""
        self._topics = topics
        self._orders = Orders(devices)
        self._due = 0.0

    def send_due(self) -> None:
        """Send the orders of the next second if a second has passed since the last ones."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + 1.0
        now_us = time.time_ns() // 1000
        orders = self._orders.create_next(now_us)
        self.expected_states.update((order.command["command_id"], order.expected_state) for order in orders)
        self._topics.send([*map(_to_record, orders), self._create_bus_record(now_us)])

    def _create_bus_record(self, now: int) -> SourceRecord:
        """Return a record in the old KafkaAgent's form; its time and number make it unique."""
        headers = {"TimeStamp": datetime.fromtimestamp(now / 1e6, timezone.utc).isoformat()}
        topic, body = "analysis/lab/demand", {"kW": 40 + len(self.published) % 10, "n": len(self.published)}
        self.published[Message.of(topic, headers, body)] += 1
        return SourceRecord(WAY_BACK, {"topic": topic, "headers": headers, "message": body}, topic)


def _create_order(now: int, point: str, value: Any, state: str = "SUCCEEDED", **fields: Any) -> Order:
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
        **fields,
    }
    return Order(command, state)


def _to_record(order: Order) -> SourceRecord:
    """Return a record whose key is the device, so that the order of a device's commands is kept."""
    device = order.command["writes"][0]["point"].rpartition("/")[0]
    return SourceRecord(COMMANDS, order.command, device, value_schema=Schema.named("command.Command"))
