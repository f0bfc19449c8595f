"""Claims: which connector keeps the changelog for a topic, so that no other repeats what it has done.

They are in one compacted topic on both backends. A claim is written once, by the topic's only writer
(`Broker.exclusive`); every later start only reads it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from tieline.api import DataDirInUseError, FatalError
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord, ProducerRecord

log = logging.getLogger(__name__)

TOPIC = "tieline-changelogs"
USED_BEFORE = -1


class Claim(NamedTuple):
    """``name``: the connector. ``partitions``: how many the topic had when it was first claimed.

    ``partitions`` is `USED_BEFORE` if the connector had read the topic before there were claims.
    """

    name: str
    partitions: int


class Claims:
    """Reads and makes claims; used by one task's thread."""

    def __init__(self, broker: Broker, timeout: float) -> None:
        self._broker = broker
        self._timeout = timeout
        self._known: dict[tuple[str, str], Claim] = {}

    def claim(self, name: str, topic: str, acts_on: str, partitions: Callable[[], int]) -> Claim:
        """Return the claim of the connector ``name`` to a topic, for what it acts on; make it if needed.

        ``partitions`` returns the number for a new claim, as in `Claim`. Raises ``DataDirInUseError`` if
        another connector has claimed the topic, and ``RetriableError``.
        """
        claim = self._known.get((topic, acts_on))
        if claim is None:
            try:
                claim = self._read_or_write(lambda: Claim(name, partitions()), topic, acts_on)
            except FatalError as error:
                log.warning(
                    "cannot check whether another connector has acted on %s already: %s."
                    " Give this worker the right to create, read and write the topic %s",
                    *(topic, error, TOPIC),
                )
                claim = Claim(name, partitions())
            self._known[topic, acts_on] = claim
        if claim.name != name:
            del self._known[topic, acts_on]
            raise DataDirInUseError(
                f"the records of {topic} for {acts_on} belong to the connector {claim.name}, which has"
                f" executed them: {name} would execute them again"
            )
        return claim

    def _read_or_write(self, wanted: Callable[[], Claim], topic: str, acts_on: str) -> Claim:
        config = {"cleanup.policy": "compact"}
        self._broker.create_topic(TOPIC, partitions=1, config=config, timeout=self._timeout)
        key = json.dumps([topic, acts_on]).encode()
        claim = self._read(key)
        if claim is not None:
            return claim
        new = wanted()
        with self._broker.exclusive(TOPIC, self._timeout) as writer:
            claim = self._read(key)
            if claim is None:
                value = json.dumps(new._asdict()).encode()
                writer.append([ProducerRecord(TOPIC, value, key, partition=0)])
        return claim or new

    def _read(self, key: bytes) -> Claim | None:
        latest: list[Any] = [None]

        def visit(record: ConsumedRecord) -> None:
            if record.key == key:
                latest[0] = record.value

        self._broker.read(TOPIC, visit, timeout=self._timeout)
        try:
            return None if latest[0] is None else Claim(**json.loads(latest[0]))
        except (ValueError, TypeError) as error:
            raise FatalError(f"{TOPIC}: the claim {key!r} cannot be read: {error}") from error
