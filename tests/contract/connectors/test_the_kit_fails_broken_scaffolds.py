"""What a newcomer gets wrong, planted into a new connector: its own tests catch it, and say what is broken.

Nothing but the connector is changed: the class of tests is the one that ``tieline new`` writes.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # files left open
]

SOURCES = {
    "a reading is dropped at stop": (
        """
AcmeTask.replayable = False
@planted("poll")
def poll(self, max_records, max_wait):
    return [] if self.interrupted.is_set() else _poll(self, max_records, max_wait)
""",
        "test_nothing_is_lost_by_a_stop_while_records_wait",
        "were lost at the stop: poll returns what it still holds after interrupt",
    ),
    "a half-collected batch is dropped at stop": (
        """
AcmeTask.replayable = False
@planted("poll")
def poll(self, max_records, max_wait):
    records, until = [], time.monotonic() + max_wait
    while len(records) < max_records and not self.interrupted.is_set() and time.monotonic() < until:
        records += _poll(self, max_records - len(records), 0.01)
    return [] if self.interrupted.is_set() else records
""",
        "test_nothing_is_lost_by_a_stop_in_the_middle_of_a_poll",
        "were lost at the stop",
    ),
    "errors are swallowed in poll": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    try:
        return _poll(self, max_records, max_wait)
    except RetriableError:
        self.interrupted.wait(max_wait)
        return []
""",
        "test_an_outage_is_reported",
        "poll reported no outage in 10.0 s: it swallows errors",
    ),
    "poll retries by itself": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    while True:
        try:
            return _poll(self, max_records, max_wait)
        except RetriableError:
            time.sleep(0.1)
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run",
        "poll did not return within",
    ),
    "an outage is any exception": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    try:
        return _poll(self, max_records, max_wait)
    except RetriableError as error:
        raise error.__cause__
""",
        "test_an_outage_is_reported",
        "poll raised FileNotFoundError in an outage",
    ),
    "one id for every record": (
        """
@planted("record")
def record(self, line):
    return _record(self, line)._replace(headers=identity(str(self.config.file)))
""",
        "test_each_record_has_an_id_of_its_own",
        "10 records have 1 different ids (tieline.id)",
    ),
    "another id each time": (
        """
@planted("record")
def record(self, line):
    return _record(self, line)._replace(headers=identity(time.monotonic_ns()))
""",
        "test_reading_resumes_after_the_saved_offsets",
        "were skipped, or came otherwise",
    ),
    "the offset is that of the record itself": (
        """
@planted("record")
def record(self, line):
    before = self.position
    return _record(self, line)._replace(source_offset={"position": before})
""",
        "test_reading_resumes_after_the_saved_offsets",
        "came again although their offset was saved",
    ),
    "the offset is one too far": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    return record._replace(source_offset={"position": self.position + len(line)})
""",
        "test_reading_resumes_after_the_saved_offsets",
        "records",
    ),
    "one offset map for all records": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    self.shared = getattr(self, "shared", {})
    self.shared.update(record.source_offset)
    return record._replace(source_offset=self.shared)
""",
        "test_each_record_has_its_own_offset",
        "records share one map",
    ),
    "the saved offset is ignored": (
        """
AcmeTask.start = lambda self: None
""",
        "test_reading_resumes_after_the_saved_offsets",
        "start ignores context.offset",
    ),
    "an own file of offsets is written before the record is safe": (
        """
@planted("start")
def start(self):
    file = Path(f"{self.config.file}.position")
    self.position = int(file.read_text()) if file.exists() else 0
@planted("poll")
def poll(self, max_records, max_wait):
    records = _poll(self, max_records, max_wait)
    Path(f"{self.config.file}.position").write_text(str(self.position))
    return records
""",
        "test_reading_resumes_after_the_saved_offsets",
        "10 records",
    ),
    "records come in another order": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, max_records, max_wait)[::-1]
""",
        "test_reading_resumes_after_the_saved_offsets",
        "records",
    ),
    "no offset": (
        """
@planted("record")
def record(self, line):
    return _record(self, line)._replace(source_offset={})
""",
        "test_a_record_has_what_the_runtime_needs",
        "source_offset is empty",
    ),
    "the time is in seconds": (
        """
@planted("record")
def record(self, line):
    return _record(self, line)._replace(timestamp=int(time.time()))
""",
        "test_a_record_has_what_the_runtime_needs",
        "is not in milliseconds since 1970",
    ),
    "max_records is ignored": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, 1000, max_wait)
""",
        "test_a_poll_returns_at_most_what_was_asked_for",
        "poll returned 7 records, 1 were asked for (max_records)",
    ),
    "what is above max_records is dropped": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, 1000, max_wait)[:max_records]
""",
        "test_a_poll_returns_at_most_what_was_asked_for",
        "records are lost",
    ),
    "poll ignores interrupt": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    time.sleep(max_wait)
    return _poll(self, max_records, 0)
""",
        "test_interrupt_ends_a_waiting_poll",
        "poll still waits after interrupt",
    ),
    "poll forgets an interrupt": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    self.interrupted.clear()
    return _poll(self, max_records, max_wait)
""",
        "test_interrupt_before_a_poll_is_not_lost",
        "poll waits although interrupt came before it",
    ),
    "interrupt waits for poll": (
        """
_lock = threading.Lock()
@planted("poll")
def poll(self, max_records, max_wait):
    with _lock:
        return _poll(self, max_records, max_wait)
@planted("interrupt")
def interrupt(self):
    with _lock:
        self.interrupted.set()
""",
        "test_interrupt_ends_a_waiting_poll",
        "interrupt did not return within",
    ),
    "poll keeps a core busy": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, max_records, 0)
""",
        "test_a_poll_with_nothing_to_read_waits",
        "wait for up to max_wait",
    ),
    "poll waits longer than it may": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, max_records, max_wait + 2)
""",
        "test_a_poll_with_nothing_to_read_ends_in_time",
        "(max_wait)",
    ),
    "an outage costs what was read ahead": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    self.ahead = getattr(self, "ahead", [])
    try:
        self.ahead += _poll(self, 1000, 0 if self.ahead else max_wait)
    except RetriableError:
        self.ahead = []
        raise
    records, self.ahead = self.ahead[:max_records], self.ahead[max_records:]
    return records
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run",
        "the others are lost",
    ),
    "the position is a class attribute": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    AcmeTask.last = self.position
    return record
AcmeTask.last = 0
""",
        "test_tasks_share_no_state",
        "a task changed AcmeTask.last",
    ),
    "a list is a class attribute": (
        """
AcmeTask.lines = []
@planted("record")
def record(self, line):
    self.lines.append(line)
    return _record(self, line)
""",
        "test_tasks_share_no_state",
        "a task changed AcmeTask.lines",
    ),
    "a list is a variable of the module": (
        """
LINES = []
@planted("record")
def record(self, line):
    LINES.append(line)
    return _record(self, line)
""",
        "test_tasks_share_no_state",
        "a task changed tieline_acme.source.LINES",
    ),
    "the position is a variable of the module": (
        """
_last = 0
@planted("record")
def record(self, line):
    global _last
    _last += len(line)
    return _record(self, line)
""",
        "test_tasks_share_no_state",
        "a task changed tieline_acme.source._last",
    ),
    "start waits for the external system": (
        """
@planted("start")
def start(self):
    while not self.config.file.exists():
        time.sleep(0.05)
    _start(self)
""",
        "test_a_start_in_an_outage_can_be_repeated",
        "start did not return within",
    ),
    "ids are counted from each start on": (
        """
@planted("record")
def record(self, line):
    self.count = getattr(self, "count", 0) + 1
    return _record(self, line)._replace(headers=identity(self.count))
""",
        "test_reading_resumes_after_the_saved_offsets",
        "were skipped, or came otherwise",
    ),
    "the message of an outage shows a secret": (
        """
from tieline.api import Secret
class _Config(AcmeConfig):
    password: Secret = setting("password", Secret("hunter22"), doc="The password.")
AcmeSource.config_type = _Config
@planted("poll")
def poll(self, max_records, max_wait):
    try:
        return _poll(self, max_records, max_wait)
    except RetriableError as error:
        raise RetriableError(f"{error} with {self.config.password.get_secret_value()}")
""",
        "test_an_outage_is_reported",
        "shows the secret password",
    ),
    "the interrupt is a class attribute": (
        """
from tieline.api import SourceTask as _SourceTask
AcmeTask.interrupted = threading.Event()
@planted("__init__")
def __init__(self, context, config):
    _SourceTask.__init__(self, context, config)
    self.partition, self.position = {"file": str(config.file)}, 0
""",
        "test_tasks_share_no_state",
        "a task changed AcmeTask.interrupted",
    ),
    "a thread is left": (
        """
@planted("start")
def start(self):
    _start(self)
    threading.Thread(target=time.sleep, args=(10,), name="left behind").start()
""",
        "test_stop_releases_threads_and_files",
        "the thread 'left behind'",
    ),
    "a file is left open": (
        """
@planted("start")
def start(self):
    _start(self)
    self.file = open(self.config.file)
""",
        "test_stop_releases_threads_and_files",
        "in.txt",
    ),
    "an interrupt after stop opens the file again": (
        """
_interrupt = AcmeTask.interrupt
AcmeTask.stopped = False
@planted("stop")
def stop(self):
    self.stopped = True
@planted("interrupt")
def interrupt(self):
    _interrupt(self)
    if self.stopped:
        self.file = open(self.config.file)
""",
        "test_an_interrupt_after_stop_does_no_harm",
        "an interrupt after stop opened",
    ),
    "stop needs a start": (
        """
@planted("start")
def start(self):
    _start(self)
    self.started = True
AcmeTask.stop = lambda self: self.started
""",
        "test_a_task_that_never_started_can_be_interrupted_and_stopped",
        "started",
    ),
    "start can be called once": (
        """
@planted("start")
def start(self):
    if hasattr(self, "started"):
        raise RuntimeError("start was called twice")
    self.started = True
    if not self.config.file.exists():
        raise RetriableError("the file is not there")
    _start(self)
""",
        "test_a_task_that_could_not_start_starts_after_the_outage",
        "start was called twice",
    ),
}

SINKS = {
    "flush swallows errors": (
        """
@planted("flush")
def flush(self, offsets):
    try:
        _flush(self, offsets)
    except RetriableError:
        pass
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run",
        "neither put nor flush raised an error in an outage",
    ),
    "flush retries for ever": (
        """
@planted("flush")
def flush(self, offsets):
    while True:
        try:
            return _flush(self, offsets)
        except RetriableError:
            time.sleep(0.05)
""",
        "test_records_that_are_buffered_outlive_an_outage",
        "flush did not return within",
    ),
    "a failed flush loses the buffer": (
        """
@planted("flush")
def flush(self, offsets):
    try:
        _flush(self, offsets)
    finally:
        self.waiting = []
""",
        "test_records_that_are_buffered_outlive_an_outage",
        "5 records are missing",
    ),
    "flush does nothing": (
        """
AcmeTask.flush = lambda self, offsets: None
@planted("stop")
def stop(self):
    if self.database is not None:
        _flush(self, {})
    _stop(self)
""",
        "test_a_flush_is_enough_without_an_orderly_end",
        "flush returned before everything was safe",
    ),
    "the commit comes before the write": (
        """
AcmeTask.pre_commit = lambda self, offsets: offsets
""",
        "test_what_pre_commit_returns_is_written",
        "the commit came before the write",
    ),
    "the id is topic, partition and offset": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, f"{r.topic}-{r.partition}-{r.offset}", json.dumps(r.value)))
""",
        "test_a_record_at_another_offset_is_the_same_record",
        "not of topic, partition and offset",
    ),
    "the id is the value": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, json.dumps(r.value), json.dumps(r.value)))
""",
        "test_one_value_under_two_ids_is_two_records",
        "became 1: make the key of the id",
    ),
    "the id is the digest": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, header(r, "tieline.digest"), json.dumps(r.value)))
""",
        "test_one_value_under_two_ids_is_two_records",
        "became 1: make the key of the id",
    ),
    "rows are inserted without a key": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, os.urandom(8), json.dumps(r.value)))
""",
        "test_a_batch_that_comes_again_does_no_harm",
        "a record that came again was written 2 times",
    ),
    "the order of a batch is lost": (
        """
@planted("flush")
def flush(self, offsets):
    self.waiting.reverse()
    _flush(self, offsets)
""",
        "test_what_was_flushed_is_written_once",
        "out of order",
    ),
    "the index is that in a partition": (
        """
@planted("put")
def put(self, batch):
    bad = {}
    for partition in sorted({r.partition for r in batch}):
        try:
            _put(self, [r for r in batch if r.partition == partition])
        except DataError as error:
            bad |= error.failures
    if bad:
        raise DataError(bad)
""",
        "test_a_bad_record_is_named_and_all_others_are_written",
        "name its index in the batch that put was given",
    ),
    "the index is that in a chunk": (
        """
@planted("put")
def put(self, batch):
    for first in range(0, len(batch), 100):
        _put(self, batch[first:first + 100])
""",
        "test_a_bad_record_is_named_and_all_others_are_written",
        "record 107 of the batch is bad, but the data error names [7]",
    ),
    "put ends at the first bad record": (
        """
@planted("put")
def put(self, batch):
    for index, record in enumerate(batch):
        try:
            _put(self, [record])
        except DataError as error:
            raise DataError({index: error})
""",
        "test_a_bad_record_is_named_and_all_others_are_written",
        "records are missing",
    ),
    "bad records are passed over": (
        """
@planted("put")
def put(self, batch):
    try:
        _put(self, batch)
    except DataError:
        pass
""",
        "test_a_bad_record_is_named_and_all_others_are_written",
        "the data error names no record",
    ),
    "close drops the buffer of all partitions": (
        """
@planted("close")
def close(self, partitions, lost):
    self.waiting = []
""",
        "test_partitions_come_and_go",
        "close of another partition dropped what was buffered",
    ),
    "close without loss drops the buffer": (
        """
_close = AcmeTask.close
@planted("close")
def close(self, partitions, lost):
    if lost:
        _close(self, partitions, lost)
    else:
        self.waiting = []
""",
        "test_a_partition_is_revoked_while_another_one_is_written",
        "close(lost=False) of one partition dropped",
    ),
    "the buffer is a class attribute": (
        """
from tieline.api import SinkTask as _SinkTask
AcmeTask.waiting = []
@planted("__init__")
def __init__(self, context, config):
    _SinkTask.__init__(self, context, config)
    self.database = None
@planted("flush")
def flush(self, offsets):
    with self.database:
        self.database.executemany(
            "INSERT OR IGNORE INTO records VALUES (?, ?)", [row[1:] for row in self.waiting]
        )
    self.waiting.clear()
""",
        "test_tasks_share_no_state",
        "a task changed AcmeTask.waiting",
    ),
    "the connection is shared by all tasks": (
        """
AcmeTask.shared = None
@planted("start")
def start(self):
    if AcmeTask.shared is None:
        AcmeTask.shared = sqlite3.connect(self.config.file, timeout=0, check_same_thread=False)
    self.database = AcmeTask.shared
    _start(self)
@planted("stop")
def stop(self):
    _stop(self)
    AcmeTask.shared = None
""",
        "test_two_tasks_do_not_disturb_each_other",
        "",
    ),
    "the connection is left open": (
        """
AcmeTask.stop = lambda self: None
""",
        "test_stop_releases_threads_and_files",
        "out.db",
    ),
    "put writes no nulls": (
        """
@planted("put")
def put(self, batch):
    for record in batch:
        record.value.strip()
    _put(self, batch)
""",
        "test_a_null_value_is_written_passed_over_or_a_data_error",
        "NoneType",
    ),
    "a flush of nothing fails": (
        """
@planted("flush")
def flush(self, offsets):
    max(offsets.values())
    _flush(self, offsets)
""",
        "test_nothing_to_do_is_not_an_error",
        "",
    ),
    "a default can be changed": (
        """
class _Config(AcmeConfig):
    names: list[str] = setting("names", [], doc="Names.")
AcmeSink.config_type = _Config
""",
        "test_every_setting_is_documented_and_no_default_can_be_changed",
        "the default of names can be changed",
    ),
    "a password is text": (
        """
class _Config(AcmeConfig):
    password: str = setting("password", "", doc="The password.")
AcmeSink.config_type = _Config
""",
        "test_a_secret_is_declared_as_one",
        "declare it as tieline.api.Secret",
    ),
    "the constructor connects": (
        """
@planted("__init__")
def __init__(self, context, config):
    from tieline.api import SinkTask
    SinkTask.__init__(self, context, config)
    self.waiting = []
    self.database = sqlite3.connect(config.file, timeout=0)
""",
        "test_a_start_in_an_outage_can_be_repeated",
        "the constructor",
    ),
}

HTTP_SOURCES = {
    "the message of an outage shows the token": (
        """
_items = AcmeTask.items
@planted("items")
def items(self, limit):
    try:
        return _items(self, limit)
    except RetriableError as error:
        raise RetriableError(f"{error} (token {self.config.token.get_secret_value()})") from error
""",
        "test_an_outage_is_reported",
        "shows the secret token",
    ),
    "the saved offset is ignored": (
        """
AcmeTask.start = lambda self: None
""",
        "test_reading_resumes_after_the_saved_offsets",
        "start ignores context.offset",
    ),
}

HTTP_SINKS = {
    "put swallows errors": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    try:
        _post(self, record, reached)
    except RetriableError:
        pass
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run",
        "neither put nor flush raised an error in an outage",
    ),
    "put retries for ever": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    while True:
        try:
            return _post(self, record, reached)
        except RetriableError:
            time.sleep(0.05)
""",
        "test_an_outage_is_reported",
        "put did not return within",
    ),
    "put retries three times": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    for attempt in range(3):
        try:
            return _post(self, record, reached)
        except RetriableError:
            time.sleep(0.5)
    return _post(self, record, reached)
""",
        "test_an_outage_is_reported",
        "it never sleeps or retries",
    ),
    "an outage is a bad record": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    try:
        _post(self, record, reached)
    except RetriableError as error:
        raise ValueError(str(error))
""",
        "test_an_outage_is_reported",
        "put raised DataError in an outage",
    ),
    "reached is one too far": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    reached[record.consumed_from] = record.offset + 1
    _post(self, record, reached)
""",
        "test_an_outage_in_the_middle_of_a_batch_doubles_nothing",
        "1 records are missing",
    ),
    "reached lies behind a bad record": (
        """
@planted("put")
def put(self, batch):
    bad, reached = {}, {}
    for index, record in enumerate(batch):
        try:
            self.post(record, reached)
        except (TypeError, ValueError) as error:
            bad[index] = error
        reached[record.consumed_from] = record.offset + 1
    if bad:
        raise DataError(bad)
""",
        "test_a_bad_record_before_an_outage_is_not_forgotten",
        "it would never be reported",
    ),
}

CASES = [
    pytest.param(words, *defect, id=f"{'-'.join(words)}: {name}")
    for words, defects in (
        (("source",), SOURCES),
        (("sink",), SINKS),
        (("source", "http"), HTTP_SOURCES),
        (("sink", "http"), HTTP_SINKS),
    )
    for name, defect in defects.items()
]


@pytest.mark.parametrize(("words", "plant", "caught_by", "message"), CASES)
def test_a_planted_defect_is_caught(words, plant, caught_by, message, run_planted):
    run_planted(words, plant, caught_by, message)
