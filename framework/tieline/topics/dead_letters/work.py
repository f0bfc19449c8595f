"""What commands and pages do with dead letters: list causes, find letters, drop them, begin a replay."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tieline.api import StartupError
from tieline.broker.port import Broker
from tieline.dead_letters.groups import OPEN, CauseGroup, Grouping, letter_key
from tieline.dead_letters.jobs import (
    DONE,
    DROPPED,
    REPLAY,
    RUNNING,
    Job,
    Jobs,
    Mark,
    Request,
    is_stale,
    job_record,
    mark_record,
    request_record,
    short_reason,
)
from tieline.dead_letters.letter import DeadLetter
from tieline.dead_letters.selection import Selection
from tieline.runtime.task.clock import Clock
from tieline.topics.dead_letters.reading import JobLog, read_letters

Progress = Callable[[int], None]
wall_ms = Clock().wall_ms
_BATCH = 500
_TIMEOUT = 10.0


def list_causes(
    broker: Broker,
    topic: str,
    jobs: Jobs,
    selection: Selection,
    *,
    closed: bool = False,
    progress: Progress = lambda number: None,
) -> list[CauseGroup]:
    """Return the letters of a topic by cause. ``closed``: also those that were replayed or dropped.

    ``progress`` gets the number of letters that were read, from time to time.
    """
    grouping = Grouping()
    for letter, mark in _selected(broker, topic, jobs, selection, closed, progress):
        grouping.add(letter, OPEN if mark is None else mark.state)
    return grouping.groups


def find_letters(
    broker: Broker,
    topic: str,
    jobs: Jobs,
    selection: Selection,
    *,
    closed: bool = False,
    progress: Progress = lambda number: None,
) -> Iterator[tuple[DeadLetter, Mark | None]]:
    """Yield the selected letters of a topic with their marks, each once; see ``list_causes``."""
    seen: set[bytes] = set()
    for letter, mark in _selected(broker, topic, jobs, selection, closed, progress):
        key = letter_key(letter)
        if key not in seen:
            seen.add(key)
            yield letter, mark


def _selected(
    broker: Broker, topic: str, jobs: Jobs, selection: Selection, closed: bool, progress: Progress
) -> Iterator[tuple[DeadLetter, Mark | None]]:
    """Yield the selected letters with their marks, as often as they were written."""
    for letter in read_letters(broker, topic, progress=progress):
        mark = jobs.mark(topic, letter.id)
        if (closed or mark is None) and selection.includes(letter):
            yield letter, mark


def new_job(
    broker: Broker,
    action: str,
    topic: str,
    selection: Selection,
    asked: Mapping[str, str],
    *,
    to_topic: str = "",
    to_connector: str = "",
    max_attempts: int = 3,
    reason: str = "",
) -> Job:
    """Return a job of this process about what the topic holds now."""
    now = wall_ms()
    ends = {str(p.partition): s.end for p, s in broker.offsets.spans([topic], _TIMEOUT).items()}
    return Job(
        f"{now // 1000}-{secrets.token_hex(3)}",
        action,
        topic,
        operator(),
        now,
        asked=asked,
        selection=selection,
        ends=ends,
        to_topic=to_topic,
        to_connector=to_connector,
        max_attempts=max_attempts,
        reason=short_reason(reason),
        host=socket.gethostname(),
        pid=os.getpid(),
        updated=now,
    )


def begin_replay(log: JobLog, wanted: Job) -> Job:
    """Return the job to run: the same one if it was begun before and is not done, else a new one.

    Raises ``StartupError`` if another process replays letters of this topic now.
    """
    jobs = log.read()
    for job in jobs.jobs.values():
        if job.action == REPLAY and job.letters == wanted.letters and not _is_stale(job):
            raise StartupError(
                f"the replay {job.id} of {job.letters} runs: process {job.pid} of {job.by}. Wait for its "
                f"end, or cancel it: tieline dlq cancel {job.id}"
            )
    known = jobs.to_continue(wanted)
    if known is None:
        return wanted
    return replace(
        known, host=wanted.host, pid=wanted.pid, by=known.by, state=RUNNING, updated=wanted.updated
    )


def drop_letters(broker: Broker, log: JobLog, job: Job) -> int:
    """Mark the letters of a job as dropped, and return their number. The letters stay where they are."""
    number = 0
    batch: list[DeadLetter] = []
    log.write([job_record(job)])

    def write() -> None:
        marks = [(letter, Mark(job.id, DROPPED, wall_ms())) for letter in batch]
        log.write([mark_record(letter, job.letters, mark) for letter, mark in marks])
        for letter, mark in marks:
            log.jobs.note(job.letters, letter.id, mark)

    for letter, _ in find_letters(broker, job.letters, log.read(), job.selection):
        if letter.stored is None or letter.stored[2] >= job.ends.get(str(letter.stored[1]), 0):
            continue
        batch.append(letter)
        number += 1
        if len(batch) >= _BATCH:
            write()
            batch = []
    if batch:
        write()
    counts = {"dropped": number}
    log.write([job_record(replace(job, state=DONE, updated=wall_ms(), selected=number, counts=counts))])
    return number


def request(log: JobLog, job_id: str, state: str) -> Job:
    """Ask a running job to pause, to continue or to end; return the job. Raises ``StartupError``."""
    job = log.read().jobs.get(job_id)
    if job is None:
        raise StartupError(f"there is no job {job_id}; tieline dlq jobs shows them")
    if _is_stale(job):
        raise StartupError(
            f"the job {job_id} does not run ({job.state}). To continue it, give its replay command again"
        )
    log.write([request_record(job_id, Request(state, operator(), wall_ms()))])
    return job


def operator() -> str:
    """Return who runs this process: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _is_stale(job: Job) -> bool:
    return is_stale(job, socket.gethostname(), _is_alive(job.pid), wall_ms())


def _is_alive(pid: int) -> bool:
    """Return whether a process of this host runs. This process itself does not count."""
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True
