"""From messages of the bus to records: which are wanted, which topic, which shape; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tieline.api import Headers, SourceRecord
from tieline_connectors.volttron_bus.messages.message import (
    ORIGIN_HEADER,
    MalformedMessageError,
    Message,
    identity_headers,
)
from tieline_connectors.volttron_bus.messages.readings import bus_message_schema, to_value
from tieline_connectors.volttron_bus.messages.topics import BASES, TopicBase


class Route(NamedTuple):
    """Messages whose bus topic begins with these segments go to this topic of Kafka."""

    prefix: str
    topic: str

    def takes(self, bus_topic: str) -> bool:
        """Whole segments: ``devices/a`` takes ``devices/a/all`` and not ``devices/ab/all``."""
        return bus_topic == self.prefix or bus_topic.startswith(f"{self.prefix}/")


class FilteredError(Exception):
    """Not wanted. ``reason`` is a word for a counter: ``filtered.<reason>``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RecordMapper:
    """Makes the record of a message. ``routes``: one a prefix that is read; ``bases``: longer ones first."""

    def __init__(
        self, platform: str, routes: Sequence[Route], shape: str, bases: Sequence[TopicBase] = BASES
    ) -> None:
        self._platform = platform
        self._bases = bases
        self._routes = sorted(routes, key=lambda route: -len(route.prefix))
        self._shape = _SHAPES.get(shape)
        self._origin = (ORIGIN_HEADER, platform.encode())

    def record(self, message: Message) -> SourceRecord:
        """Return the record of a message. Raises ``FilteredError`` or ``MalformedMessageError``."""
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
                headers=(*headers, *_where(message)),
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
        """Whether the topic is one of a device, and the record not a reading."""
        return record.value_schema == bus_message_schema() and any(
            b.place(message.topic) for b in self._bases
        )


def _where(message: Message) -> Headers:
    """What the old shapes leave out."""
    return (
        ("volttron.topic", message.topic.encode()),
        ("volttron.sender", message.sender.encode()),
    )


def _kafka_agent(message: Message) -> dict[str, Any]:
    """What KafkaAgent produced."""
    return {
        "message_sender": message.sender,
        "kafka_message_sender": "KafkaAgent",
        "description": "message from VOLTTRON to KafkaBroker",
        "message": message.body,
    }


def _cloud_agent(message: Message) -> dict[str, Any]:
    """What CloudAgent produced: the first element of a body that is a list. It lost all others."""
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
