"""A kit that everything passes proves nothing: each of these connectors breaks one promise and is caught.

Each is the list connector below with one fault; the kit runs on it in a pytest of its own.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LISTS = """
import threading, time
import pytest
from tieline.api import *
from tieline.testing.contract import SinkContract, SourceContract

OUTSIDE, STORE = [], []

class Nothing(Config):
    pass

class ListSourceTask(SourceTask):
    def __init__(self, context, config):
        super().__init__(context, config)
        self.interrupted = threading.Event()

    def start(self):
        self.at = (self.context.offset({"list": "outside"}) or {"at": 0})["at"]

    def poll(self, max_records, max_wait):
        found = OUTSIDE[self.at : self.at + max_records]
        if not found:
            self.interrupted.wait(max_wait)
        return [self.record(value) for value in found]

    def record(self, value):
        self.at += 1
        return SourceRecord("t", value, source_partition={"list": "outside"}, source_offset={"at": self.at})

    def interrupt(self):
        self.interrupted.set()

class ListSource(SourceConnector):
    config_type = Nothing
    task_type = ListSourceTask

class ListSinkTask(SinkTask):
    waiting = ()

    def start(self):
        self.waiting = []

    def put(self, batch):
        bad = {index: ValueError("bad") for index, r in enumerate(batch) if r.value == "bad"}
        self.waiting += [r for r in batch if r.value != "bad"]
        if bad:
            raise DataError(bad)

    def flush(self, offsets):
        STORE.extend(r.value for r in self.waiting)
        self.waiting = []

    def close(self, partitions, lost):
        self.waiting = [r for r in self.waiting if (r.topic, r.partition) not in partitions]

class ListSink(SinkConnector):
    config_type = Nothing
    task_type = ListSinkTask

class TestSource(SourceContract):
    connector = ListSource
    soon = 0.3
    patience = 0.5

    @pytest.fixture
    def settings(self):
        OUTSIDE.clear()
        return {}

    @pytest.fixture
    def feed(self):
        return lambda count: OUTSIDE.extend(f"value {len(OUTSIDE) + n}" for n in range(count))

class TestSink(SinkContract):
    connector = ListSink
    soon = 0.3

    @pytest.fixture
    def settings(self):
        STORE.clear()
        return {}

    @pytest.fixture
    def written(self):
        return lambda: list(STORE)

    @pytest.fixture
    def bad_value(self):
        return "bad"
"""

IGNORES_MAX = """
def poll(self, max_records, max_wait, poll=ListSourceTask.poll):
    return poll(self, 1000, max_wait)
ListSourceTask.poll = poll
del TestSink
"""
SKIPS_ONE = """
TestSource.patience = 0.2
def start(self, start=ListSourceTask.start):
    start(self)
    self.at += bool(self.at)
ListSourceTask.start = start
del TestSink
"""
REPEATS_ONE = """
def record(self, value):
    before, self.at = self.at, self.at + 1
    return SourceRecord("t", value, source_partition={"list": "outside"}, source_offset={"at": before})
ListSourceTask.record = record
del TestSink
"""
HANGS_AFTER_INTERRUPT = """
TestSource.soon = 0.2
ListSourceTask.interrupt = lambda self: None
del TestSink
"""
LOSES_AN_INTERRUPT = """
TestSource.soon = 0.2
def poll(self, max_records, max_wait, poll=ListSourceTask.poll):
    self.interrupted.clear()
    return poll(self, max_records, max_wait)
ListSourceTask.poll = poll
del TestSink
"""
WAITS_TOO_LONG = """
TestSource.soon = 0.1
def poll(self, max_records, max_wait, poll=ListSourceTask.poll):
    return poll(self, max_records, max_wait + 0.15)
ListSourceTask.poll = poll
del TestSink
"""
READS_TWICE = """
def poll(self, max_records, max_wait, poll=ListSourceTask.poll):
    found = poll(self, max_records, max_wait)
    self.at -= bool(found) and self.at % 15 == 0
    return found
ListSourceTask.poll = poll
del TestSink
"""
OTHER_ID_EACH_TIME = """
def record(self, value, record=ListSourceTask.record):
    return record(self, value)._replace(headers=identity(time.monotonic_ns()))
ListSourceTask.record = record
del TestSink
"""
DEEP_OFFSET = """
def record(self, value, record=ListSourceTask.record):
    made = record(self, value)
    return made._replace(source_offset={"at": self.at, "more": [1]})
ListSourceTask.record = record
del TestSink
"""
NEEDS_A_START = """
ListSourceTask.stop = lambda self: str(self.at)
del TestSink
"""
LOSES_THE_LAST = """
def flush(self, offsets):
    STORE.extend(r.value for r in self.waiting[:-1])
    self.waiting = []
ListSinkTask.flush = flush
del TestSource
"""
FLUSHES_LATE = """
def stop(self):
    STORE.extend(r.value for r in self.waiting)
ListSinkTask.flush = lambda self, offsets: None
ListSinkTask.stop = stop
del TestSource
"""
SLEEPS = """
TestSink.soon = 0.05
def put(self, batch, put=ListSinkTask.put):
    time.sleep(0.06)
    put(self, batch)
ListSinkTask.put = put
del TestSource
"""
SWALLOWS = """
def put(self, batch, put=ListSinkTask.put):
    try:
        put(self, batch)
    except DataError:
        pass
ListSinkTask.put = put
del TestSource
"""
GIVES_UP_AT_THE_BAD_ONE = """
def put(self, batch):
    for index, r in enumerate(batch):
        if r.value == "bad":
            raise DataError({index: ValueError("bad")})
        self.waiting.append(r)
ListSinkTask.put = put
del TestSource
"""
TURNS_ROUND = """
def flush(self, offsets):
    STORE.extend(r.value for r in reversed(self.waiting))
    self.waiting = []
ListSinkTask.flush = flush
del TestSource
"""
NOT_AS_IDEMPOTENT_AS_IT_SAYS = """
TestSink.idempotent = True
del TestSource
"""
CALLS_ALL_SAFE = """
ListSinkTask.pre_commit = lambda self, offsets: offsets
del TestSource
"""
FORGETS_ALL_ON_CLOSE = """
def close(self, partitions, lost):
    self.waiting = []
ListSinkTask.close = close
del TestSource
"""
CHANGEABLE_DEFAULT = """
class Listed(Config):
    names: list = setting("names", [], doc="Names.")
ListSink.config_type = Listed
del TestSource
"""
UNDOCUMENTED = """
class Silent(Config):
    name: str = setting("name", "x", doc="")
ListSource.config_type = Silent
del TestSink
"""
TOO_MANY_TASKS = """
ListSource.task_configs = lambda self, max_tasks: [{}, {}]
del TestSink
"""


def run(pytester, fault):
    pytester.makepyfile(LISTS + fault)
    return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


def failed(result):
    reports = [line for line in result.outlines if line.startswith("FAILED ")]
    return {line.split("::")[2].split(" ")[0].split("[")[0].removeprefix("test_") for line in reports}


def test_a_connector_without_a_fault_passes(pytester):
    result = run(pytester, "")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed", "skipped"}
    assert outcomes["skipped"] == 2  # no settings of an outage


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (IGNORES_MAX, {"a_poll_returns_at_most_what_was_asked_for"}),
        (SKIPS_ONE, {"reading_goes_on_after_the_saved_offsets"}),
        (REPEATS_ONE, {"reading_goes_on_after_the_saved_offsets"}),
        (HANGS_AFTER_INTERRUPT, {"interrupt_ends_a_waiting_poll", "interrupt_before_a_poll_is_not_lost"}),
        (LOSES_AN_INTERRUPT, {"interrupt_before_a_poll_is_not_lost"}),
        (
            WAITS_TOO_LONG,
            {
                "a_poll_with_nothing_to_read_ends_in_time",
                "every_record_is_read_once_and_no_other",
                "reading_goes_on_after_the_saved_offsets",
            },
        ),
        (READS_TWICE, {"every_record_is_read_once_and_no_other"}),
        (OTHER_ID_EACH_TIME, {"reading_goes_on_after_the_saved_offsets"}),
        (DEEP_OFFSET, {"a_record_has_what_the_runtime_needs"}),
        (NEEDS_A_START, {"a_task_that_never_started_can_be_interrupted_and_stopped"}),
        (
            LOSES_THE_LAST,
            {
                "what_was_flushed_is_written_once",
                "a_flush_is_enough_without_an_orderly_end",
                "what_is_said_to_be_safe_is_written",
                "a_batch_that_comes_again_does_no_harm",
                "a_bad_record_is_named_and_all_others_are_written",
                "partitions_come_and_go",
            },
        ),
        (
            FLUSHES_LATE,
            {
                "what_was_flushed_is_written_once",
                "a_flush_is_enough_without_an_orderly_end",
                "what_is_said_to_be_safe_is_written",
                "a_bad_record_is_named_and_all_others_are_written",
                "partitions_come_and_go",
            },
        ),
        (
            SLEEPS,
            {
                "what_was_flushed_is_written_once",
                "a_flush_is_enough_without_an_orderly_end",
                "what_is_said_to_be_safe_is_written",
                "a_batch_that_comes_again_does_no_harm",
                "a_bad_record_is_named_and_all_others_are_written",
                "partitions_come_and_go",
                "nothing_to_do_is_no_error",
                "a_null_value_is_written_passed_over_or_a_data_error",
            },
        ),
        (SWALLOWS, {"a_bad_record_is_named_and_all_others_are_written"}),
        (GIVES_UP_AT_THE_BAD_ONE, {"a_bad_record_is_named_and_all_others_are_written"}),
        (
            TURNS_ROUND,
            {"what_was_flushed_is_written_once", "a_bad_record_is_named_and_all_others_are_written"},
        ),
        (NOT_AS_IDEMPOTENT_AS_IT_SAYS, {"a_batch_that_comes_again_does_no_harm"}),
        (CALLS_ALL_SAFE, {"what_is_said_to_be_safe_is_written"}),
        (FORGETS_ALL_ON_CLOSE, {"partitions_come_and_go"}),
        (CHANGEABLE_DEFAULT, {"every_setting_is_documented_and_no_default_can_be_changed"}),
        (UNDOCUMENTED, {"every_setting_is_documented_and_no_default_can_be_changed"}),
        (TOO_MANY_TASKS, {"the_settings_of_every_task_are_a_configuration"}),
    ],
    ids=[
        *("ignores max_records", "skips one on resume", "repeats one on resume", "hangs after interrupt"),
        *(
            "loses an interrupt",
            "waits too long",
            "reads twice",
            "other id each time",
            "deep offset",
            "needs a start",
        ),
        *("loses the last", "flushes late", "sleeps in put", "swallows the data error", "gives up"),
        *("turns round", "not idempotent", "calls all safe", "forgets all on close"),
        *("changeable default", "undocumented", "too many tasks"),
    ],
)
def test_a_broken_connector_is_caught_by(fault, caught_by, pytester):
    assert failed(run(pytester, fault)) == caught_by
