"""A replay of dead letters: a job that can be paused, cancelled, killed and continued.

A letter's record is written first, and its mark when the broker has confirmed the record. A job that was
killed between the two finds its records in the target by the headers of the job, and writes only the marks.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from tieline.api import StartupError
from tieline.broker.internal import replay_topic
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord
from tieline.dead_letters.groups import letter_key
from tieline.dead_letters.jobs import (
    AGAIN,
    CANCELLED,
    DELIVERED,
    DONE,
    FILTERED,
    PAUSED,
    RUNNING,
    SENT,
    WAITING,
    Job,
    Mark,
    job_record,
    mark_record,
)
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.record import JOB_HEADER, REPLAY_OF_HEADER
from tieline.runtime.errors.dead_letters import create_replay_topic
from tieline.runtime.errors.failed_records import cause_of
from tieline.runtime.task.clock import Clock
from tieline.topics.dead_letters.conversion import Conversions, SinkResult, SourceResult
from tieline.topics.dead_letters.ledger import Pace, ReplayLedger
from tieline.topics.dead_letters.reading import JobLog, UnitWriter, read_letters, read_topic
from tieline.topics.dead_letters.sink_progress import SinkProgress, written_since
from tieline.topics.dead_letters.targets import CommandTopics, Step, Targets

_LOOK_EVERY = 1.0  # seconds between two looks for requests while nothing else happens
_REPORT_EVERY = 5.0  # seconds between two records of a job's progress


class Replay:
    """Runs one job. Used by one thread.

    ``report`` gets the ledger and the state from time to time, ``progress`` the number of letters read.
    ``stop``: set by another thread or a signal to cancel the job.
    """

    def __init__(
        self,
        broker: Broker,
        log: JobLog,
        job: Job,
        conversions: Conversions,
        commands: CommandTopics,
        clock: Clock | None = None,
    ) -> None:
        self.job = job
        self.stop = threading.Event()
        self.report: Callable[[ReplayLedger, str], None] = lambda ledger, state: None
        self.progress: Callable[[int], None] = lambda number: None
        self.ledger = ReplayLedger()
        self._broker = broker
        self._log = log
        self._conversions = conversions
        self._commands = commands
        self._clock = clock or Clock()
        self._targets = Targets(broker, job, conversions, self._clock.wall_ms)
        self._sinks = SinkProgress(broker, conversions.plans)
        self._found: dict[str, dict[str, tuple[str, int, int]]] = {}
        """What earlier runs of the job wrote, by topic and by the id of the letter."""
        self._known_topics: set[str] = set()
        self._continued = job.selected > 0
        self._counted = False
        self._started = self._clock.wall_ms()
        self._next_report = 0.0

    def count(self) -> ReplayLedger:
        """Return how many letters the job is about, and those that it refuses. Changes nothing."""
        ledger = ReplayLedger()
        self._sinks.clear()
        for letter, mark in self._selected(ledger.refused):
            ledger.selected += 1
            self._enter(ledger, letter, mark)
        self.ledger = ledger
        self._counted = True
        return ledger

    def preview(self, limit: int) -> Iterator[DeadLetter]:
        """Yield at most ``limit`` letters that would be replayed."""
        for letter, mark in self._selected(Counter()):
            if mark is None:
                if limit <= 0:
                    return
                limit -= 1
                yield letter

    def convert(self, letter: DeadLetter) -> SinkResult | SourceResult | None:
        """Return what the present configuration makes of a letter; ``None`` if its bytes go to a topic."""
        return self._targets.convert(letter)

    def run(self, rate: float, patience: float) -> ReplayLedger:
        """Replay what is open, then wait for the sinks, and return the ledger.

        ``rate``: letters a second. ``patience``: how many seconds to wait while no sink makes progress.
        Raises ``RetriableError`` if the broker is unavailable; the job can be continued.
        """
        if not self._counted:
            self.count()
        self._save(RUNNING)
        writer = UnitWriter(self._broker)
        pace = Pace(rate, self._clock)
        try:
            batch: list[DeadLetter] = []
            for letter, mark in self._selected(Counter()):
                if mark is not None:
                    continue
                batch.append(letter)
                if len(batch) >= pace.batch:
                    self._write(writer, batch)
                    if self._pause(pace.after(len(batch))):
                        return self._finish(CANCELLED)
                    batch = []
            if batch:
                self._write(writer, batch)
        finally:
            writer.close()
        if self._wait_for_sinks(patience):
            return self._finish(CANCELLED)
        return self._finish(DONE)

    def look(self) -> ReplayLedger:
        """Return the exact ledger now."""
        self.count()
        self._sinks.settle(self.ledger, self.job)
        return self.ledger

    def _selected(self, refused: Counter[str]) -> Iterator[tuple[DeadLetter, Mark | None]]:
        """Yield each letter of the job once, with the mark that the job gave it. Count what is refused."""
        seen: set[bytes] = set()
        job = self.job
        for letter in read_letters(self._broker, job.letters, ends=job.ends, progress=self.progress):
            if not job.selection.includes(letter) or (key := letter_key(letter)) in seen:
                continue
            seen.add(key)
            mark = self._log.jobs.mark(job.letters, letter.id)
            if mark is not None:
                if mark.job == job.id:
                    yield letter, mark
                continue
            reason = self._refusal(letter)
            if reason:
                refused[reason] += 1
            else:
                yield letter, None

    def _refusal(self, letter: DeadLetter) -> str:
        if letter.attempts >= self.job.max_attempts:
            return (
                f"it was replayed {letter.attempts} time(s) already, and at most {self.job.max_attempts} are "
                "allowed. Repair the cause, then raise --max-attempts"
            )
        return self._commands.refusal(letter) or self._targets.refusal(letter)

    def _enter(self, ledger: ReplayLedger, letter: DeadLetter, mark: Mark | None) -> None:
        if mark is None:
            return
        if mark.outcome == SENT and mark.place is not None:
            ledger.waiting += 1
            self._sinks.note(mark.place, letter.id)
        elif mark.outcome == DELIVERED:
            ledger.delivered += 1
        elif mark.outcome == FILTERED:
            ledger.filtered += 1
        elif mark.outcome == AGAIN:
            ledger.again += 1

    def _write(self, writer: UnitWriter, batch: list[DeadLetter]) -> None:
        """Write the records of a batch, then their marks."""
        outcomes: list[tuple[DeadLetter, str, tuple[str, int, int] | None]] = []
        steps: list[tuple[DeadLetter, Step]] = []
        for letter in batch:
            step = self._targets.step(letter)
            if step.record is None:
                outcomes.append((letter, step.outcome, None))
                continue
            self._prepare_topic(step.record.topic, letter)
            place = self._found_in(step.record.topic).get(letter.id)
            if place is not None:
                outcomes.append((letter, step.outcome, place))
            else:
                steps.append((letter, step))
        while steps:
            delivery = writer.write([step.record for _, step in steps if step.record is not None])
            failed: list[tuple[DeadLetter, Step]] = []
            for index, (letter, step) in enumerate(steps):
                metadata = delivery.metadata[index]
                if index not in delivery.failures and metadata is not None:
                    outcomes.append(
                        (letter, step.outcome, (metadata.topic, metadata.partition, metadata.offset))
                    )
                    continue
                error = delivery.failures[index]
                again = None if step.outcome == AGAIN else self._targets.failed(letter, error)
                if again is not None:
                    failed.append((letter, again))
                else:
                    self.ledger.refused[f"the broker refuses its record: {cause_of(error)}"] += 1
            steps = failed
        self._mark(outcomes)

    def _mark(self, outcomes: list[tuple[DeadLetter, str, tuple[str, int, int] | None]]) -> None:
        now = self._clock.wall_ms()
        topic = self.job.letters
        marks = [(letter, Mark(self.job.id, outcome, now, place)) for letter, outcome, place in outcomes]
        if marks:
            self._log.write([mark_record(letter, topic, mark) for letter, mark in marks])
        for letter, mark in marks:
            self._log.jobs.note(topic, letter.id, mark)
            self._enter(self.ledger, letter, mark)
        self._report(RUNNING)

    def _prepare_topic(self, topic: str, letter: DeadLetter) -> None:
        if topic in self._known_topics:
            return
        if owner := self._commands.owner(topic):
            raise StartupError(
                f"{topic} is a topic of commands, of the connector {owner}; nothing is replayed to it"
            )
        connector = self._targets.connector(letter)
        if topic == replay_topic(connector):
            create_replay_topic(self._broker, connector, -1)
        else:
            self._broker.create_topic(topic)
        self._known_topics.add(topic)

    def _found_in(self, topic: str) -> Mapping[str, tuple[str, int, int]]:
        """Return what earlier runs of this job wrote to a topic, by the id of the letter."""
        if topic not in self._found:
            found: dict[str, tuple[str, int, int]] = {}
            if self._continued:
                for record in read_topic(self._broker, topic, written_since(self.job)):
                    letter_id = self._written_for(record)
                    if letter_id is not None:
                        found.setdefault(letter_id, (record.topic, record.partition, record.offset))
            self._found[topic] = found
        return self._found[topic]

    def _written_for(self, record: ConsumedRecord) -> str | None:
        """Return the id of the letter for which this job wrote a record; ``None`` for other records."""
        headers = dict(record.headers)
        if headers.get(JOB_HEADER) == self.job.id.encode():
            return (headers.get(REPLAY_OF_HEADER) or b"").decode("utf-8", "replace")
        return None

    def _pause(self, seconds: float) -> bool:
        """Wait, and obey requests. Return whether the job is cancelled."""
        due = self._clock.now() + seconds
        paused = False
        while True:
            request = self._log.read().requests.get(self.job.id)
            wanted = request.state if request is not None and request.at >= self._started else RUNNING
            if wanted == CANCELLED or self.stop.is_set():
                return True
            if (wanted == PAUSED) != paused:
                paused = wanted == PAUSED
                self._save(PAUSED if paused else RUNNING)
            left = due - self._clock.now()
            if not paused and left <= 0:
                return False
            self._report(PAUSED if paused else RUNNING)
            if self._clock.wait(self.stop, _LOOK_EVERY if paused else min(left, _LOOK_EVERY)):
                return True

    def _wait_for_sinks(self, patience: float) -> bool:
        """Wait until the sinks have handled what was written for them. Return whether it is cancelled."""
        handled = self._sinks.handled()
        deadline = self._clock.now() + patience
        while handled < self._sinks.waiting and self._clock.now() < deadline:
            if self._pause(_LOOK_EVERY):
                return True
            before, handled = handled, self._sinks.handled()
            if handled > before:
                deadline = self._clock.now() + patience
        return False

    def _finish(self, state: str) -> ReplayLedger:
        self._sinks.settle(self.ledger, self.job)
        if state == DONE and self.ledger.remaining:
            state = WAITING if self.ledger.remaining == self.ledger.waiting else CANCELLED
        self._save(state)
        self.report(self.ledger, state)
        return self.ledger

    def _report(self, state: str) -> None:
        self.report(self.ledger, state)
        if self._clock.now() >= self._next_report:
            self._save(state)

    def _save(self, state: str) -> None:
        self._next_report = self._clock.now() + _REPORT_EVERY
        self.job = replace(
            self.job,
            state=state,
            updated=self._clock.wall_ms(),
            selected=self.ledger.selected,
            counts=self.ledger.counts(),
        )
        self._log.write([job_record(self.job)])
