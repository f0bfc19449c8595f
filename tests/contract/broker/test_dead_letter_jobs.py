"""Jobs on dead letters on both backends: what is stored is found again, and a killed job is continued."""

from __future__ import annotations

import pytest

from tieline.api import StartupError
from tieline.dead_letters.jobs import CANCELLED, DONE, DROP, PAUSED, REPLAY, RUNNING, SENT, Mark, mark_record
from tieline.dead_letters.letter import Cause, DeadLetter, consumed_id
from tieline.dead_letters.record import letter_record
from tieline.dead_letters.selection import Selection
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.testing.clock import FakeClock
from tieline.topics.dead_letters import work
from tieline.topics.dead_letters.conversion import Conversions
from tieline.topics.dead_letters.reading import JobLog, read_topic
from tieline.topics.dead_letters.replay import Replay
from tieline.topics.dead_letters.targets import CommandTopics
from tieline.topics.dead_letters.work import begin_replay, drop_letters, list_causes, new_job, request


class KilledError(Exception):
    """The process ends here."""


EVERYTHING = {"everything": "yes"}


@pytest.fixture
def dead(kit):
    """A topic with ten letters, the last of which is there twice."""
    topic = kit.topic()
    letters = [letter(n) for n in (*range(10), 9)]
    kit.produce(*[letter_record(each, topic) for each in letters])
    return topic


@pytest.fixture
def log(kit):
    log = JobLog(kit.broker)
    kit.at_close.append(log.close)
    log.read()
    return log


def letter(number):
    return DeadLetter(
        consumed_id("store", "bus", 0, number), "bus", 0, number, b"%d" % number, None, (), 5,
        Cause("TASK_PUT", "ValueError", "no"), "store", 0,
    )  # fmt: skip


def fresh(kit):
    """Another process's view of the jobs."""
    other = JobLog(kit.broker)
    try:
        return other.read()
    finally:
        other.close()


def job(kit, dead, target, action=REPLAY):
    return new_job(kit.broker, action, dead, Selection(), EVERYTHING, to_topic=target)


def replay(kit, log, wanted):
    conversions = Conversions({}, kit.broker)
    commands = CommandTopics(kit.broker, (), TopicSchemaStore(kit.broker))
    return Replay(kit.broker, log, begin_replay(log, wanted), conversions, commands, FakeClock(step=0.01))


def values(kit, topic):
    return [record.value for record in read_topic(kit.broker, topic)]


def test_a_job_its_marks_and_its_ledger_are_stored(kit, dead, log):
    target = kit.topic()
    running = replay(kit, log, job(kit, dead, target))
    ledger = running.run(0.0, 0.0)
    assert (ledger.selected, ledger.delivered, ledger.remaining) == (10, 10, 0)
    assert values(kit, target) == [b"%d" % n for n in range(10)]
    jobs = fresh(kit)
    stored = jobs.jobs[running.job.id]
    assert (stored.state, stored.counts["replayed"], stored.counts["delivered"]) == (DONE, 10, 10)
    assert all(jobs.mark(dead, letter(n).id) is not None for n in range(10))
    assert list_causes(kit.broker, dead, jobs, Selection()) == []


def test_a_job_that_was_killed_anywhere_is_continued_and_writes_each_letter_once(kit, dead, log, monkeypatch):
    target = kit.topic()
    wanted = job(kit, dead, target)
    kills = {"left": 3}
    write_marks = vars(Replay)["_mark"]

    def mark(running, outcomes):
        kills["left"] -= 1
        if not kills["left"]:
            raise KilledError
        write_marks(running, outcomes)

    monkeypatch.setattr(Replay, "_mark", mark)
    with pytest.raises(KilledError):
        replay(kit, log, wanted).run(4.0, 0.0)  # two letters at once: six are written, four are marked
    assert len(values(kit, target)) == 6
    again = replay(kit, JobLog(kit.broker), job(kit, dead, target))
    assert again.job.id == wanted.id
    ledger = again.run(0.0, 0.0)
    assert (ledger.selected, ledger.delivered, ledger.remaining) == (10, 10, 0)
    assert sorted(values(kit, target)) == [b"%d" % n for n in range(10)]


def test_letters_that_come_after_the_begin_belong_to_the_next_job(kit, dead, log):
    target = kit.topic()
    wanted = job(kit, dead, target)
    kit.produce(letter_record(letter(10), dead))
    assert replay(kit, log, wanted).run(0.0, 0.0).selected == 10
    assert replay(kit, log, job(kit, dead, target)).run(0.0, 0.0).selected == 1


def test_a_replay_is_paused_resumed_and_cancelled_by_another_process(kit, dead, log, monkeypatch):
    monkeypatch.setattr(work, "_is_alive", lambda pid: True)
    target = kit.topic()
    running = replay(kit, log, job(kit, dead, target))
    other = JobLog(kit.broker)
    kit.at_close.append(other.close)
    states: list[str] = []

    def ask(state):
        request(other, running.job.id, state)
        kit.until(lambda: getattr(log.read().requests.get(running.job.id), "state", "") == state)

    def obey(ledger, state):
        if ledger.done == 2 and states == [RUNNING]:
            ask(PAUSED)
        if states[-1:] != [state] and state == PAUSED:
            assert fresh(kit).jobs[running.job.id].state == PAUSED
            ask(RUNNING)
        if states[-1:] == [PAUSED] and state == RUNNING:
            ask(CANCELLED)
        if states[-1:] != [state]:
            states.append(state)

    running.report = obey
    ledger = running.run(2.0, 0.0)
    assert states == [RUNNING, PAUSED, RUNNING, CANCELLED]
    assert 0 < ledger.delivered < 10
    assert ledger.delivered + ledger.remaining == 10
    with pytest.raises(StartupError, match="does not run"):
        request(other, running.job.id, PAUSED)


def test_dropped_letters_are_marked_with_the_reason_and_stay(kit, dead, log):
    wanted = new_job(kit.broker, DROP, dead, Selection(), EVERYTHING, reason="a test")
    assert drop_letters(kit.broker, log, wanted) == 10
    stored = fresh(kit).jobs[wanted.id]
    assert (stored.state, stored.reason, stored.counts) == (DONE, "a test", {"dropped": 10})
    assert len(values(kit, dead)) == 11
    assert drop_letters(kit.broker, log, new_job(kit.broker, DROP, dead, Selection(), EVERYTHING)) == 0


def test_a_mark_of_another_job_takes_a_letter_out_of_a_replay(kit, dead, log):
    log.write([mark_record(letter(4), dead, Mark("other", SENT, 1, ("x", 0, 0)))])
    log.read()
    target = kit.topic()
    assert replay(kit, log, job(kit, dead, target)).run(0.0, 0.0).selected == 9
    assert b"4" not in values(kit, target)


def test_nothing_is_created_by_reading_jobs_before_the_first_one(kit):
    before = set(kit.broker.topic_names())
    assert fresh(kit).jobs is not None
    assert set(kit.broker.topic_names()) == before
