"""The settings of the bus source."""

from __future__ import annotations

import re
from typing import Literal

from tieline.api import CommaList, setting
from tieline_connectors.volttron_bus.messages.message import ParseLimits
from tieline_connectors.volttron_bus.messages.prefixes import ALL_PREFIXES, parse_prefix
from tieline_connectors.volttron_bus.messages.records import Route
from tieline_connectors.volttron_bus.messages.time_formats import find_zone
from tieline_connectors.volttron_bus.messages.timestamps import UTC, NaiveZone
from tieline_connectors.volttron_bus.messages.topics import TopicBase, with_defaults
from tieline_connectors.volttron_bus.platform_config import PlatformConfig, error_message
from tieline_connectors.volttron_bus.receiver import PingTiming, Subscription
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

_KAFKA_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MIB = 1024 * 1024


class VolttronBusConfig(PlatformConfig):
    """What to read, from where, as whom, into which topic.

    Of the old agents' settings, ``services_topic_list`` is ``bus.prefixes`` here (with commas, ``all``
    too), ``kafka_consumer_topic`` of KafkaAgent and ``cloud_consumer_topic`` are ``topic``,
    ``command_topic`` is a prefix in ``bus.prefixes``; the broker's address belongs to the worker.
    """

    prefixes: CommaList = setting(
        "bus.prefixes",
        ("all",),
        doc="The prefixes to read, as whole segments without wildcards: devices/campus does not read "
        "devices/campus2. all stands for devices, datalogger, actuators, analysis; name record to"
        " read it too. A message under several prefixes gives one record.",
        importance="high",
    )
    all_platforms: bool = setting(
        "bus.all.platforms", False, doc="Whether messages of federated platforms are read too."
    )
    topic: str = setting(
        "topic", "volttron", doc="The Kafka topic for messages that no route names.", importance="high"
    )
    routes: CommaList = setting(
        "topic.routes",
        (),
        doc="Kafka topics by prefix of the bus, such as devices=bus.devices, analysis=bus.analysis. "
        "The longest matching prefix decides. Each prefix must lie within bus.prefixes.",
    )
    order: CommaList = setting(
        "topic.order",
        (),
        doc="How topics below a base name a device: base=depth, base=breadth (the path reversed) or "
        "base=both (10.x publishing both ways under devices). By default devices is depth and "
        "points is breadth. bus.prefixes decides what is read.",
    )
    shape: Literal["avro", "kafkaagent", "cloudagent"] = setting(
        "value.shape",
        "avro",
        doc="avro: volttron.DeviceReading, .DataLog and .BusMessage. kafkaagent and cloudagent: the JSON of"
        " those old agents, without a schema (value.converter=json); cloudagent is {from, to, message,"
        " new_value} with the first element of the body.",
    )
    naive_time_zone: str = setting(
        "bus.naive.time.zone",
        "UTC",
        doc="The zone of a time without a zone: UTC, as VOLTTRON's historians assume; a zone such as "
        "Europe/Paris; or points: the tz of the message's points if all that name one agree, else"
        " UTC.",
    )
    max_message_bytes: int = setting(
        "bus.max.message.bytes", 16 * _MIB, ge=1, doc="A larger message is dropped (dropped.too_large)."
    )
    max_depth: int = setting(
        "bus.max.depth", 64, ge=1, le=500, doc="A message nested deeper is quarantined (too_deep)."
    )
    max_headers: int = setting(
        "bus.max.headers", 256, ge=1, doc="A message with more headers is quarantined (too_many_headers)."
    )
    buffer_max_messages: int = setting(
        "buffer.max.messages",
        100_000,
        ge=1,
        doc="The largest number of messages that are received and not yet in the spool; when it is "
        "reached, new ones are dropped (dropped.buffer_full).",
    )
    buffer_max_bytes: int = setting(
        "buffer.max.bytes", 64 * _MIB, ge=1, doc="As buffer.max.messages, in bytes of the bus."
    )
    reconnect_backoff_ms: int = setting(
        "reconnect.backoff.ms",
        100,
        ge=1,
        doc="The pause before the first attempt after a loss. It grows to a twentieth of the outage.",
    )
    reconnect_backoff_max_ms: int = setting(
        "reconnect.backoff.max.ms", 10_000, ge=1, doc="The longest pause."
    )
    ping_interval_ms: int = setting(
        "ping.interval.ms",
        10_000,
        ge=10,
        doc="How long the bus may be quiet before the router is pinged.",
    )
    ping_timeout_ms: int = setting(
        "ping.timeout.ms",
        5_000,
        ge=10,
        doc="How long the router may take to answer a ping before the source reconnects.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong between the settings, and in the form of one."""
        checks = (
            ("bus.prefixes", self.read_prefixes),
            ("topic", lambda: _kafka_topic(self.topic)),
            ("topic.routes", self._check_routes),
            ("topic.order", self.bases),
            ("bus.naive.time.zone", self.naive_zone),
        )
        wrong = [(key, message) for key, check in checks if (message := error_message(check))]
        if self.buffer_max_bytes < self.max_message_bytes:
            wrong.append(("buffer.max.bytes", "must hold at least one message of bus.max.message.bytes"))
        return [*super().problems(), *wrong]

    def read_prefixes(self) -> tuple[str, ...]:
        """The prefixes with ``all`` spelt out, none of them within another. Raises ``ValueError``."""
        if not self.prefixes:
            raise ValueError("name at least one prefix, such as devices, or all")
        spelt: set[str] = set()
        for given in self.prefixes:
            if given != "all" and given.lower() == "all":
                raise ValueError(f"{given!r} is not a prefix; write all, in lower case")
            spelt.update(ALL_PREFIXES if given == "all" else (parse_prefix(given),))
        return tuple(sorted(p for p in spelt if not any(Route(q, "").takes(p) for q in spelt - {p})))

    def expected(self) -> tuple[tuple[str, ...], ...]:
        """Groups of prefixes, in each of which something should come: each that is named, and ``all``."""
        return tuple(ALL_PREFIXES if given == "all" else (parse_prefix(given),) for given in self.prefixes)

    def all_routes(self) -> tuple[Route, ...]:
        """A route for each prefix that is read, and those of ``topic.routes``. Raises ``ValueError``."""
        prefixes = self.read_prefixes()
        routes = dict.fromkeys(prefixes, self.topic)
        for route in self._named_routes():
            if not any(Route(read, "").takes(route.prefix) for read in prefixes):
                raise ValueError(f"{route.prefix!r} is not within bus.prefixes ({', '.join(prefixes)})")
            routes[route.prefix] = route.topic
        return tuple(Route(prefix, topic) for prefix, topic in routes.items())

    def _named_routes(self) -> list[Route]:
        """Return the routes of ``topic.routes`` alone. Raises ``ValueError``."""
        routes = []
        for text in self.routes:
            prefix, equals, topic = (part.strip() for part in text.partition("="))
            if not equals:
                raise ValueError(f"{text!r} is no route; write prefix=topic")
            routes.append(Route(parse_prefix(prefix), _kafka_topic(topic)))
        return routes

    def _check_routes(self) -> None:
        """Raise ``ValueError`` for wrong routes. If ``bus.prefixes`` is wrong, only their form is checked."""
        self._named_routes()
        if not error_message(self.read_prefixes):
            self.all_routes()

    def bases(self) -> tuple[TopicBase, ...]:
        """Where topics of devices begin, and their order. Raises ``ValueError``."""
        return with_defaults(tuple(map(TopicBase.parse, self.order)))

    def naive_zone(self) -> NaiveZone:
        """What a time without a zone is taken in. Raises ``ValueError``."""
        if self.naive_time_zone in ("points", "UTC"):
            return "points" if self.naive_time_zone == "points" else UTC
        place = find_zone(self.naive_time_zone)
        if place is None:
            raise ValueError(
                f"{self.naive_time_zone!r} is not a time zone; write UTC, points, or a name such as "
                "Europe/Paris"
            )
        return place

    def subscription(self) -> Subscription:
        """What the receiver reads."""
        return Subscription(self.read_prefixes(), self.all_platforms, self.max_message_bytes)

    def patience(self) -> PingTiming:
        """The times, in seconds."""
        return PingTiming(self.ping_interval_ms / 1000, self.ping_timeout_ms / 1000)

    def reconnect(self, connector: str) -> ReconnectState:
        """How the platform is found, and found again. Raises ``ValueError`` on keys that cannot be read."""
        return ReconnectState(
            lambda: self.endpoint(connector),
            self.reconnect_backoff_ms / 1000,
            self.reconnect_backoff_max_ms / 1000,
        )

    def limits(self) -> ParseLimits:
        """What a message may have."""
        return ParseLimits(self.max_depth, self.max_headers)


def _kafka_topic(name: str) -> str:
    if not _KAFKA_TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no topic of Kafka: up to 249 letters, digits, '.', '_' and '-'")
    return name
