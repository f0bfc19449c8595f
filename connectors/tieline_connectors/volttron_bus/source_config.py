"""The settings of the bus source."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tieline.api import CommaList, setting
from tieline.api.config import topic_name
from tieline_connectors.volttron_bus.backfill.filler import FillLimits
from tieline_connectors.volttron_bus.messages.device_paths import TopicBase, with_defaults
from tieline_connectors.volttron_bus.messages.message import ParseLimits
from tieline_connectors.volttron_bus.messages.message_time import UTC, NaiveZone
from tieline_connectors.volttron_bus.messages.prefixes import ALL_PREFIXES, parse_prefix
from tieline_connectors.volttron_bus.messages.records import Route
from tieline_connectors.volttron_bus.messages.time_formats import find_zone
from tieline_connectors.volttron_bus.platform_config import BusConfig, error_message
from tieline_connectors.volttron_bus.receiver import PingTiming, Subscription
from tieline_connectors.volttron_bus.vip.connection import Endpoint
from tieline_connectors.volttron_bus.vip.frames import check_text
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

_MIB = 1024 * 1024


class VolttronBusConfig(BusConfig):
    """What to read from which platform, and the topics to write.

    Settings of the old agents have these names here:
    - ``services_topic_list`` is ``bus.prefixes``, with commas; it accepts ``all``, too.
    - ``kafka_consumer_topic`` of KafkaAgent and ``cloud_consumer_topic`` are ``topic``.
    - ``command_topic`` is a prefix in ``bus.prefixes``.
    The broker's address is a setting of the worker.
    """

    prefixes: CommaList = setting(
        "bus.prefixes",
        ("all",),
        doc="The prefixes to read, as whole segments without wildcards: devices/campus does not read "
        "devices/campus2. all stands for devices, datalogger, actuators, analysis; add record to"
        " read it, too. A message under several prefixes gives one record.",
        importance="high",
    )
    all_platforms: bool = setting(
        "bus.all.platforms", False, doc="Whether messages of federated platforms are read, too."
    )
    topic: str = setting(
        "topic",
        "volttron",
        doc="The Kafka topic for messages without a route in topic.routes.",
        importance="high",
    )
    routes: CommaList = setting(
        "topic.routes",
        (),
        doc="Kafka topics by prefix of the bus, such as devices=bus.devices, analysis=bus.analysis. "
        "The longest matching prefix applies. Each prefix must lie within bus.prefixes.",
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
        "Europe/Paris; or points: the tz of the message's points if they name exactly one, else UTC.",
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
        doc="The largest number of received messages that are not in the spool yet. If it is reached, new "
        "messages are dropped (dropped.buffer_full).",
    )
    buffer_max_bytes: int = setting(
        "buffer.max.bytes", 64 * _MIB, ge=1, doc="As buffer.max.messages, in bytes of the bus."
    )
    ping_interval_ms: int = setting(
        "ping.interval.ms",
        10_000,
        ge=10,
        doc="How long the bus may be quiet before the source pings the router.",
    )
    ping_timeout_ms: int = setting(
        "ping.timeout.ms",
        5_000,
        ge=10,
        doc="How long the router may take to answer a ping before the source reconnects.",
    )

    backfill_historian: str = setting(
        "backfill.historian",
        "",
        doc="The identity of the platform's historian, such as platform.historian. After a gap the source "
        "fetches from it what devices/…/all had. Empty: nothing is fetched.",
    )
    backfill_max_age_ms: int = setting(
        "backfill.max.age.ms",
        7 * 24 * 3_600_000,
        ge=1_000,
        doc="How old the readings are at most that are fetched from the historian.",
    )
    backfill_page_size: int = setting(
        "backfill.page.size",
        5_000,
        ge=100,
        le=100_000,
        doc="How many values one answer of the historian has at most; it answers nothing else meanwhile.",
    )
    backfill_rate: float = setting(
        "backfill.rate",
        500.0,
        gt=0,
        le=100_000,
        doc="How many readings a second are fetched from the historian at most.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return every key with a wrong value or a conflict, each with the problem."""
        checks = (
            ("bus.prefixes", self.read_prefixes),
            ("topic", lambda: topic_name(self.topic)),
            ("topic.routes", self._check_routes),
            ("topic.order", self.topic_bases),
            ("bus.naive.time.zone", self.naive_zone),
            ("backfill.historian", self._check_historian),
        )
        problems = [(key, message) for key, check in checks if (message := error_message(check))]
        if self.buffer_max_bytes < self.max_message_bytes:
            problems.append(("buffer.max.bytes", "must hold at least one message of bus.max.message.bytes"))
        return [*super().problems(), *problems]

    def read_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes without ``all``, none of them within another. Raises ``ValueError``."""
        if not self.prefixes:
            raise ValueError("name at least one prefix, such as devices, or all")
        prefixes: set[str] = set()
        for text in self.prefixes:
            if text != "all" and text.lower() == "all":
                raise ValueError(f"{text!r} is not a prefix; write all, in lower case")
            prefixes.update(ALL_PREFIXES if text == "all" else (parse_prefix(text),))
        return tuple(sorted(p for p in prefixes if not any(Route(q, "").takes(p) for q in prefixes - {p})))

    def expected_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Return groups of prefixes under which messages are expected; ``all`` is one group."""
        return tuple(ALL_PREFIXES if text == "all" else (parse_prefix(text),) for text in self.prefixes)

    def all_routes(self) -> tuple[Route, ...]:
        """Return a route for each prefix that is read and for ``topic.routes``. Raises ``ValueError``."""
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
                raise ValueError(f"{text!r} is not a route; write prefix=topic")
            routes.append(Route(parse_prefix(prefix), topic_name(topic)))
        return routes

    def _check_routes(self) -> None:
        """Raise ``ValueError`` for wrong routes. If ``bus.prefixes`` is wrong, check only their form."""
        self._named_routes()
        if not error_message(self.read_prefixes):
            self.all_routes()

    def topic_bases(self) -> tuple[TopicBase, ...]:
        """Return where topics of devices begin, with their order. Raises ``ValueError``."""
        return with_defaults(tuple(map(TopicBase.parse, self.order)))

    def naive_zone(self) -> NaiveZone:
        """Return the zone of times without a zone. Raises ``ValueError``."""
        if self.naive_time_zone in ("points", "UTC"):
            return "points" if self.naive_time_zone == "points" else UTC
        zone = find_zone(self.naive_time_zone)
        if zone is None:
            raise ValueError(
                f"{self.naive_time_zone!r} is not a time zone; write UTC, points, or a name such as "
                "Europe/Paris"
            )
        return zone

    def historian_reconnect(self, connector: str) -> ReconnectState:
        """Return the state of the connection to the historian, under an identity of its own."""
        return ReconnectState(lambda: _with_ending(self.endpoint(connector)))

    def backfill_limits(self) -> FillLimits:
        """Return how much is fetched from the historian."""
        return FillLimits(self.backfill_page_size, self.backfill_rate, self.backfill_max_age_ms * 1000)

    def _check_historian(self) -> None:
        """Raise ``ValueError`` if a historian is named that cannot be called or has nothing to give."""
        if not self.backfill_historian:
            return
        check_text("identity", self.backfill_historian)
        if error_message(self.read_prefixes):
            return
        if not any(Route("devices", "").takes(prefix) for prefix in self.read_prefixes()):
            raise ValueError("has no effect: bus.prefixes reads nothing below devices")

    def subscription(self) -> Subscription:
        """Return what the receiver subscribes to."""
        return Subscription(self.read_prefixes(), self.all_platforms, self.max_message_bytes)

    def ping_timing(self) -> PingTiming:
        """Return when the receiver pings the router."""
        return PingTiming(self.ping_interval_ms / 1000, self.ping_timeout_ms / 1000)

    def parse_limits(self) -> ParseLimits:
        """Return the limits of a message."""
        return ParseLimits(self.max_depth, self.max_headers)


def _with_ending(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, identity=f"{endpoint.identity}.backfill")
