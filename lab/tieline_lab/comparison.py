"""The verdict on a run's readings: whether a message was lost or doubled. Pure functions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Message(NamedTuple):
    """A message of the bus, in the form that the observer and the store share. Equal messages are counted."""

    topic: str
    time: str
    """Its header TimeStamp; empty if it has none."""
    body: str
    """Canonical JSON with sorted keys."""

    @classmethod
    def of(cls, topic: str, headers: Mapping[str, Any], body: Any) -> Message:
        """Return a message that was received from the bus, or read from the layout ``cloudagent``."""
        return cls(topic, str(headers.get("TimeStamp", "")), json.dumps(body, sort_keys=True, default=str))


class ExpectedReadings(NamedTuple):
    """The plausible number of readings of each of these topics, from ``least`` to ``most``."""

    topics: Sequence[str]
    least: int
    most: int


def expect_readings(topics: Sequence[str], interval: float, seconds: float) -> ExpectedReadings:
    """Return what an observer sees in ``seconds`` of devices that are read every ``interval`` seconds.

    ``seconds`` begin with the first message, which is one reading; each further interval brings one. One
    more or less is allowed, since a reading may fall just inside or outside at the end. One in twenty may be
    absent, since the driver omits a reading if the machine is too busy.
    """
    intervals = seconds / interval
    return ExpectedReadings(topics, math.floor(intervals * 0.95), math.ceil(intervals) + 2)


@dataclass(frozen=True)
class Findings:
    """The messages and documents of a run at its end."""

    seen: Counter[Message]
    """The messages that the observer saw."""
    stored: Counter[Message]
    """The documents of the layout ``cloudagent``."""
    readings: int
    """The number of documents of the layout ``reading``."""
    received: int
    """What the bus source has spooled since its start, which was before the observer's."""
    dropped: int
    """The number of messages that any connector dropped or quarantined."""
    expected: ExpectedReadings


class Verdict(NamedTuple):
    """The numbers of a run, and a sentence for each fault; without faults the run is good."""

    numbers: dict[str, int]
    faults: list[str]

    def combine(self, other: Verdict) -> Verdict:
        """Return a verdict with the numbers and faults of both."""
        return Verdict({**self.numbers, **other.numbers}, [*self.faults, *other.faults])


def judge(findings: Findings) -> Verdict:
    """Compare what was seen with what is stored.

    ``missing`` counts messages that were seen and are not stored. ``duplicates`` counts those that are stored
    more often than they were seen; messages from before the observer cannot be compared.
    """
    missing = findings.seen - findings.stored
    doubled = find_surplus(findings.stored, findings.seen)
    numbers = {
        "seen": findings.seen.total(),
        "in": findings.received,
        "documents": findings.stored.total(),
        "duplicates": doubled.total(),
        "missing": missing.total(),
        "dropped": findings.dropped,
        "readings": findings.readings,
    }
    faults = [*_find_faults(numbers), *find_implausible(findings.seen, findings.expected)]
    return Verdict(numbers, faults + [f"missing: {summarize(message)}" for message in list(missing)[:3]])


def find_surplus(actual: Counter[Message], expected: Counter[Message]) -> Counter[Message]:
    """Return how much more often than expected each expected message occurs."""
    return +Counter({message: actual[message] - times for message, times in expected.items()})


def count_dropped(ledgers: Iterable[Mapping[str, Any]]) -> int:
    """Return the sum of the counters of dropped and quarantined messages in these ledgers."""
    return sum(
        number
        for ledger in ledgers
        for name, number in ledger["counters"].items()
        if name.startswith(("dropped", "quarantined"))
    )


def check_second_source(ledger: Mapping[str, Any] | None) -> list[str]:
    """Return the faults of the source ``command-to-cloud``, which must deliver all that it receives."""
    received = ledger["counters"].get("spooled", 0) if ledger else 0
    delivered = ledger["delivered"] if ledger else 0
    if received and received == delivered:
        return []
    return [f"command-to-cloud received {received} messages from the bus and delivered {delivered}"]


def summarize(message: Message) -> str:
    """Return a message's topic, time and the beginning of its body."""
    return f"{message.topic} of {message.time or 'no time'}: {message.body[:80]}"


def _find_faults(numbers: Mapping[str, int]) -> list[str]:
    faults = []
    if not numbers["seen"]:
        faults.append("no message was seen on the bus")
    if numbers["missing"]:
        faults.append(f"{numbers['missing']} of {numbers['seen']} messages seen on the bus are not stored")
    if numbers["duplicates"]:
        faults.append(f"{numbers['duplicates']} documents are stored more often than their message was seen")
    if numbers["dropped"]:
        faults.append(f"{numbers['dropped']} messages were dropped or quarantined")
    for name, collection in (("documents", "tieline.cloudagent"), ("readings", "tieline.readings")):
        if numbers[name] != numbers["in"]:
            faults.append(
                f"the bus source received {numbers['in']} messages, "
                f"but {collection} has {numbers[name]} documents"
            )
    return faults


def find_implausible(seen: Counter[Message], expected: ExpectedReadings) -> list[str]:
    """Return a fault for each topic of which implausibly few or many messages were seen."""
    by_topic = Counter[str]()
    for message, times in seen.items():
        by_topic[message.topic] += times
    return [
        f"{by_topic[topic]} messages of {topic} were seen; {expected.least} to {expected.most} are plausible"
        for topic in expected.topics
        if not expected.least <= by_topic[topic] <= expected.most
    ]
