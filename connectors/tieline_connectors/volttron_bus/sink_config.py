"""The settings of the bus sink."""

from __future__ import annotations

from typing import Literal

from tieline.api import CommaList, setting
from tieline_connectors.volttron_bus.messages.prefixes import parse_prefix
from tieline_connectors.volttron_bus.messages.publishing import MessageMapper, TokenBucket
from tieline_connectors.volttron_bus.platform_config import BusConfig, error_message


class VolttronBusSinkConfig(BusConfig):
    """What may be published on which platform, how fast, and what happens to other records.

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
        " body. kafkaagent: {topic, headers, message}, of which only message is required.",
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
        "topic, partition and offset), or stop (a data error of that record).",
    )
    max_age_ms: int = setting(
        "max.age.ms",
        300_000,
        ge=-1,
        doc="A record older than this, by its timestamp, is not published (filtered.expired). -1: "
        "records of any age are published.",
    )
    rate_limit: float = setting(
        "rate.limit",
        500.0,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        doc="The largest number of messages per second; the others wait in their topic. 0: as fast as the "
        "router confirms.",
    )
    rate_burst: int = setting(
        "rate.burst", 500, ge=1, doc="How many messages may be published at once within rate.limit."
    )
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

    def problems(self) -> list[tuple[str, str]]:
        """Return every key with a wrong value or a conflict, each with the problem."""
        message = error_message(self.allowed_prefixes)
        return [*super().problems(), *([("bus.allowed.prefixes", message)] if message else [])]

    def allowed_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes without slashes at their ends. Raises ``ValueError``."""
        if not self.prefixes:
            raise ValueError("name at least one prefix that may be published, such as devices/campus")
        return tuple(map(parse_prefix, self.prefixes))

    def message_mapper(self) -> MessageMapper:
        """Return the mapper from records to messages. Raises ``ValueError``."""
        return MessageMapper(
            self.platform,
            self.shape,
            self.allowed_prefixes(),
            self.topic_from,
            max_bytes=self.max_message_bytes,
            max_age_ms=None if self.max_age_ms < 0 else self.max_age_ms,
        )

    def token_bucket(self) -> TokenBucket | None:
        """Return the rate limit; ``None`` means as fast as the router confirms."""
        return TokenBucket(self.rate_limit, self.rate_burst) if self.rate_limit else None
