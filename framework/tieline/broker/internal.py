"""Which topics are internal to tieline or Kafka; a pattern matches one only if it names it exactly. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

SCHEMAS = "_schemas"
_CHANGELOG = "-changelog"


def matches(pattern: re.Pattern[str], topic: str, topics: Collection[str], internal: Collection[str]) -> bool:
    """Return whether a subscription by this pattern includes a topic.

    ``topics``: all topics that exist. ``internal``: those that this worker keeps for itself. Only a
    pattern that names it exactly includes one of these, the topic of schemas, one of Kafka's own (``__…``),
    or a changelog of a sink (CONNECTOR-TOPIC-changelog, where TOPIC exists).
    """
    if not pattern.fullmatch(topic):
        return False
    if pattern.pattern in (topic, re.escape(topic)):
        return True
    if topic == SCHEMAS or topic in internal or topic.startswith("__"):
        return False
    connector_and_topic = topic.removesuffix(_CHANGELOG)
    if connector_and_topic == topic:
        return True
    return not any(connector_and_topic.endswith(f"-{other}") for other in topics)
