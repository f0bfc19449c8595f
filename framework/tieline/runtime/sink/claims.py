"""Which connector's changelog remembers what was done for a topic: so that no other does it again.

One compacted topic on both backends. A claim is made by its only writer (`Broker.exclusive`), once; every
later start only reads it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from tieline.api import DataDirInUseError, FatalError
from tieline.broker.port import Broker, ConsumedRecord, ProducerRecord

log = logging.getLogger(__name__)

TOPIC = "tieline-changelogs"
USED_BEFORE = -1


class Claim(NamedTuple):
    """``name``: the connector. ``partitions``: how many the topic had when it was first claimed.

    `USED_BEFORE` where the connector has read the topic before there were claims.
    """

    name: str
    partitions: int


class Claims:
    """Used by one task's thread."""

    def __init__(self, broker: Broker, timeout: float) -> None:
        self._broker = broker
        self._timeout = timeout
        self._known: dict[tuple[str, str], Claim] = {}

    def claim(self, name: str, topic: str, acts_on: str, partitions: Callable[[], int]) -> Claim:
        """Make or find the claim of the connector ``name`` to a topic, for what it acts on.

        ``partitions``: asked for the number of a new claim, as in `Claim`. Raises
        ``DataDirInUseError`` if another connector has it, and ``RetriableError``.
        """
        found = self._known.get((topic, acts_on))
        if found is None:
            try:
                found = self._made(lambda: Claim(name, partitions()), topic, acts_on)
            except FatalError as error:
                log.warning(
                    "whether another connector has acted on %s already is not checked: %s."
                    " Give this worker the right to create, read and write the topic %s",
                    *(topic, error, TOPIC),
                )
                found = Claim(name, partitions())
            self._known[topic, acts_on] = found
        if found.name != name:
            del self._known[topic, acts_on]
            raise DataDirInUseError(
                f"the records of {topic} for {acts_on} belong to the connector {found.name}, which has"
                f" executed them: {name} would do it again"
            )
        return found

    def _made(self, wanted: Callable[[], Claim], topic: str, acts_on: str) -> Claim:
        config = {"cleanup.policy": "compact"}
        self._broker.create_topic(TOPIC, partitions=1, config=config, timeout=self._timeout)
        key = json.dumps([topic, acts_on]).encode()
        found = self._read(key)
        if found is not None:
            return found
        new = wanted()
        with self._broker.exclusive(TOPIC, self._timeout) as writer:
            found = self._read(key)
            if found is None:
                value = json.dumps(new._asdict()).encode()
                writer.append([ProducerRecord(TOPIC, value, key, partition=0)])
        return found or new

    def _read(self, key: bytes) -> Claim | None:
        found: list[Any] = [None]

        def visit(record: ConsumedRecord) -> None:
            if record.key == key:
                found[0] = record.value

        self._broker.read(TOPIC, visit, timeout=self._timeout)
        try:
            return None if found[0] is None else Claim(**json.loads(found[0]))
        except (ValueError, TypeError) as error:
            raise FatalError(f"{TOPIC}: the claim {key!r} cannot be read: {error}") from error
