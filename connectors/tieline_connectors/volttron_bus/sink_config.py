"""The settings of the bus sink."""

from __future__ import annotations

from typing import Literal

from tieline.api import CommaList, setting
from tieline_connectors.volttron_bus.messages.prefixes import parse_prefix
from tieline_connectors.volttron_bus.messages.publishing import MessageMapper, TokenBucket
from tieline_connectors.volttron_bus.platform_config import PlatformConfig, error_message
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState


class VolttronBusSinkConfig(PlatformConfig):
    """What may be published, to which platform, how fast, and what becomes of all else.

    Of the old agents' settings, ``kafka_producer_topic`` of KafkaAgent is ``topics`` here, with
    ``value.shape=kafkaagent`` and ``value.converter=json``.
    """

    prefixes: CommaList = setting(
        "bus.allowed.prefixes",
        doc="The prefixes of the bus that may be published, as whole segments: devices/campus does "
        "not allow devices/campus2. Everything else is rejected. Messages at or below "
        "devices/actuators command devices on 10.x; only a prefix that lies there too allows "
        "them.",
        importance="high",
    )
    shape: Literal["avro", "json", "kafkaagent"] = setting(
        "value.shape",
        "avro",
        doc="avro: volttron.DeviceReading, .DataLog and .BusMessage, rebuilt exactly. json: the value is the"
        " body. kafkaagent: {topic, headers, message}, of which only message must be there.",
        importance="high",
    )
    topic_from: Literal["key", "header"] = setting(
        "topic.from",
        "key",
        doc="Where the topic of the bus is if the value does not name it: the record's key, or its "
        "header volttron.topic.",
    )
    on_refused: Literal["skip", "stop"] = setting(
        "on.refused",
        "skip",
        doc="What happens to a record that may not be published: skip (counted, and logged with its "
        "place), or stop (a data error of that record).",
    )
    max_age_ms: int = setting(
        "max.age.ms",
        300_000,
        ge=-1,
        doc="A record older than this, by its timestamp, is not published (filtered.expired). -1: "
        "records of any age are.",
    )
    rate_limit: float = setting(
        "rate.limit",
        500.0,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        doc="The largest number of messages a second; the rest waits in its topic. 0: as fast as the "
        "router confirms.",
    )
    rate_burst: int = setting("rate.burst", 500, ge=1, doc="How many of these messages may come at once.")
    max_message_bytes: int = setting(
        "bus.max.message.bytes",
        1024 * 1024,
        ge=1,
        doc="A message whose topic, headers and body are larger is rejected (refused.too_large).",
    )
    publish_timeout_ms: int = setting(
        "publish.timeout.ms",
        2_000,
        ge=10,
        doc="How long the router may take to confirm a message before the sink reconnects.",
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

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong between the settings, and in the form of one."""
        wrong = error_message(self.allowed)
        return [*super().problems(), *([("bus.allowed.prefixes", wrong)] if wrong else [])]

    def allowed(self) -> tuple[str, ...]:
        """The prefixes, without slashes at their ends. Raises ``ValueError``."""
        found = tuple(map(parse_prefix, self.prefixes))
        if not found:
            raise ValueError("name at least one prefix that may be published, such as devices/campus")
        return found

    def publishing(self) -> MessageMapper:
        """The rules."""
        max_age = None if self.max_age_ms < 0 else self.max_age_ms
        most = self.max_message_bytes
        return MessageMapper(self.platform, self.shape, self.allowed(), self.topic_from, most, max_age)

    def bucket(self) -> TokenBucket | None:
        """The limit; none: as fast as the router confirms."""
        return TokenBucket(self.rate_limit, self.rate_burst) if self.rate_limit else None

    def reconnect(self, connector: str) -> ReconnectState:
        """How the platform is found, and found again. Raises ``ValueError`` on keys that cannot be read."""
        return ReconnectState(
            lambda: self.endpoint(connector),
            self.reconnect_backoff_ms / 1000,
            self.reconnect_backoff_max_ms / 1000,
        )
