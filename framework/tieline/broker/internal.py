"""Which topics are tieline's and Kafka's own: a pattern takes them only where it names one exactly. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

SCHEMAS = "_schemas"
_CHANGELOG = "-changelog"


def takes(pattern: re.Pattern[str], topic: str, topics: Collection[str], own: Collection[str]) -> bool:
    """Return whether a subscription by this pattern takes a topic.

    ``topics``: all that there are; ``own``: what this worker keeps there for itself. Left out are those,
    schemas, Kafka's own (``__…``), and the changelog of a command sink: CONNECTOR-TOPIC-changelog of a topic
    that there is.
    """
    if not pattern.fullmatch(topic):
        return False
    if pattern.pattern in (topic, re.escape(topic)):
        return True
    if topic == SCHEMAS or topic in own or topic.startswith("__"):
        return False
    connector_and_topic = topic.removesuffix(_CHANGELOG)
    if connector_and_topic == topic:
        return True
    return not any(connector_and_topic.endswith(f"-{other}") for other in topics)
