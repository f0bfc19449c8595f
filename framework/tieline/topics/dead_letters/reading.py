"""Reading letters from their topic, and the jobs and marks about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from tieline.api import DataError, RetriableError
from tieline.broker.internal import DEAD_LETTER_JOBS as TOPIC
from tieline.broker.port import Broker, TopicReader
from tieline.broker.records import ConsumedRecord, Delivery, ProducerRecord, Unit
from tieline.dead_letters.jobs import Jobs
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.record import read_letter

_BATCH = 500
_PATIENCE = 30.0
"""Seconds without any record after which the broker counts as unavailable."""


def read_topic(
    broker: Broker, topic: str, since: int = 0, progress: Callable[[int], None] = lambda number: None
) -> Iterator[ConsumedRecord]:
    """Yield what a topic holds now, from a time on (ms since 1970). Raises ``RetriableError``.

    ``progress`` gets the number of records that were read, after each batch.
    """
    reader = broker.reader(topic, since=since)
    number = 0
    try:
        deadline = time.monotonic() + _PATIENCE
        while not reader.at_end:
            records = reader.poll(_BATCH, 1.0)
            if records:
                yield from records
                number += len(records)
                progress(number)
                deadline = time.monotonic() + _PATIENCE
            elif time.monotonic() >= deadline and not reader.at_end:
                raise RetriableError(f"{topic}: nothing was read for {_PATIENCE:g} s")
    finally:
        with suppress(RetriableError):  # an unavailable broker must not delay the exit
            reader.close(5.0)


def read_letters(
    broker: Broker,
    topic: str,
    *,
    since: int = 0,
    ends: Mapping[str, int] | None = None,
    progress: Callable[[int], None] = lambda number: None,
) -> Iterator[DeadLetter]:
    """Yield the letters of a topic, repetitions included. Raises ``RetriableError``.

    ``since``: of the letters' own time, in ms since 1970. ``ends``: the first offset of each partition that
    is left out. ``progress``: see ``read_topic``.
    """
    for record in read_topic(broker, topic, since, progress):
        if ends is None or record.offset < ends.get(str(record.partition), 0):
            yield read_letter(record)


class JobLog:
    """The topic of jobs and marks: its fold, and the only writer of it in this process."""

    def __init__(self, broker: Broker, clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs = Jobs()
        self._broker = broker
        self._clock = clock
        self._writer: UnitWriter | None = None
        self._reader: TopicReader | None = None

    def read(self) -> Jobs:
        """Return what the topic says now. A missing topic is empty, and is not created."""
        if self._reader is None:
            if TOPIC not in self._broker.topic_names():
                return self.jobs
            self._reader = self._broker.reader(TOPIC, since=0)
            deadline = self._clock() + _PATIENCE
            while not self._reader.at_end:
                records = self._reader.poll(_BATCH, 1.0)
                self._take(records)
                if not records and self._clock() >= deadline:
                    raise RetriableError(f"{TOPIC}: nothing was read for {_PATIENCE:g} s")
        while records := self._reader.poll(_BATCH, 0):
            self._take(records)
        return self.jobs

    def write(self, records: Sequence[ProducerRecord]) -> None:
        """Write records of jobs and marks, and return when they are safe. Raises ``RetriableError``."""
        if self._writer is None:
            self._broker.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
            self._writer = UnitWriter(self._broker)
        delivery = self._writer.write(records)
        if delivery.failures:
            raise DataError(delivery.failures)

    def close(self) -> None:
        """Close reader and writer."""
        if self._writer is not None:
            self._writer.close()
        if self._reader is not None:
            with suppress(RetriableError):
                self._reader.close(1.0)

    def _take(self, records: Sequence[ConsumedRecord]) -> None:
        for record in records:
            self.jobs.visit(record)


class UnitWriter:
    """Writes a few records at a time, and waits until the broker has confirmed them."""

    def __init__(self, broker: Broker, timeout: float = 30.0) -> None:
        self._producer = broker.producer("tieline-dlq", {"linger.ms": "0"})
        self._timeout = timeout

    def write(self, records: Sequence[ProducerRecord]) -> Delivery:
        """Write records, and return what became of them. Raises ``RetriableError``."""
        self._producer.send(Unit(records))
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            for delivery in self._producer.poll(min(left, 0.5)):
                return delivery
        raise RetriableError(f"the broker has confirmed nothing for {self._timeout:g} s")

    def close(self) -> None:
        """Close the producer."""
        self._producer.close(1.0)
