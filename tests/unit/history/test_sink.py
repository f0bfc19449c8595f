"""The sink ``history``: what it stores, and what it does when its file cannot be used."""

import logging
import math
import os
import stat
from contextlib import closing
from types import SimpleNamespace

import apsw
import pytest

from tieline.api import DataError, FatalError, RetriableError
from tieline_connectors.history.database import disk_full_error
from tieline_connectors.history.writing.lock import FileLock
from tieline_connectors.history.writing.writer import HistoryWriter
from tieline_connectors.points.questions import PointName

TEMP = PointName("p", "campus/ahu1", "temp")
ALWAYS = (0, 2**60)


def value_of(store, point="temp"):
    (value,) = store.values(TEMP._replace(point=point), *ALWAYS, 10)
    return value.value


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.0, -0.0, 1.5, math.inf, -math.inf, "", "a\0b", "건물"],
    ids=repr,
)
def test_scalars_keep_their_exact_type(new_task, new_store, reading, value):
    new_task().put([reading(0, {"temp": value})])
    stored = value_of(new_store())
    assert (type(stored), repr(stored)) == (type(value), repr(value))


def test_nan_is_not_null(new_task, new_store, reading):
    new_task().put([reading(0, {"temp": math.nan})])
    assert math.isnan(value_of(new_store()))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (str(2**70), 2**70),
        ("[1, 1.0, null]", [1, 1.0, None]),
        ('{"b": 1, "a": "\\udc00"}', {"b": 1, "a": "\udc00"}),
    ],
)
def test_json_text_is_stored_exactly(new_task, new_store, reading, text, value, path):
    task = new_task()
    task.put([reading(0, {"temp": {"json": text}})])
    assert value_of(new_store()) == value
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.execute("SELECT value FROM reading").get == b"\3" + text.encode()


def test_values_of_a_schemaless_record_are_stored_as_json(new_task, new_store, reading):
    new_task().put([reading(0, {"temp": 2**70, "list": [1, {"a": None}]})])
    store = new_store()
    assert value_of(store) == 2**70
    assert value_of(store, "list") == [1, {"a": None}]


def test_json_that_is_nested_too_deep_to_parse_is_kept_as_text(new_task, new_store, reading):
    text = "[" * 100_000 + "]" * 100_000
    new_task().put([reading(0, {"temp": {"json": text}})])
    assert value_of(new_store()) == {"_json": text}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": {"temp": {"json": "{"}}}, "JSON"),
        ({"points": {"temp": b"bytes"}}, "bytes cannot be stored"),
        ({"points": {"a\udc00": 1}}, "not text that UTF-8 has"),
        ({"time": "now"}, "not a time"),
        ({"time": 2**62}, "not a time"),
        ({"received": True}, "not a time"),
        ({"points": None}, "volttron.DeviceReading"),
        ({"device": 7}, "not text"),
    ],
)
def test_a_record_that_does_not_fit_is_a_data_error_and_its_neighbours_are_stored(
    new_task, new_store, reading, change, message
):
    task = new_task()
    bad = reading(1)._replace(value=reading(1).value | change)
    with pytest.raises(DataError) as caught:
        task.put([reading(0), bad, reading(2)])
    assert set(caught.value.failures) == {1}
    assert message in str(caught.value.failures[1])
    assert [value.value for value in new_store().values(TEMP, *ALWAYS, 10)] == [2.0, 0.0]


def test_a_value_that_is_not_a_reading_or_has_no_identity_is_a_data_error(new_task, reading):
    records = [reading(0)._replace(value="text"), reading(1)._replace(headers=())]
    with pytest.raises(DataError) as caught:
        new_task().put(records)
    assert "volttron.DeviceReading" in str(caught.value.failures[0])
    assert "tieline.id" in str(caught.value.failures[1])


def test_kinds_messages_and_tombstones_that_are_not_stored_are_counted(new_task, new_store, reading):
    task = new_task(publishes="ALL,OTHER")
    message = {"platform": "p", "topic": "alerts", "time": 0, "received": 0, "headers": "{}", "body": "{}"}
    task.put(
        [
            reading(0, kind="POINT"),
            reading(1, kind="MULTI"),
            reading(2, kind="OTHER"),
            reading(3)._replace(value=None),
            reading(4)._replace(value=message),
        ]
    )
    assert [value.time for value in new_store().values(TEMP, *ALWAYS, 10)] == [reading(2).value["time"]]
    expected = {"skipped.POINT": 1, "skipped.MULTI": 1, "skipped.tombstone": 1, "skipped.no_points": 1}
    assert task.context.counters == expected


def test_a_data_log_keeps_the_time_of_each_value_and_the_last_value_of_a_time(new_task, new_store, reading):
    time = reading(0).value["time"]
    readings = [
        {"point": "temp", "value": value, "units": "F", "time": time + n, "time_source": "TIMESTAMP"}
        for n, value in [(0, 1), (7, 2), (0, 3)]
    ]
    record = reading(0, readings=readings, topic="datalogger/log")
    del record.value["points"]
    new_task().put([record])
    values = new_store().values(TEMP, *ALWAYS, 10)
    assert [(value.time - time, value.value, value.units) for value in values] == [(7, 2, "F"), (0, 3, "F")]


def test_each_value_is_counted_by_what_became_of_it(new_task, new_store, reading):
    task = new_task()
    first = reading(0, {"temp": 1})
    task.put([first])
    task.put([first])
    task.put([reading(0, {"temp": 1}, kind="POINT", topic="devices/campus/ahu1/temp")])
    task.put([reading(0, {"temp": 2}, received=60)])
    task.put([reading(0, {"temp": 3}, received=30)])
    assert value_of(new_store()) == 2
    expected = {"duplicates": 1, "repeated": 1, "replaced": 1, "outdated": 1}
    assert task.context.counters == expected


def test_a_correction_changes_the_rollups(new_task, new_store, reading):
    task = new_task()
    task.put([reading(n, {"temp": float(n % 7)}) for n in range(0, 7200, 10)])
    task.put([reading(3000, {"temp": 1e6}, received=9000)])
    store = new_store()
    start = reading(0).value["time"]
    series = store.series(TEMP, start, start + 7200 * 1_000_000, 2)
    assert [bucket.maximum for bucket in series.buckets] == [1e6, 6.0]
    task.put([reading(3000, {"temp": 0.0}, received=9001)])
    assert max(bucket.maximum for bucket in store.series(TEMP, start, 2**60, 2).buckets) == 6.0


def test_files_are_private_for_any_umask(new_task, path, reading):
    before = os.umask(0)
    try:
        new_task().put([reading(0)])
    finally:
        os.umask(before)
    names = {file.name for file in path.parent.iterdir()}
    assert names == {path.name + end for end in ("", "-wal", "-shm", ".lock", ".reserve")}
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_second_sink_waits_for_the_file_and_names_its_owner(new_task, reading):
    owner, other = new_task(), new_task(start=False)
    with pytest.raises(RetriableError, match=f"belongs to the running process {os.getpid()}; stop it"):
        other.start()
    owner.put([reading(0)])
    owner.stop()
    other.start()
    other.put([reading(1)])


def test_one_task_runs_whatever_tasks_max_is(new_task):
    from tieline_connectors.history.sink import HistorySink

    class Context:
        settings = {"file": "x"}

    connector = HistorySink(Context(), new_task(start=False).config)  # type: ignore[arg-type]
    assert connector.task_configs(5) == [Context.settings]


def test_a_file_that_is_moved_is_opened_again_and_nothing_is_written_into_the_lost_one(
    new_task, new_store, path, reading
):
    task = new_task()
    task.put([reading(0)])
    for end in ("", "-wal", "-shm"):
        old = path.with_name(path.name + end)
        if old.exists():
            old.rename(path.with_name(f"moved.db{end}"))
    with pytest.raises(RetriableError, match="was deleted, moved or replaced"):
        task.put([reading(1)])
    task.put([reading(1)])
    assert value_of(new_store()) == 1.0


def test_a_full_disk_is_an_outage_and_the_batch_is_written_when_there_is_room(
    new_task, new_store, reading, monkeypatch, path
):
    opened = []

    def open_small(self, path, create=HistoryWriter.__init__):
        create(self, path)
        opened.append(self.connection)

    monkeypatch.setattr(HistoryWriter, "__init__", open_small)
    task = new_task()
    task.put([reading(0)])
    opened[-1].pragma("max_page_count", opened[-1].pragma("page_count"))
    batch = [reading(n, {f"point{k}": n for k in range(20)}) for n in range(1, 100)]
    with pytest.raises(RetriableError, match=r"disk of .* is full; free some space, or lower retention"):
        task.put(batch)
    assert not path.with_name(f"{path.name}.reserve").exists()
    assert task.context.counters == {}
    opened[-1].pragma("max_page_count", 2**30)
    task.put(batch)
    assert len(new_store().values(TEMP._replace(point="point7"), *ALWAYS, 1000)) == 99


def test_a_full_disk_still_lets_readings_expire(new_task, reading, monkeypatch, path):
    """The file may not grow, as on a full disk: what expires makes room for what comes."""
    opened = []

    def open_small(self, path, create=HistoryWriter.__init__):
        create(self, path)
        opened.append(self.connection)

    monkeypatch.setattr(HistoryWriter, "__init__", open_small)
    with closing_task(new_task()) as task:
        task.put([reading(n * 60, {f"point{k}": n for k in range(20)}) for n in range(600)])
    task = new_task(retention_ms="3600000")
    opened[-1].pragma("max_page_count", opened[-1].pragma("page_count"))
    late = [reading(n * 60 + 1, {f"point{k}": n for k in range(20)}) for n in range(540, 600)]
    for _ in range(50):
        try:
            task.put(late)
            break
        except RetriableError:
            continue
    else:
        raise AssertionError("nothing expired")


def test_after_a_full_disk_no_batch_uses_up_the_reserve(new_task, reading, monkeypatch, path):
    task = new_task()
    task.put([reading(0)])
    room = [0]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=room[0], f_frsize=4096))
    monkeypatch.setattr(HistoryWriter, "write", lambda self, records: fail_with(disk_full_error(path)))
    with pytest.raises(RetriableError, match="is full"):
        task.put([reading(1)])
    monkeypatch.undo()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=room[0], f_frsize=4096))
    with pytest.raises(RetriableError, match="is full"):
        task.put([reading(1)])
    room[0] = 2**20
    task.put([reading(1)])
    assert path.with_name(f"{path.name}.reserve").exists()


def fail_with(error):
    raise error


def closing_task(task):
    class Closing:
        def __enter__(self):
            return task

        def __exit__(self, *_):
            task.stop()

    return Closing()


@pytest.mark.parametrize("damage", [b"no database at all, but text", None])
def test_a_damaged_or_foreign_file_stops_the_task_with_the_fix(new_task, path, damage):
    if damage is None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("CREATE TABLE other (x)")
    else:
        path.write_bytes(damage * 1000)
    task = new_task(start=False)
    message = "belongs to another program" if damage is None else r"is damaged .*\.recover"
    with pytest.raises(FatalError, match=message):
        task.start()


def test_a_damaged_page_stops_the_task_with_the_fix(new_task, path, reading):
    with closing_task(new_task()) as task:
        task.put([reading(n, {f"point{k}": n for k in range(50)}) for n in range(200)])
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    task = new_task(start=False)
    with pytest.raises(FatalError, match="is damaged"):
        restart(task, reading(1))


def restart(task, record):
    task.start()
    task.put([record])


def test_a_file_of_a_newer_version_is_left_alone(new_task, path):
    new_task().stop()
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(FatalError, match="has format 99"):
        new_task()


def test_a_lock_in_a_folder_that_cannot_be_made_is_an_outage(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RetriableError, match="cannot be written"):
        FileLock(tmp_path / "file" / "history.db")


def test_an_error_of_retention_is_logged_and_does_not_stop_the_task(new_task, reading, monkeypatch, caplog):
    task = new_task()
    monkeypatch.setattr(
        "tieline_connectors.history.writing.retention.Retention.run",
        lambda self, seconds: (_ for _ in ()).throw(RetriableError("the file is locked")),
    )
    with caplog.at_level(logging.WARNING):
        task.put([reading(0)])
        task.flush({})
    assert [record.message for record in caplog.records] == [
        "expired readings cannot be deleted now: the file is locked"
    ]
