"""Jobs on dead letters, and the marks that they leave: the records of one compacted topic. Pure.

A mark says what became of one letter. The letter itself is never changed or deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from tieline.broker.internal import DEAD_LETTER_JOBS as TOPIC
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.selection import Selection

REPLAY, DROP = "replay", "drop"

RUNNING, PAUSED, WAITING, CANCELLED, DONE = "running", "paused", "waiting", "cancelled", "done"
"""The states of a job. A killed one stays ``running`` or ``paused``.

``waiting``: all is written for the connector, which has not handled all of it yet.
"""

SENT, DELIVERED, FILTERED, AGAIN, DROPPED = "sent", "delivered", "filtered", "dead-lettered again", "dropped"
"""What a mark says. ``sent``: written to the connector's replay topic, where its group shows the rest."""

_SHORT = 200
_ID = 1_000
_DIGITS = 16


@dataclass(frozen=True)
class Job:
    """A replay or a drop: who wants what, and how far it is.

    ``letters``: the dead letter topic. ``by``: user@host. ``at``: when it began, in ms since 1970.
    ``asked``: the conditions as the operator gave them; the times in ``selection`` are absolute.
    ``ends``: the next offset of each partition of that topic then; later letters are not part of it.
    ``to_topic`` and ``to_connector``: the target, both empty for the connectors of the letters.
    """

    id: str
    action: str
    letters: str
    by: str
    at: int
    asked: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    ends: Mapping[str, int] = field(default_factory=dict)
    to_topic: str = ""
    to_connector: str = ""
    max_attempts: int = 3
    reason: str = ""
    state: str = RUNNING
    host: str = ""
    pid: int = 0
    updated: int = 0
    """When the process that runs it last reported, in ms since 1970."""
    selected: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """The letters by what became of them, when it last reported."""

    def continues(self, other: Job) -> bool:
        """Return whether this is the same work as another job that is not done."""
        return other.state != DONE and self._work == other._work

    @property
    def _work(self) -> tuple[object, ...]:
        target = self.to_topic, self.to_connector
        return self.action, self.letters, dict(self.asked), target, self.max_attempts


class Mark(NamedTuple):
    """What became of one letter: the job, the outcome, and the record that the replay wrote, if any."""

    job: str
    outcome: str
    at: int
    place: tuple[str, int, int] | None = None

    @property
    def state(self) -> str:
        """``replayed`` or ``dropped``."""
        return DROPPED if self.outcome == DROPPED else "replayed"


class _StoredMark(NamedTuple):
    mark: Mark
    letter: str
    topic: str


class Request(NamedTuple):
    """What an operator asks of a job: ``running``, ``paused`` or ``cancelled``."""

    state: str
    by: str
    at: int


class Jobs:
    """The fold of the topic: all jobs, marks and requests. What cannot be read is passed over."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.requests: dict[str, Request] = {}
        self._marks: dict[bytes, Mark] = {}

    def visit(self, record: ConsumedRecord) -> None:
        """Take in the next record of the topic. Never raises: other programs may have written it."""
        kind, _, name = (record.key or b"").partition(b" ")
        try:
            if kind == b"mark":
                self._marks[name] = msgspec.json.decode(record.value or b"", type=_StoredMark).mark
            elif kind == b"job":
                job = msgspec.json.decode(record.value or b"", type=Job)
                self.jobs[job.id] = job
            elif kind == b"request":
                request = msgspec.json.decode(record.value or b"", type=Request)
                self.requests[name.decode()] = request
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return

    def mark(self, topic: str, letter_id: str) -> Mark | None:
        """Return the mark of a letter; ``None`` if it is open."""
        return self._marks.get(_letter_name(topic, letter_id))

    def note(self, topic: str, letter_id: str, mark: Mark) -> None:
        """Enter a mark that was just written."""
        self._marks[_letter_name(topic, letter_id)] = mark

    def to_continue(self, wanted: Job) -> Job | None:
        """Return the latest job that does the same work and is not done."""
        same = [job for job in self.jobs.values() if wanted.continues(job)]
        return max(same, key=lambda job: job.at, default=None)


def job_record(job: Job) -> ProducerRecord:
    """Return the record of a job."""
    return ProducerRecord(TOPIC, msgspec.json.encode(job), f"job {job.id}".encode())


def mark_record(letter: DeadLetter, topic: str, mark: Mark) -> ProducerRecord:
    """Return the record of a mark. ``topic``: that of the letter."""
    value = msgspec.json.encode(_StoredMark(mark, _storable(letter.id[:_ID]), topic))
    return ProducerRecord(TOPIC, value, b"mark " + _letter_name(topic, letter.id))


def request_record(job: str, request: Request) -> ProducerRecord:
    """Return the record of a request to a job."""
    return ProducerRecord(TOPIC, msgspec.json.encode(request), f"request {job}".encode())


def is_stale(job: Job, host: str, alive: bool, now: int, patience_ms: int = 60_000) -> bool:
    """Return whether the process that ran a job has ended, so that another may continue it.

    ``alive``: whether its process runs, which only its own host knows.
    """
    if job.state in (WAITING, CANCELLED, DONE):
        return True
    if job.host == host:
        return not alive
    return now - job.updated > patience_ms


def short_reason(text: str) -> str:
    """Return a reason as it is stored: on one line, and not long."""
    return " ".join(text.split())[:_SHORT]


def _letter_name(topic: str, letter_id: str) -> bytes:
    hashed = hashlib.blake2b(digest_size=_DIGITS)
    for part in (topic, letter_id):
        raw = part.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:%b" % (len(raw), raw))
    return hashed.hexdigest().encode()


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
