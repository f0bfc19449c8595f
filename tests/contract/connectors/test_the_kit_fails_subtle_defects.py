"""More of what an author gets wrong: it shows at a stop, a rebalance, a kill, or in another process.

As in ``test_the_kit_fails_broken_scaffolds.py``, nothing but the connector is changed.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # files left open
]

SOURCES = {
    "a value map is shared by all records": (
        """
@planted("record")
def record(self, line):
    self.document = getattr(self, "document", {})
    self.document["line"] = line.decode()
    return _record(self, line)._replace(value=self.document)
""",
        "test_every_record_is_read_once_and_no_other",
        "create a value for each record",
    ),
    "the list of a batch is reused": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    self.batch = getattr(self, "batch", [])
    self.batch[:] = _poll(self, max_records, max_wait)
    return self.batch
""",
        "test_a_batch_does_not_change_after_poll",
        "the batch that poll returned changed",
    ),
    "poll returns None": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, max_records, max_wait) or None
""",
        "test_a_poll_with_nothing_to_read_waits",
        "poll returned a NoneType: return a list of records",
    ),
    "poll is a generator": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    yield from _poll(self, max_records, max_wait)
""",
        "test_every_record_is_read_once_and_no_other",
        "poll returned a generator: return a list of records",
    ),
    "a value is not plain data": (
        """
from datetime import datetime
@planted("record")
def record(self, line):
    return _record(self, line)._replace(value={"line": line.decode(), "at": datetime(2026, 1, 1)})
""",
        "test_a_record_has_what_the_runtime_needs",
        "the value of a record has a datetime, and no schema",
    ),
    "headers are a map": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    return record._replace(headers=dict(record.headers))
""",
        "test_a_record_has_what_the_runtime_needs",
        "headers are a dict: give a tuple",
    ),
    "the offset has a NaN": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    return record._replace(source_offset={**record.source_offset, "speed": float("nan")})
""",
        "test_a_record_has_what_the_runtime_needs",
        "is not a map of JSON primitives",
    ),
    "commit_record needs metadata": (
        """
@planted("commit_record")
def commit_record(self, record, metadata):
    self.last_offset = metadata.offset
""",
        "test_acknowledgements_are_taken",
        "commit_record takes every record, with metadata None",
    ),
    "commit_record takes metadata for a map": (
        """
@planted("commit_record")
def commit_record(self, record, metadata):
    if metadata is not None:
        self.last_offset = metadata["offset"]
""",
        "test_acknowledgements_are_taken",
        "commit_record raised TypeError",
    ),
    "commit removes what was only read": (
        """
@planted("commit")
def commit(self):
    data = self.config.file.read_bytes()
    self.config.file.write_bytes(b"\\n" * self.position + data[self.position:])
""",
        "test_a_commit_releases_only_what_was_acknowledged",
        "6 records that were read and not acknowledged are gone after commit",
    ),
    "the id depends on the process": (
        """
@planted("record")
def record(self, line):
    return _record(self, line)._replace(headers=identity(hash(line)))
""",
        "test_a_killed_worker_loses_nothing",
        "records came under another id (tieline.id) in another process",
    ),
    "the id depends on the file's time": (
        """
@planted("record")
def record(self, line):
    position = self.position
    return _record(self, line)._replace(headers=identity(os.stat(self.config.file).st_mtime_ns, position))
""",
        "test_a_killed_worker_loses_nothing",
        "records came under another id (tieline.id) in another process",
    ),
    "the value has the time of reading": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    return record._replace(value=f"{time.time()} {record.value}")
""",
        "test_reading_resumes_after_the_saved_offsets",
        "were skipped, or came otherwise",
    ),
    "the position counts characters": (
        """
@planted("record")
def record(self, line):
    before = self.position
    record = _record(self, line)
    self.position = before + len(line.decode())
    return record._replace(source_offset={"position": self.position})
""",
        "test_every_record_is_read_once_and_no_other",
        "records",
    ),
    "the source partition changes": (
        """
@planted("record")
def record(self, line):
    record = _record(self, line)
    return record._replace(source_partition={"file": str(self.config.file), "day": str(self.position)})
""",
        "test_reading_resumes_after_the_saved_offsets",
        "came again although their offset was saved",
    ),
    "a new task starts at the end": (
        """
@planted("start")
def start(self):
    _start(self)
    if self.context.offset(self.partition) is None:
        self.position = self.config.file.stat().st_size
""",
        "test_reading_resumes_after_the_saved_offsets",
        "records are lost",
    ),
    "poll calls sys.exit in an outage": (
        """
import sys
@planted("poll")
def poll(self, max_records, max_wait):
    try:
        return _poll(self, max_records, max_wait)
    except RetriableError as error:
        sys.exit(str(error))
""",
        "test_an_outage_is_reported",
        "poll raised SystemExit in an outage",
    ),
    "interrupt fails": (
        """
@planted("interrupt")
def interrupt(self):
    self.connection.close()
""",
        "test_a_task_that_never_started_can_be_interrupted_and_stopped",
        "interrupt never fails, also if start failed",
    ),
    "stop fails": (
        """
@planted("stop")
def stop(self):
    raise OSError("already closed")
""",
        "test_a_task_that_never_started_can_be_interrupted_and_stopped",
        "stop never fails",
    ),
    "poll fails after interrupt": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    if self.interrupted.is_set():
        raise RuntimeError("the task was stopped")
    return _poll(self, max_records, max_wait)
""",
        "test_nothing_is_lost_by_a_stop_while_records_wait",
        "poll raised RuntimeError: the task was stopped",
    ),
    "a secret is logged": (
        """
from tieline.api import Secret
import logging
class _Config(AcmeConfig):
    password: Secret = setting("password", Secret("hunter22"), doc="The password.")
AcmeSource.config_type = _Config
@planted("start")
def start(self):
    logging.getLogger(__name__).info("log in with %s", self.config.password.get_secret_value())
    _start(self)
""",
        "test_no_secret_is_logged_or_printed",
        "the log shows the secret password",
    ),
    "a secret is in the source partition": (
        """
from tieline.api import Secret
class _Config(AcmeConfig):
    password: Secret = setting("password", Secret("hunter22"), doc="The password.")
AcmeSource.config_type = _Config
@planted("start")
def start(self):
    self.partition["password"] = self.config.password.get_secret_value()
    _start(self)
""",
        "test_no_secret_is_in_a_record",
        "the position of a record shows the secret password",
    ),
    "a passphrase is text": (
        """
class _Config(AcmeConfig):
    passphrase: str = setting("key.passphrase", "", doc="The passphrase.")
AcmeSource.config_type = _Config
""",
        "test_a_secret_is_declared_as_one",
        "key.passphrase looks like a secret",
    ),
    "a password is optional text": (
        """
class _Config(AcmeConfig):
    password: str | None = setting("password", None, doc="The password.")
AcmeSource.config_type = _Config
""",
        "test_a_secret_is_declared_as_one",
        "password looks like a secret",
    ),
    "every task reads everything": (
        """
AcmeSource.task_configs = lambda self, max_tasks: [dict(self.context.settings) for _ in range(max_tasks)]
""",
        "test_tasks_divide_the_work",
        "3 tasks read 12 records 36 times",
    ),
    "settings of a task are numbers": (
        """
AcmeSource.task_configs = lambda self, max_tasks: [{**self.context.settings, "part": 1}]
class _Config(AcmeConfig):
    part: int = setting("part", 0, doc="The part.")
AcmeSource.config_type = _Config
""",
        "test_the_settings_of_every_task_are_a_configuration",
        "task_configs returned part = 1",
    ),
    "a failed start leaves a thread": (
        """
@planted("start")
def start(self):
    self.ended = threading.Event()
    self.thread = threading.Thread(target=self.ended.wait, args=(30,), name="reader", daemon=True)
    self.thread.start()
    if not self.config.file.exists():
        raise RetriableError("the file is not there")
    _start(self)
@planted("stop")
def stop(self):
    if hasattr(self, "thread"):
        self.ended.set()
        self.thread.join()
""",
        "test_a_start_in_an_outage_can_be_repeated",
        "stop left open: the thread 'reader'",
    ),
    "the timeout of all sockets is changed": (
        """
import socket
@planted("start")
def start(self):
    socket.setdefaulttimeout(1234)
    _start(self)
""",
        "test_a_task_changes_nothing_of_the_process",
        "a task changed socket.setdefaulttimeout",
    ),
    "an environment variable is set": (
        """
@planted("start")
def start(self):
    os.environ["HTTPS_PROXY"] = "http://127.0.0.1:1"
    _start(self)
""",
        "test_a_task_changes_nothing_of_the_process",
        "a task changed the environment variable HTTPS_PROXY",
    ),
    "the working folder is changed": (
        """
@planted("start")
def start(self):
    os.chdir(self.config.file.parent)
    _start(self)
""",
        "test_a_task_changes_nothing_of_the_process",
        "a task changed the working folder",
    ),
    "the root logger is changed": (
        """
import logging
@planted("start")
def start(self):
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    _start(self)
""",
        "test_a_task_changes_nothing_of_the_process",
        "the handlers of the root logger",
    ),
    "the outage is reported and never ends": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    try:
        return _poll(self, max_records, max_wait)
    except RetriableError as error:
        self.context.not_connected("the file", str(error))
        self.interrupted.wait(max_wait)
        return []
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run",
        "the outage is over, and the task never reported it",
    ),
    "one offset for a batch": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    records = _poll(self, max_records, max_wait)
    return [r._replace(source_offset=records[0].source_offset) for r in records]
""",
        "test_each_record_has_its_own_offset",
        "10 records have",
    ),
    "validate opens the file": (
        """
AcmeSource.validate = classmethod(lambda cls, config: [] if config.file.open() else [])
""",
        "test_settings_are_checked_without_the_external_system",
        "validate raised FileNotFoundError in an outage",
    ),
}

SPOOLED = {
    "interrupt clears what waits": (
        """
AcmeTask.replayable = False
_interrupt = AcmeTask.interrupt
@planted("interrupt")
def interrupt(self):
    self.position = self.config.file.stat().st_size
    _interrupt(self)
""",
        "test_nothing_is_lost_by_a_stop_while_records_wait",
        "were lost at the stop",
    ),
    "poll returns too much after interrupt": (
        """
AcmeTask.replayable = False
@planted("poll")
def poll(self, max_records, max_wait):
    return _poll(self, 1000 if self.interrupted.is_set() else max_records, max_wait)
""",
        "test_nothing_is_lost_by_a_stop_while_records_wait",
        "3 were asked for (max_records)",
    ),
    "an empty poll before the rest": (
        """
AcmeTask.replayable = False
@planted("poll")
def poll(self, max_records, max_wait):
    if self.interrupted.is_set() and not getattr(self, "reported", False):
        self.reported = True
        return []
    return _poll(self, max_records, max_wait)
""",
        "test_nothing_is_lost_by_a_stop_while_records_wait",
        "were lost at the stop",
    ),
    "one id for each poll": (
        """
AcmeTask.replayable = False
@planted("poll")
def poll(self, max_records, max_wait):
    headers = identity(time.monotonic_ns())
    return [r._replace(headers=headers) for r in _poll(self, max_records, max_wait)]
""",
        "test_each_record_has_an_id_of_its_own",
        "10 records have 1 different ids",
    ),
    "the oldest are dropped silently": (
        """
import collections
AcmeTask.replayable = False
@planted("poll")
def poll(self, max_records, max_wait):
    self.ahead = getattr(self, "ahead", collections.deque(maxlen=5))
    self.ahead.extend(_poll(self, 1000, 0 if self.ahead else max_wait))
    return [self.ahead.popleft() for _ in range(min(max_records, len(self.ahead)))]
""",
        "test_every_record_is_read_once_and_no_other",
        "records are lost",
    ),
    "it resumes from a saved offset": (
        """
AcmeTask.replayable = False
@planted("start")
def start(self):
    self.position = self.context.offset(self.partition)["position"]
""",
        "test_every_record_is_read_once_and_no_other",
        "start raised TypeError",
    ),
}

SINKS = {
    "put empties its batch": (
        """
@planted("put")
def put(self, batch):
    _put(self, batch)
    batch.clear()
""",
        "test_what_was_flushed_is_written_once",
        "put changed the batch",
    ),
    "the buffer is bounded": (
        """
import collections
@planted("put")
def put(self, batch):
    _put(self, batch)
    self.waiting = self.waiting[-500:]
""",
        "test_many_records_before_a_flush_are_written",
        "100 records are missing, although flush returned",
    ),
    "the buffer of other partitions is cleared by a flush": (
        """
@planted("flush")
def flush(self, offsets):
    self.waiting = [row for row in self.waiting if row[0] in offsets]
    _flush(self, offsets)
""",
        "test_a_partition_is_revoked_while_another_one_is_written",
        "dropped what was buffered for another one",
    ),
    "the id is the timestamp": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, str(r.timestamp), json.dumps(r.value)))
""",
        "test_one_value_under_two_ids_is_two_records",
        "became 1: make the key of the id",
    ),
    "the id is the key": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, str(r.key), json.dumps(r.value)))
""",
        "test_what_was_flushed_is_written_once",
        "records are missing",
    ),
    "the id is cut off": (
        """
@planted("put")
def put(self, batch):
    for r in batch:
        self.waiting.append((r.consumed_from, header(r, ID_HEADER)[:3], json.dumps(r.value)))
""",
        "test_many_records_before_a_flush_are_written",
        "records are missing",
    ),
    "ids are remembered before the write": (
        """
@planted("put")
def put(self, batch):
    self.seen = getattr(self, "seen", set())
    new = [r for r in batch if header(r, ID_HEADER) not in self.seen]
    self.seen.update(header(r, ID_HEADER) for r in new)
    _put(self, new)
""",
        "test_partitions_come_and_go",
        "records of a partition that came back are missing",
    ),
    "ids are remembered in memory alone": (
        """
@planted("put")
def put(self, batch):
    self.seen = getattr(self, "seen", set())
    for r in batch:
        if header(r, ID_HEADER) not in self.seen:
            self.seen.add(header(r, ID_HEADER))
            self.waiting.append((r.consumed_from, os.urandom(8), json.dumps(r.value)))
""",
        "test_a_batch_that_comes_again_does_no_harm",
        "was written 2 times",
    ),
    "open drops the buffer": (
        """
@planted("open")
def open_(self, partitions):
    self.waiting = []
""",
        "test_a_partition_that_comes_leaves_the_others_alone",
        "open of one partition dropped records of another one",
    ),
    "open forgets the other partitions": (
        """
@planted("open")
def open_(self, partitions):
    self.mine = set(partitions)
@planted("put")
def put(self, batch):
    _put(self, [r for r in batch if r.consumed_from in self.mine])
""",
        "test_a_partition_that_comes_leaves_the_others_alone",
        "open of one partition dropped records of another one",
    ),
    "close of an unused partition fails": (
        """
@planted("close")
def close(self, partitions, lost):
    for partition in partitions:
        next(row for row in self.waiting if row[0] == partition)
""",
        "test_a_partition_without_records_can_be_closed",
        "close raised StopIteration",
    ),
    "close keeps what is lost": (
        """
AcmeTask.close = lambda self, partitions, lost: None
""",
        "test_partitions_come_and_go",
        "were written after close(lost=True)",
    ),
    "partitions of two topics are one": (
        """
@planted("put")
def put(self, batch):
    self.high = getattr(self, "high", {})
    _put(self, [r for r in batch if r.offset >= self.high.get(r.partition, 0)])
    for r in batch:
        self.high[r.partition] = max(self.high.get(r.partition, 0), r.offset + 1)
""",
        "test_partitions_of_two_topics_are_not_one",
        "dropped that of another topic",
    ),
    "nothing is ever committed": (
        """
@planted("pre_commit")
def pre_commit(self, offsets):
    self.flush(offsets)
    return {}
""",
        "test_what_is_written_is_committed",
        "everything is flushed, and pre_commit returns []",
    ),
    "the committed offset is that of the last record": (
        """
@planted("pre_commit")
def pre_commit(self, offsets):
    self.flush(offsets)
    return {partition: offset - 1 for partition, offset in offsets.items()}
""",
        "test_what_is_written_is_committed",
        "the position after the last record",
    ),
    "a bad record is an outage": (
        """
@planted("put")
def put(self, batch):
    try:
        _put(self, batch)
    except DataError as error:
        raise RetriableError(str(error))
""",
        "test_all_bad_records_of_a_batch_are_named",
        "it would be offered again for ever",
    ),
    "a bad record is any exception": (
        """
@planted("put")
def put(self, batch):
    try:
        _put(self, batch)
    except DataError as error:
        raise error.failures[min(error.failures)]
""",
        "test_all_bad_records_of_a_batch_are_named",
        "then raise DataError with its index",
    ),
    "a bad record is fatal": (
        """
from tieline.api import FatalError
@planted("put")
def put(self, batch):
    try:
        _put(self, batch)
    except DataError as error:
        raise FatalError(str(error))
""",
        "test_all_bad_records_of_a_batch_are_named",
        "the sink raised FatalError for a record that can never be written",
    ),
    "all records of a batch are named": (
        """
@planted("put")
def put(self, batch):
    try:
        _put(self, batch)
    except DataError as error:
        raise DataError({index: ValueError("bad batch") for index in range(len(batch))})
""",
        "test_all_bad_records_of_a_batch_are_named",
        "the data error names [0, 1, 2, 3, 4, 5]",
    ),
    "start empties the table": (
        """
@planted("start")
def start(self):
    _start(self)
    with self.database:
        self.database.execute("DELETE FROM records")
""",
        "test_a_restart_keeps_what_was_written",
        "a start removed what an earlier task had written",
    ),
    "records after an interrupt are dropped": (
        """
@planted("interrupt")
def interrupt(self):
    self.ended = True
@planted("put")
def put(self, batch):
    if not getattr(self, "ended", False):
        _put(self, batch)
""",
        "test_a_stop_loses_nothing",
        "pre_commit after interrupt returned offsets of records not written",
    ),
    "a flush after an interrupt writes nothing": (
        """
@planted("interrupt")
def interrupt(self):
    self.ended = True
@planted("flush")
def flush(self, offsets):
    if not getattr(self, "ended", False):
        _flush(self, offsets)
""",
        "test_a_stop_loses_nothing",
        "pre_commit after interrupt returned offsets of records not written",
    ),
    "a flush at stop writes nothing": (
        """
@planted("flush")
def flush(self, offsets):
    if not self.context.stopping:
        _flush(self, offsets)
""",
        "test_a_stop_loses_nothing",
        "pre_commit after interrupt returned offsets of records not written",
    ),
    "interrupt closes the connection": (
        """
@planted("start")
def start(self):
    self.database = sqlite3.connect(self.config.file, timeout=0, check_same_thread=False)
    _start(self)
@planted("interrupt")
def interrupt(self):
    if self.database is not None:
        self.database.close()
""",
        "test_a_stop_loses_nothing",
        "pre_commit raised ProgrammingError",
    ),
    "text is kept as ASCII": (
        """
@planted("put")
def put(self, batch):
    def plain(value):
        return value.encode("ascii", "ignore").decode() if isinstance(value, str) else value
    _put(self, [r._replace(value=plain(r.value)) for r in batch])
""",
        "test_what_was_flushed_is_written_once",
        "records are missing",
    ),
    "SQL is made of the values": (
        """
@planted("flush")
def flush(self, offsets):
    with self.database:
        for _, id_, value in self.waiting:
            self.database.execute(f"INSERT OR IGNORE INTO records VALUES ('{id_.decode()}', '{value}')")
    self.waiting = []
""",
        "test_what_was_flushed_is_written_once",
        "flush raised OperationalError",
    ),
    "rows are written one by one, without a transaction": (
        """
@planted("flush")
def flush(self, offsets):
    self.database.isolation_level = None
    try:
        for _, id_, value in self.waiting:
            self.database.execute("INSERT INTO records VALUES (?, ?)", (id_, value))
    except sqlite3.OperationalError as error:
        raise RetriableError(str(error))
    except sqlite3.IntegrityError as error:
        raise RetriableError(str(error))
    self.waiting = []
""",
        "test_an_outage_in_the_middle_of_a_batch_doubles_nothing",
        "flush still raises RetriableError 10.0 s after the outage",
    ),
    "flush calls sys.exit in an outage": (
        """
import sys
@planted("flush")
def flush(self, offsets):
    try:
        _flush(self, offsets)
    except RetriableError as error:
        sys.exit(1)
""",
        "test_records_that_are_buffered_outlive_an_outage",
        "flush raised SystemExit in an outage",
    ),
    "a dead connection is kept": (
        """
@planted("flush")
def flush(self, offsets):
    if getattr(self, "dead", False):
        raise RetriableError("the connection is dead")
    try:
        _flush(self, offsets)
    except RetriableError:
        self.dead = True
        raise
""",
        "test_records_that_are_buffered_outlive_an_outage",
        "flush still raises RetriableError",
    ),
    "the outage is reported and never raised": (
        """
@planted("flush")
def flush(self, offsets):
    try:
        _flush(self, offsets)
    except RetriableError as error:
        self.context.not_connected("the file", str(error))
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run",
        "neither put nor flush raised an error in an outage",
    ),
    "only the last value of a batch is kept": (
        """
@planted("put")
def put(self, batch):
    _put(self, list({r.consumed_from: r for r in batch}.values()))
""",
        "test_what_was_flushed_is_written_once",
        "records are missing",
    ),
    "the value of a known id is replaced by null": (
        """
@planted("flush")
def flush(self, offsets):
    with self.database:
        for _, id_, value in self.waiting:
            if self.database.execute("SELECT 1 FROM records WHERE id = ?", (id_,)).fetchone():
                self.database.execute("UPDATE records SET value = 'null' WHERE id = ?", (id_,))
            else:
                self.database.execute("INSERT INTO records VALUES (?, ?)", (id_, value))
    self.waiting = []
""",
        "test_a_batch_that_comes_again_does_no_harm",
        "records are missing",
    ),
}

HTTP_SOURCES = {
    "no timeout": (
        """
class _Never(int):
    def __truediv__(self, other):
        return None
_init = AcmeTask.__init__
@planted("__init__")
def __init__(self, context, config):
    _init(self, context, config.model_copy(update={"timeout_ms": _Never()}))
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and silent",
        "s to report an outage",
    ),
    "an overloaded service has nothing": (
        """
_items = AcmeTask.items
@planted("items")
def items(self, limit):
    try:
        return _items(self, limit)
    except RetriableError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError):
            return []
        raise
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and 503",
        "it swallows errors",
    ),
    "no JSON is nothing": (
        """
_items = AcmeTask.items
@planted("items")
def items(self, limit):
    try:
        return _items(self, limit)
    except RetriableError as error:
        if isinstance(error.__cause__, ValueError):
            return []
        raise
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and JSON",
        "it swallows errors",
    ),
    "an overloaded service is fatal": (
        """
_items = AcmeTask.items
@planted("items")
def items(self, limit):
    try:
        return _items(self, limit)
    except RetriableError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError):
            raise FatalError(str(error))
        raise
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and 429",
        "poll raised FatalError in an outage",
    ),
    "ids are compared as text": (
        """
_items = AcmeTask.items
@planted("items")
def items(self, limit):
    last, self.last = self.last, 0
    items = _items(self, 1000)
    self.last = last
    return [item for item in items if str(item["id"]) > str(last)][:limit]
""",
        "test_every_record_is_read_once_and_no_other",
        "records are read twice",
    ),
    "the pause ignores interrupt": (
        """
@planted("poll")
def poll(self, max_records, max_wait):
    records = [self.record(item) for item in self.items(max_records)]
    if not records:
        time.sleep(max_wait)
    return records
""",
        "test_interrupt_ends_a_waiting_poll",
        "poll still waits after interrupt",
    ),
    "the id is the value": (
        """
@planted("record")
def record(self, item):
    return _record(self, item)._replace(headers=identity(item["value"]))
""",
        "test_each_record_has_an_id_of_its_own",
        "10 records have 1 different ids",
    ),
    "the token is logged": (
        """
import logging
_items = AcmeTask.items
@planted("items")
def items(self, limit):
    logging.getLogger(__name__).debug("Authorization: Bearer %s", self.config.token.get_secret_value())
    return _items(self, limit)
""",
        "test_no_secret_is_logged_or_printed",
        "the log shows the secret token",
    ),
}

HTTP_SINKS = {
    "no timeout": (
        """
class _Never(int):
    def __truediv__(self, other):
        return None
_init = AcmeTask.__init__
@planted("__init__")
def __init__(self, context, config):
    _init(self, context, config.model_copy(update={"timeout_ms": _Never()}))
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and silent",
        "put took",
    ),
    "an overloaded service is a bad record": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    try:
        _post(self, record, reached)
    except RetriableError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError):
            raise ValueError(str(error))
        raise
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and 503",
        "put raised DataError in an outage",
    ),
    "429 is a bad record": (
        """
_TRY_AGAIN = ()
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and 429",
        "put raised DataError in an outage",
    ),
    "a rejected record is an outage": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    try:
        _post(self, record, reached)
    except ValueError as error:
        raise RetriableError(str(error), reached=reached)
""",
        "test_all_bad_records_of_a_batch_are_named",
        "it would be offered again for ever",
    ),
    "every answer is an OK": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    try:
        _post(self, record, reached)
    except ValueError:
        pass
""",
        "test_all_bad_records_of_a_batch_are_named",
        "the data error names []",
    ),
    "records are posted in the background": (
        """
import queue
@planted("start")
def start(self):
    self.lines = queue.Queue()
    def work():
        while (record := self.lines.get()) is not None:
            try:
                _post(self, record, {})
            except Exception:
                pass
    self.thread = threading.Thread(target=work)
    self.thread.start()
_post = AcmeTask.post
@planted("put")
def put(self, batch):
    for record in batch:
        self.lines.put(record)
@planted("stop")
def stop(self):
    if hasattr(self, "thread"):
        self.lines.put(None)
        self.thread.join()
""",
        "test_an_outage_is_reported",
        "neither put nor flush raised an error in an outage",
    ),
    "ids are remembered before the answer": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    self.seen = getattr(self, "seen", set())
    if header(record, ID_HEADER) not in self.seen:
        self.seen.add(header(record, ID_HEADER))
        _post(self, record, reached)
""",
        "test_nothing_is_lost_by_an_outage_in_the_middle_of_a_run and 503",
        "records are missing",
    ),
    "the token is printed": (
        """
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    print("token", self.config.token.get_secret_value())
    _post(self, record, reached)
""",
        "test_no_secret_is_logged_or_printed",
        "the task prints the secret token",
    ),
    "an id of the batch": (
        """
_post = AcmeTask.post
@planted("put")
def put(self, batch):
    if batch:
        first = batch[0].headers
        for record in batch:
            _post(self, record._replace(headers=first), {})
""",
        "test_what_was_flushed_is_written_once",
        "records are missing",
    ),
    "reached is set for a bad record's followers": (
        """
@planted("put")
def put(self, batch):
    bad, reached = {}, {}
    for index, record in enumerate(batch):
        try:
            self.post(record, reached)
            reached[record.consumed_from] = record.offset + 1
        except (TypeError, ValueError) as error:
            bad[index] = error
    if bad:
        raise DataError(bad)
""",
        "test_a_bad_record_before_an_outage_is_not_forgotten",
        "it would never be reported",
    ),
    "an interrupt ends put": (
        """
@planted("interrupt")
def interrupt(self):
    self.ended = True
_post = AcmeTask.post
@planted("post")
def post(self, record, reached):
    if not getattr(self, "ended", False):
        _post(self, record, reached)
""",
        "test_a_stop_loses_nothing",
        "pre_commit after interrupt returned offsets of records not written",
    ),
}

CASES = [
    pytest.param(words, *defect, id=f"{kind}: {name}")
    for kind, words, defects in (
        ("source", ("source",), SOURCES),
        ("spooled source", ("source",), SPOOLED),
        ("sink", ("sink",), SINKS),
        ("HTTP source", ("source", "http"), HTTP_SOURCES),
        ("HTTP sink", ("sink", "http"), HTTP_SINKS),
    )
    for name, defect in defects.items()
]


@pytest.mark.parametrize(("words", "plant", "caught_by", "message"), CASES)
def test_a_planted_defect_is_caught(words, plant, caught_by, message, run_planted):
    run_planted(words, plant, caught_by, message)
