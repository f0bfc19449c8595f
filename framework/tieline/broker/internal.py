"""Which topics are internal to tieline or Kafka; a pattern matches one only if it names it exactly. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

SCHEMAS = "_schemas"
DEAD_LETTER_JOBS = "tieline-dlq-jobs"
_REPLAY = "tieline-replay-"
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 200
_CHANGELOG = "-changelog"


def replay_topic(connector: str) -> str:
    """Return the topic that a sink reads besides its own: what replays of dead letters write for it alone.

    A connector's name may have characters that a topic's cannot have.
    """
    legal = _ILLEGAL.sub("_", connector)[:_LONGEST]
    if legal == connector:
        return _REPLAY + legal
    hashed = hashlib.blake2b(connector.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{_REPLAY}{legal}-{hashed}"


def matches(pattern: re.Pattern[str], topic: str, topics: Collection[str], internal: Collection[str]) -> bool:
    """Return whether a subscription by this pattern includes a topic.

    ``topics``: all topics that exist. ``internal``: those that this worker keeps for itself. Only a
    pattern that names it exactly includes one of these, the topic of schemas, one of Kafka's own (``__…``),
    the jobs and replays of dead letters, or a changelog of a sink (CONNECTOR-TOPIC-changelog, where TOPIC
    exists).
    """
    if not pattern.fullmatch(topic):
        return False
    if pattern.pattern in (topic, re.escape(topic)):
        return True
    if topic in (SCHEMAS, DEAD_LETTER_JOBS) or topic in internal or topic.startswith(("__", _REPLAY)):
        return False
    connector_and_topic = topic.removesuffix(_CHANGELOG)
    if connector_and_topic == topic:
        return True
    return not any(connector_and_topic.endswith(f"-{other}") for other in topics)
