"""The kit on connectors of lists: what it catches, what it lists as not tested, how an author opts out.

``test_the_kit_fails_broken_scaffolds.py`` plants the defects that need no special external system.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LISTS = """
import threading, time
import pytest
from tieline.api import *
from tieline.testing.contract import SinkContract, SourceContract

pytestmark = pytest.mark.slow

OUTSIDE, STORE, ROOM = [], [], []

class Nothing(Config):
    pass

class ListSourceTask(SourceTask):
    def __init__(self, context, config):
        super().__init__(context, config)
        self.interrupted = threading.Event()

    def start(self):
        self.position = (self.context.offset({"list": "outside"}) or {"at": 0})["at"]

    def poll(self, max_records, max_wait):
        values = OUTSIDE[self.position : self.position + max_records]
        if not values:
            self.interrupted.wait(max_wait)
        return [self.record(value) for value in values]

    def record(self, value):
        self.position += 1
        offset = {"at": self.position}
        return SourceRecord("t", value, source_partition={"list": "outside"}, source_offset=offset)

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
        self.write([r.value for r in self.waiting])
        self.waiting = []

    def write(self, values):
        if ROOM and len(STORE) + len(values) > ROOM[0]:
            raise RetriableError("the list is full")
        STORE.extend(values)

    def close(self, partitions, lost):
        self.waiting = [r for r in self.waiting if r.consumed_from not in partitions]

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
        return lambda count: OUTSIDE.extend([f"value {len(OUTSIDE) + n}" for n in range(count)])

class TestSink(SinkContract):
    connector = ListSink
    idempotent = False
    not_idempotent_because = "a list has no keys"
    soon = 0.3

    @pytest.fixture
    def settings(self):
        STORE.clear()
        ROOM.clear()
        return {}

    @pytest.fixture
    def break_after(self):
        return lambda count: ROOM.append(len(STORE) + count)

    @pytest.fixture
    def heal_it(self):
        return ROOM.clear

    @pytest.fixture
    def written(self):
        return lambda: list(STORE)

    @pytest.fixture
    def bad_value(self):
        return "bad"
"""

READS_TWICE = """
def poll(self, max_records, max_wait, poll=ListSourceTask.poll):
    records = poll(self, max_records, max_wait)
    self.position -= bool(records) and self.position % 15 == 0
    return records
ListSourceTask.poll = poll
"""
DEEP_OFFSET = """
def record(self, value, record=ListSourceTask.record):
    changed = record(self, value)
    return changed._replace(source_offset={"at": self.position, "more": [1]})
ListSourceTask.record = record
"""
LOSES_THE_LAST = """
def flush(self, offsets):
    STORE.extend(r.value for r in self.waiting[:-1])
    self.waiting = []
ListSinkTask.flush = flush
"""
SLEEPS = """
TestSink.soon = 0.05
def put(self, batch, put=ListSinkTask.put):
    time.sleep(0.06)
    put(self, batch)
ListSinkTask.put = put
"""
WRITES_A_PART_AND_SAYS_NOTHING = """
def put(self, batch):
    for record in batch:
        self.write([record.value])
ListSinkTask.put = put
"""
SAYS_WHAT_IT_WROTE = """
def put(self, batch):
    reached = {}
    for record in batch:
        try:
            self.write([record.value])
        except RetriableError as error:
            raise RetriableError(str(error), reached=reached)
        reached[record.consumed_from] = record.offset + 1
ListSinkTask.put = put
"""
NOT_AS_IDEMPOTENT_AS_IT_SAYS = """
TestSink.idempotent = True
"""
NO_REASON = """
TestSink.not_idempotent_because = ""
"""
UNDOCUMENTED = """
class Silent(Config):
    name: str = setting("name", "x", doc="")
ListSource.config_type = Silent
"""
TOO_MANY_TASKS = """
ListSource.task_configs = lambda self, max_tasks: [{}, {}]
"""


def run(pytester, fault, *words):
    pytester.makepyfile(LISTS + fault)
    return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *words)


def text(result):
    return " ".join(" ".join(result.outlines).replace("E  ", "").split())


def test_a_connector_without_a_fault_passes_and_what_was_not_tested_is_listed(pytester):
    result = run(pytester, "TestSink.test_a_null_value_is_written_passed_over_or_a_data_error = None")
    assert set(result.parseoutcomes()) == {"passed", "skipped"}
    untested = result.outlines[result.outlines.index("16 promises not tested:") + 1 :]
    assert (
        "  TestSource: an outage is reported: no settings of an outage; give the fixture 'outage'" in untested
    )
    assert (
        "  TestSource: each record has an id of its own: records carry no tieline.id, so a store keeps a "
        "record twice that was sent twice; add headers=identity(...)"
    ) in untested
    assert (
        "  TestSink: an opt out of idempotence has a reason: idempotent = False, because a list has no keys"
        in untested
    )
    assert (
        "  TestSink: a null value is written passed over or a data error: switched off in TestSink"
        in untested
    )
    assert (
        "  TestSink: a killed worker loses nothing: give the fixture 'worker_settings' ({} is enough)"
        in untested
    )


def test_under_xdist_the_list_of_all_workers_is_printed_once(pytester):
    pytester.makepyfile(LISTS)
    chosen = ("-k", "outage_is_reported or bad_record_is_named")
    result = pytester.runpytest_subprocess(
        "-q", "-n", "2", "-p", "no:cacheprovider", "-p", "tieline.testing.pytest_plugin", *chosen
    )
    (start,) = (number for number, line in enumerate(result.outlines) if line == "2 promises not tested:")
    assert result.outlines[start + 1 : start + 3] == [
        "  TestSink: an outage is reported: give the fixture 'outage'",
        "  TestSource: an outage is reported: no settings of an outage; give the fixture 'outage'",
    ]


def test_a_run_with_other_tests_alone_lists_nothing(pytester):
    pytester.makepyfile("def test_it(): pass")
    assert "not tested" not in text(pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider"))


def test_a_task_class_can_stand_for_its_connector(pytester):
    task = """
class Task(ListSourceTask, SourceTask[Nothing]):
    pass
TestSource.connector = Task
del TestSink
"""
    result = run(pytester, task)
    assert set(result.parseoutcomes()) == {"passed", "skipped"}


def test_a_sink_that_reports_what_it_wrote_before_an_outage_passes(pytester):
    result = run(pytester, SAYS_WHAT_IT_WROTE, "-k", "middle_of_a_batch")
    assert result.parseoutcomes()["passed"] == 1


@pytest.mark.parametrize(
    ("fault", "caught_by", "message"),
    [
        (READS_TWICE, "every_record_is_read_once_and_no_other", "records too many: records are read twice"),
        (DEEP_OFFSET, "a_record_has_what_the_runtime_needs", "more: not a JSON primitive"),
        (LOSES_THE_LAST, "what_was_flushed_is_written_once", "records are missing, although flush returned"),
        (SLEEPS, "what_was_flushed_is_written_once", "put took 0.1 s; it never sleeps or retries"),
        (
            WRITES_A_PART_AND_SAYS_NOTHING,
            "an_outage_in_the_middle_of_a_batch_doubles_nothing",
            "2 values too many: records were written twice",
        ),
        (NOT_AS_IDEMPOTENT_AS_IT_SAYS, "a_batch_that_comes_again_does_no_harm", "was written 2 times"),
        (NO_REASON, "an_opt_out_of_idempotence_has_a_reason", "idempotent = False needs a reason"),
        (
            UNDOCUMENTED,
            "every_setting_is_documented_and_no_default_can_be_changed",
            "name has no documentation",
        ),
        (
            TOO_MANY_TASKS,
            "the_settings_of_every_task_are_a_configuration",
            "2 tasks, at most 1 were asked for",
        ),
    ],
    ids=[
        *("reads twice", "deep offset", "loses the last", "sleeps in put", "writes a part and says nothing"),
        *("not idempotent", "no reason", "undocumented", "too many tasks"),
    ],
)
def test_a_broken_connector_is_caught(fault, caught_by, message, pytester):
    result = run(pytester, fault, "-k", caught_by)
    assert result.parseoutcomes()["failed"] == 1
    assert message in text(result)
