"""The identity of consumed records: kept if they carry one, else derived from where they were consumed."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable

from tieline.api import DIGEST_HEADER, ID_HEADER, Headers, RetriableError, identity
from tieline.broker.port import Broker
from tieline.broker.records import UNREADABLE_HEADERS, ConsumedRecord
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError

log = logging.getLogger(__name__)


class RecordIdentities:
    """Adds the identity to a record's headers; used by one thread.

    A record without an identity comes from another producer. It is identified by (cluster, topic id,
    partition, offset), so that a topic that was recreated under its old name is a different one.
    """

    def __init__(self, broker: Broker, count: Callable[[str, int], None]) -> None:
        self._broker = broker
        self._count = count
        self._reported_headers = False
        self.consumed_id: Callable[[str], str | None] = lambda topic: None
        """The id of the topic whose records are consumed; the broker may have another one by now."""
        self._topic_ids: dict[str, str] = {}
        self._origins: dict[tuple[str, int], bytes] = {}

    def headers(self, record: ConsumedRecord) -> Headers:
        """Return the record's headers with its identity and digest. Raises ``StageError``."""
        headers = record.headers
        names = {name for name, _ in headers} if headers else ()
        if headers == UNREADABLE_HEADERS:
            self._report_headers(record)
        if ID_HEADER in names and DIGEST_HEADER in names:
            return headers
        added: list[tuple[str, bytes | None]] = []
        if ID_HEADER not in names:
            origin = self._origins.get((record.topic, record.partition)) or self._origin(record)
            added.append((ID_HEADER, b"%b-%d" % (origin, record.offset)))
        if DIGEST_HEADER not in names:
            content = (record.value or b"") + (record.key or b"")
            digest = hashlib.blake2b(content, person=b"tieline value", digest_size=16)
            added.append((DIGEST_HEADER, digest.hexdigest().encode()))
        return (*headers, *added)

    def drop_topics(self) -> None:
        """Look up every topic again. Called at each assignment: a topic may have been recreated."""
        self._topic_ids = {}
        self._origins = {}

    @functools.cached_property
    def _cluster_id(self) -> str:
        return self._broker.cluster_id

    def _origin(self, record: ConsumedRecord) -> bytes:
        """Return what distinguishes a partition from all others for ever; computed once a partition."""
        hashed = identity(self._cluster_id, self._topic_id(record.topic), record.partition)
        origin = self._origins[record.topic, record.partition] = dict(hashed)[ID_HEADER] or b""
        return origin

    def _topic_id(self, topic: str) -> str:
        if known := self.consumed_id(topic):
            return known
        if topic not in self._topic_ids:
            self._topic_ids = {name: info.id for name, info in self._broker.topics().items()}
        if topic not in self._topic_ids:
            raise StageError(Stage.KAFKA_CONSUME, RetriableError(f"the topic {topic} does not exist (yet)"))
        return self._topic_ids[topic]

    def _report_headers(self, record: ConsumedRecord) -> None:
        self._count("headers.unreadable", 1)
        if not self._reported_headers:
            self._reported_headers = True
            log.warning(
                "headers that cannot be read (a name that is not UTF-8, or a damaged disk) are left out,"
                " the first at %s-%d@%d; their records are processed without them",
                *(record.topic, record.partition, record.offset),
            )
