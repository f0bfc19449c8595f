"""Whether a run of the lab lost or doubled anything: what was seen, what is stored, and the verdict. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Message(NamedTuple):
    """A message of the bus as both sides know it. Two equal ones are counted, not merged."""

    topic: str
    time: str
    """Its header TimeStamp; empty: it has none."""
    body: str
    """Canonical JSON: keys sorted."""

    @classmethod
    def of(cls, topic: str, headers: Mapping[str, Any], body: Any) -> Message:
        """From what came over the bus, or from a document of the layout ``cloudagent``."""
        return cls(topic, str(headers.get("TimeStamp", "")), json.dumps(body, sort_keys=True, default=str))


class Expected(NamedTuple):
    """How many readings of each of these topics are plausible, from ``least`` to ``most``."""

    topics: Sequence[str]
    least: int
    most: int


def expected(topics: Sequence[str], interval: float, seconds: float) -> Expected:
    """What devices bring that are read every ``interval`` seconds, when one listens for ``seconds``.

    ``seconds`` begin with the first message, which is one reading; each further interval brings one. One
    more or less is allowed, since a reading may fall just inside or outside at the end, and one in twenty
    less, since the driver leaves out a reading when the machine is too busy to be in time.
    """
    intervals = seconds / interval
    return Expected(topics, math.floor(intervals * 0.95), math.ceil(intervals) + 2)


@dataclass(frozen=True)
class Findings:
    """What a run has left behind, when everything is at rest."""

    seen: Counter[Message]
    """By the observer."""
    stored: Counter[Message]
    """The documents of the layout ``cloudagent``."""
    readings: int
    """The number of documents of the layout ``reading``."""
    received: int
    """What the bus source has put into its spool since its start, which was before the observer's."""
    dropped: int
    """What any connector has dropped or put into quarantine."""
    expected: Expected
    troubles: Sequence[str] = field(default=())
    """What else went wrong: a failed connector, a worker that did not end well, …"""


class Verdict(NamedTuple):
    """The numbers, and a sentence for each thing that is wrong with them; none: nothing is."""

    numbers: dict[str, int]
    faults: list[str]

    def and_also(self, other: Verdict) -> Verdict:
        """Both in one."""
        return Verdict({**self.numbers, **other.numbers}, [*self.faults, *other.faults])


def judge(found: Findings) -> Verdict:
    """Compare both sides.

    ``missing``: seen and not stored. ``duplicates``: stored more often than seen, of the messages that were
    seen; of those that came before the observer there is nothing to compare with.
    """
    missing = found.seen - found.stored
    doubled = Counter({m: found.stored[m] - times for m, times in found.seen.items()})
    numbers = {
        "seen": found.seen.total(),
        "in": found.received,
        "documents": found.stored.total(),
        "duplicates": (+doubled).total(),
        "missing": missing.total(),
        "dropped": found.dropped,
        "readings": found.readings,
    }
    faults = [*_wrong(numbers), *_implausible(found.seen, found.expected), *found.troubles]
    return Verdict(numbers, faults + [f"missing: {shortly(message)}" for message in list(missing)[:3]])


def dropped(ledgers: Iterable[Mapping[str, Any]]) -> int:
    """What the counters of these connectors tell of drops and quarantines, of any reason."""
    return sum(
        number
        for ledger in ledgers
        for name, number in ledger["counters"].items()
        if name.startswith(("dropped", "quarantined"))
    )


def second_source(ledger: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with the source of ``command-to-cloud``: all that it took must be in its topic."""
    taken = ledger["counters"].get("spooled", 0) if ledger else 0
    delivered = ledger["delivered"] if ledger else 0
    if taken and taken == delivered:
        return []
    return [f"command-to-cloud took {taken} messages from the bus and delivered {delivered}"]


def _wrong(numbers: Mapping[str, int]) -> list[str]:
    faults = []
    if not numbers["seen"]:
        faults.append("no message was seen on the bus")
    if numbers["missing"]:
        faults.append(f"{numbers['missing']} of {numbers['seen']} messages seen on the bus are not stored")
    if numbers["duplicates"]:
        faults.append(f"{numbers['duplicates']} documents are stored more often than their message was seen")
    if numbers["dropped"]:
        faults.append(f"{numbers['dropped']} messages were dropped or put into quarantine")
    for name, where in (("documents", "tieline.cloudagent"), ("readings", "tieline.readings")):
        if numbers[name] != numbers["in"]:
            faults.append(f"{numbers['in']} messages came in, {where} has {numbers[name]} documents")
    return faults


def _implausible(seen: Counter[Message], plan: Expected) -> list[str]:
    by_topic = Counter[str]()
    for message, times in seen.items():
        by_topic[message.topic] += times
    return [
        f"{by_topic[topic]} messages of {topic} were seen; {plan.least} to {plan.most} are plausible"
        for topic in plan.topics
        if not plan.least <= by_topic[topic] <= plan.most
    ]


def shortly(message: Message) -> str:
    """A message in a sentence."""
    return f"{message.topic} of {message.time or 'no time'}: {message.body[:80]}"
