"""Converts messages of the bus to records: filter, Kafka topic and shape of the value; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tieline.api import Headers, SourceRecord
from tieline_connectors.volttron_bus.messages.device_paths import BASES, TopicBase
from tieline_connectors.volttron_bus.messages.message import (
    ORIGIN_HEADER,
    MalformedMessageError,
    Message,
    identity_headers,
)
from tieline_connectors.volttron_bus.messages.readings import bus_message_schema, to_value


class Route(NamedTuple):
    """The Kafka topic of messages whose bus topic begins with the segments of ``prefix``."""

    prefix: str
    topic: str

    def takes(self, bus_topic: str) -> bool:
        """Return whether the prefix matches: ``devices/a`` takes ``devices/a/x``, not ``devices/ab/x``."""
        return bus_topic == self.prefix or bus_topic.startswith(f"{self.prefix}/")


class FilteredError(Exception):
    """The message or record is filtered. ``reason`` names the counter ``filtered.<reason>``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RecordMapper:
    """Maps messages to records. ``routes`` has one for each prefix that is read; ``bases`` longest first."""

    def __init__(
        self, platform: str, routes: Sequence[Route], shape: str, bases: Sequence[TopicBase] = BASES
    ) -> None:
        self._platform = platform
        self._bases = bases
        self._routes = sorted(routes, key=lambda route: -len(route.prefix))
        self._shape = _SHAPES.get(shape)
        self._origin = (ORIGIN_HEADER, platform.encode())

    def record(self, message: Message) -> SourceRecord:
        """Return the record of a message.

        Raises ``FilteredError`` with the reason ``echo`` (it came from Kafka) or ``prefix`` (no route matches
        whole segments), and ``MalformedMessageError`` if it does not fit the shape.
        """
        if message.headers.get(ORIGIN_HEADER) == self._platform:
            raise FilteredError("echo")
        for route in self._routes:
            if route.takes(message.topic):
                topic = route.topic
                break
        else:
            raise FilteredError("prefix")
        headers: Headers = (*identity_headers(self._platform, message), self._origin)
        if self._shape is not None:
            return SourceRecord(
                topic,
                self._shape(message),
                message.topic,
                headers=(*headers, *_origin_headers(message)),
                timestamp=message.time // 1000,
            )
        schema, value = to_value(self._platform, message, self._bases)
        return SourceRecord(
            topic,
            value,
            value.get("device") or message.topic,
            headers=headers,
            timestamp=message.time // 1000,
            value_schema=schema,
        )

    def lacks_points(self, message: Message, record: SourceRecord) -> bool:
        """Return whether the topic is one of a device, but the record is not a reading."""
        return record.value_schema == bus_message_schema() and any(
            b.device_path(message.topic) for b in self._bases
        )


def _origin_headers(message: Message) -> Headers:
    """Return what the old shapes leave out."""
    return (
        ("volttron.topic", message.topic.encode()),
        ("volttron.sender", message.sender.encode()),
    )


def _kafka_agent(message: Message) -> dict[str, Any]:
    """Return the value that KafkaAgent produced."""
    return {
        "message_sender": message.sender,
        "kafka_message_sender": "KafkaAgent",
        "description": "message from VOLTTRON to KafkaBroker",
        "message": message.body,
    }


def _cloud_agent(message: Message) -> dict[str, Any]:
    """Return the value that CloudAgent produced: the first element of a list. It lost the others."""
    if type(message.body) is not list or not message.body:
        raise MalformedMessageError("no_new_value")
    return {
        "from": "CloudAgent",
        "to": "Cloud",
        "message": "message from VOLTTRON to Cloud",
        "new_value": message.body[0],
    }


_SHAPES: dict[str, Callable[[Message], dict[str, Any]]] = {
    "kafkaagent": _kafka_agent,
    "cloudagent": _cloud_agent,
}
