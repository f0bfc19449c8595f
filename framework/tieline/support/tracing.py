"""Find out what happened to one record: in spools, topics, dead letters, and the stores of connectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tieline.api import ID_HEADER, Headers, TielineError, identity
from tieline.api.traces import Sighting, TraceQuestion
from tieline.broker.internal import SCHEMAS
from tieline.broker.local.reader import Bounds
from tieline.broker.local.store import Store
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord
from tieline.config.planned import SinkPlan
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.record import read_letter
from tieline.plugins import discovery
from tieline.runtime.sink.identity import RecordIdentities
from tieline.runtime.spool.room import PARTITION as SPOOL
from tieline.runtime.spool.seal import unseal
from tieline.times import iso_utc

_BATCH = 2_000
_POLL = 0.2
_MIN_TEXT = 8
"""Characters of an id that is searched for in values: a shorter one occurs by chance."""


@dataclass
class Trace:
    """What was found of a record, where was looked, and where that was impossible, with the reason."""

    record_id: str
    sightings: list[Sighting] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def find_id(broker: Broker, position: tuple[str, int, int], timeout: float) -> str:
    """Return the id of the record at topic, partition and offset.

    Raises ``LookupError`` if there is no such record, and ``RetriableError``.
    """
    topic, partition, offset = position
    deadline = time.monotonic() + timeout
    with closing(_Closing(broker.reader(topic, since=0, partitions=[partition]))) as opened:
        while time.monotonic() < deadline:
            for record in opened.reader.poll(_BATCH, _POLL):
                if record.offset == offset:
                    return _id_of(RecordIdentities(broker, lambda *_: None).headers(record))
                if record.offset > offset:
                    raise LookupError(
                        f"{topic}-{partition} has no record {offset}; it has expired, or never was"
                    )
            if opened.reader.at_end:
                raise LookupError(f"{topic}-{partition} has no record {offset} yet")
    raise LookupError(f"{topic}-{partition}@{offset} was not reached within {timeout:g} s; set --timeout")


def trace_spools(trace: Trace, folder: Path) -> None:
    """Look into every spool of a worker; a record in it waits for the broker."""
    for path in sorted(folder.glob("*.db")):
        place = f"the spool {path.stem}"
        try:
            with Store(path, owner=False) as store:
                trace.sightings += _in_spool(store, place, trace.record_id)
            trace.looked.append(place)
        except TielineError as error:
            trace.unavailable[place] = str(error)


def _in_spool(store: Store, place: str, record_id: str) -> Iterator[Sighting]:
    bounds: Bounds | None = store.snapshot().get(SPOOL)
    if bounds is None:
        return
    spool_id = store.topics()[SPOOL.topic].id
    position, waiting = bounds.start, 0
    while rows := store.read_raw(bounds, position, bounds.end, _BATCH):
        for row in rows:
            try:
                _, headers = unseal(row.value, row.headers)
            except ValueError:
                continue  # damaged: the pump quarantines it
            own = headers if _id_of(headers) else identity(spool_id, row.offset)
            if _id_of(own) == record_id:
                yield Sighting(place, "waits for the broker", {"position": row.offset, "before_it": waiting})
            waiting += 1
        position = rows[-1].offset + 1


def trace_topics(
    trace: Trace,
    broker: Broker,
    topics: Sequence[str],
    since: int,
    read: Callable[[int], None],
    timeout: float,
) -> None:
    """Read topics from a time on (ms since 1970), and find the record, its dead letters and what names it.

    ``read`` is called with the number of records that were read.
    """
    deadline = time.monotonic() + timeout
    matcher = _Matcher(trace.record_id, RecordIdentities(broker, lambda *_: None))
    for topic in topics:
        place = f"the topic {topic}"
        try:
            with closing(_Closing(broker.reader(topic, since=since))) as opened:
                while not opened.reader.at_end and time.monotonic() < deadline:
                    records = opened.reader.poll(_BATCH, _POLL)
                    trace.sightings += matcher.sightings(records)
                    read(len(records))
                if not opened.reader.at_end:
                    trace.unavailable[place] = (
                        f"not read to its end within {timeout:g} s; set --timeout or --since"
                    )
                    continue
            trace.looked.append(place)
        except TielineError as error:
            trace.unavailable[place] = str(error)


def readable_topics(broker: Broker, timeout: float) -> list[str]:
    """Return the topics that may hold records: not those of schemas and of Kafka itself."""
    return sorted(
        name for name in broker.topic_names(timeout) if name != SCHEMAS and not name.startswith("__")
    )


def trace_stores(trace: Trace, sinks: Sequence[SinkPlan], data_dir: Path) -> None:
    """Ask the stores of sinks, as far as their connectors offer a lookup."""
    lookups = {plugin.name for plugin in discovery.installed(discovery.TRACES)}
    for planned in sinks:
        place = f"the store of {planned.name}"
        plugin = discovery.own_name(discovery.SINKS, planned.settings.connector_class)
        if plugin not in lookups:
            trace.unavailable[place] = f"the connector {plugin} has no lookup for traces"
            continue
        try:
            lookup = discovery.load_object(discovery.TRACES, plugin)
            topics = planned.settings.subscription.topics
            question = TraceQuestion(trace.record_id, planned.connector_settings, topics, data_dir)
            trace.sightings += lookup(question)
            trace.looked.append(place)
        except Exception as error:  # noqa: BLE001 - a plugin's lookup must not end the trace
            trace.unavailable[place] = str(error)


class _Matcher:
    """Recognizes a record, its dead letters and what names it, over all topics."""

    def __init__(self, record_id: str, identities: RecordIdentities) -> None:
        self._id = record_id
        self._text = record_id.encode() if len(record_id) >= _MIN_TEXT else None
        self._identities = identities
        self._positions: set[tuple[str, int, int]] = set()

    def sightings(self, records: Sequence[ConsumedRecord]) -> Iterator[Sighting]:
        for record in records:
            headers = self._identities.headers(record)
            letter = read_letter(record)
            place = f"the topic {record.topic}"
            details: dict[str, Any] = {
                "partition": record.partition,
                "offset": record.offset,
                "time": iso_utc(record.timestamp, "milliseconds"),
            }
            if letter.family and self._is_about(letter):
                details |= {
                    "stage": letter.cause.stage,
                    "error": letter.cause.error,
                    "connector": letter.connector,
                    "from": letter.where,
                }
                yield Sighting(place, "dead letter", details)
            elif _id_of(headers) == self._id:
                self._positions.add((record.topic, record.partition, record.offset))
                details["headers"] = [name for name, _ in record.headers]
                yield Sighting(place, "written", details)
            elif self._names(record):
                yield Sighting(place, "named by another record", details)

    def _is_about(self, letter: DeadLetter) -> bool:
        position = letter.topic, letter.partition, letter.offset
        return _id_of(letter.headers) == self._id or letter.id == self._id or position in self._positions

    def _names(self, record: ConsumedRecord) -> bool:
        text = self._text
        return text is not None and (text in (record.value or b"") or text == record.key)


class _Closing:
    """Closes a reader within a second."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def close(self) -> None:
        self.reader.close(1.0)


def _id_of(headers: Headers) -> str:
    return (dict(headers).get(ID_HEADER) or b"").decode("ascii", "replace")
