"""Questions to a history file, beside the sink that writes it."""

import threading
import time
from contextlib import closing

import apsw
import pytest

from tieline_connectors.history.reading.patterns import matching
from tieline_connectors.points.questions import (
    Bucket,
    KnownPoint,
    PointName,
    ReadingStore,
    Search,
    Series,
    StoreUnavailableError,
)

SECOND = 1_000_000
TEMP = PointName("p", "campus/ahu1", "temp")
ALWAYS = (0, 2**60)


def test_it_is_a_reading_store(new_store, path):
    store: ReadingStore = new_store()
    assert store.name == f"history file {path}"


def test_points_have_the_topic_units_and_time_of_their_newest_value(new_task, new_store, reading):
    task = new_task()
    alone = reading(5, topic="devices/campus/ahu1/temp", kind="POINT", metadata={})
    late = reading(3, topic="devices/late", metadata={})
    task.put([reading(0), alone, late, reading(1, {"fan": True}, device="campus/ahu2")])
    time_of = alone.value["time"]
    assert sorted(new_store().points()) == [
        KnownPoint(TEMP, "devices/campus/ahu1/temp", None, time_of),
        KnownPoint(
            PointName("p", "campus/ahu2", "fan"), "devices/campus/ahu2/all", None, time_of - 4 * SECOND
        ),
    ]


def test_an_empty_file_and_an_unknown_point_have_no_values(new_task, new_store):
    new_task()
    store = new_store()
    assert store.points() == []
    assert store.series(TEMP, *ALWAYS, 100) == Series(0, (), False)
    assert store.values(TEMP, *ALWAYS, 10) == []
    assert list(store.export(TEMP, *ALWAYS)) == []
    assert store.search(Search(), 10) == []


def test_few_values_are_returned_one_by_one_and_a_gap_is_a_gap(new_task, new_store, reading):
    new_task().put([reading(0), reading(1, {"temp": None}), reading(5), reading(6, {"temp": "text"})])
    start = reading(0).value["time"]
    series = new_store().series(TEMP, start, start + 60 * SECOND, 10)
    expected = [Bucket(start, *[0.0] * 4), Bucket(start + 5 * SECOND, *[5.0] * 4)]
    assert series == Series(0, expected, True)


def test_a_null_is_not_a_skipped_value(new_task, new_store, reading):
    new_task().put([reading(n, {"temp": None if n % 2 else n}) for n in range(4000)])
    start = reading(0).value["time"]
    series = new_store().series(TEMP, start, start + 4000 * SECOND, 10)
    assert not series.skipped
    assert series.width >= 300 * SECOND


def test_a_spike_of_one_second_is_in_a_chart_of_days(new_task, new_store, reading):
    task = new_task()
    task.put([reading(n * 60) for n in range(3 * 1440)])
    task.put([reading(100_001, {"temp": -5e9})])
    start = reading(0).value["time"]
    series = new_store().series(TEMP, start, start + 3 * 86400 * SECOND, 50)
    assert min(bucket.minimum for bucket in series.buckets) == -5e9
    assert series.width == 3600 * SECOND


def test_expired_readings_are_shown_by_their_rollups(new_task, new_store, reading):
    records = [reading(n * 60, {"temp": float(n % 9)}) for n in range(48 * 60)]
    task = new_task(retention_ms="7200000")
    task.put(records)
    task.put(records)  # the limits are looked at every few seconds, or while there is something to delete
    store = new_store()
    start = reading(0).value["time"]
    assert store.values(TEMP, *ALWAYS, 1)[0].time == records[-1].value["time"]
    assert len(list(store.export(TEMP, *ALWAYS))) == 3 * 60
    series = store.series(TEMP, start + 1, start + 3600 * SECOND, 1000)
    assert series.width == 300 * SECOND
    assert [(bucket.minimum, bucket.maximum) for bucket in series.buckets][2] == (1.0, 5.0)
    day = store.series(TEMP, start, start + 48 * 3600 * SECOND, 48)
    assert (day.width, len(day.buckets)) == (3600 * SECOND, 48)


def test_an_export_continues_where_a_page_ends(new_task, new_store, reading, monkeypatch):
    monkeypatch.setattr("tieline_connectors.history.store._EXPORTED", 7)
    monkeypatch.setattr("tieline_connectors.history.reading.rows._ROWS", 3)
    new_task().put([reading(n * 500) for n in range(40)])
    assert [value.value for value in new_store().export(TEMP, *ALWAYS)] == [n * 500.0 for n in range(40)]


DOCUMENT_FIELDS = ["topic", "time", "time_source", "received", "sender"]
DOCUMENT_FIELDS += ["platform", "device", "point", "value", "units"]


def test_a_search_returns_documents_newest_first(new_task, new_store, reading):
    new_task().put([reading(n * 1800, device=f"campus/ahu{n % 2}") for n in range(6)])
    documents = new_store().search(Search(), 10)
    assert [document["value"] for document in documents] == [9000.0, 7200.0, 5400.0, 3600.0, 1800.0, 0.0]
    assert list(documents[0]) == DOCUMENT_FIELDS
    assert documents[0]["received"] == documents[0]["time"] + 5000
    assert documents[0]["units"] == "C"


@pytest.mark.parametrize(
    ("conditions", "values"),
    [
        ({"topic": "devices/campus/ahu1/all"}, [5, 3, 1]),
        ({"topic": "devices/campus/ahu1"}, []),
        ({"pattern": "ahu[02]/all$"}, [4, 2, 0]),
        ({"pattern": "ahu1", "topic": "devices/campus/ahu0/all"}, []),
        ({"device": "campus/ahu0"}, [4, 2, 0]),
        ({"since": 3}, [5, 4, 3]),
        ({"until": 3}, [2, 1, 0]),
        ({"since": 2, "until": 5, "device": "campus/ahu1"}, [3]),
    ],
)
def test_a_search_meets_all_conditions(new_task, new_store, reading, conditions, values):
    new_task().put([reading(n * 1800, {"temp": n}, device=f"campus/ahu{n % 2}") for n in range(6)])
    start = reading(0).value["time"]
    for name in ("since", "until"):
        if name in conditions:
            conditions = conditions | {name: start + conditions[name] * 1800 * SECOND}
    documents = new_store().search(Search(**conditions), 10)
    assert [document["value"] for document in documents] == values


def test_a_search_has_a_limit_a_time_before_and_either_order(new_task, new_store, reading):
    new_task().put([reading(n, {"temp": n}, device=f"campus/ahu{n % 3}") for n in range(30)])
    store = new_store()
    start = reading(0).value["time"]
    assert [d["value"] for d in store.search(Search(), 4)] == [29, 28, 27, 26]
    assert [d["value"] for d in store.search(Search(), 2, start + 27 * SECOND)] == [26, 25]
    assert [d["value"] for d in store.search(Search(), 3, newest=False)] == [0, 1, 2]


def test_a_topic_of_one_publication_is_found_among_others_of_its_point(new_task, new_store, reading):
    alone = [reading(n, {"temp": n}, kind="POINT", topic="devices/campus/ahu1/temp") for n in (3, 705, 4005)]
    new_task().put([reading(n, {"temp": n}) for n in range(0, 8000, 10)] + alone)
    search = Search(topic="devices/campus/ahu1/temp")
    assert [document["value"] for document in new_store().search(search, 2)] == [4005, 705]


def test_a_pattern_that_never_ends_is_ended_by_the_time_limit(new_task, new_store, reading):
    new_task().put([reading(0, device="a" * 60)])
    before = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"did not answer within 0.5 s"):
        new_store(seconds=0.5).search(Search(pattern="^devices/(a+)+$"), 10)
    assert time.monotonic() - before < 5


def test_a_pattern_that_is_not_an_expression_is_a_value_error(new_task, new_store, reading):
    new_task().put([reading(0)])
    with pytest.raises(ValueError, match="is not a regular expression"):
        new_store().search(Search(pattern="("), 10)
    with pytest.raises(ValueError, match="longer than 1000 letters"):
        new_store().search(Search(pattern="a" * 1001), 10)


def test_patterns_match_any_text_that_a_bus_can_have():
    texts = ["devices/건물/all", 'a"b\nc', "x"]
    assert matching("건물|\n", texts, 10.0) == texts[:2]
    assert matching("x", [], 10.0) == []


def test_a_file_that_the_sink_is_just_creating_is_unavailable(new_store, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(StoreUnavailableError, match="the sink is just creating it"):
        new_store().points()


def test_a_missing_file_is_unavailable_until_the_sink_creates_it(new_task, new_store, reading, path):
    store = new_store()
    with pytest.raises(StoreUnavailableError, match=r"there is no history file .*history creates it"):
        store.points()
    assert not path.exists()
    new_task().put([reading(0)])
    assert len(store.points()) == 1


def test_a_damaged_file_is_unavailable_with_the_fix(new_store, path):
    path.write_bytes(b"text" * 5000)
    with pytest.raises(StoreUnavailableError, match="is damaged"):
        new_store().points()


def test_a_file_that_was_replaced_is_read_anew(new_task, new_store, reading, path):
    task = new_task()
    task.put([reading(0)])
    store = new_store()
    assert len(store.points()) == 1
    task.stop()
    path.unlink()
    new_task()
    assert store.points() == []


def test_a_call_that_takes_too_long_is_interrupted(new_task, new_store, reading):
    new_task().put([reading(n) for n in range(3000)])
    with pytest.raises(StoreUnavailableError, match="did not answer within 0 s"):
        new_store(seconds=0.0).series(TEMP, *ALWAYS, 10)


def test_sqlite_itself_is_interrupted(new_task, new_store, reading):
    new_task().put([reading(0)])
    store = new_store(seconds=0.2)
    query = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n"
    with (
        pytest.raises(StoreUnavailableError, match="did not answer within"),
        store._connections.borrow() as connection,  # noqa: SLF001 - a query that never ends
    ):
        connection.rows(query)


def test_readers_do_not_keep_the_write_ahead_log_from_starting_over(new_task, new_store, reading, path):
    task = new_task()
    store = new_store()
    task.put([reading(0)])
    export = store.export(TEMP, *ALWAYS)
    next(export)
    wal = path.with_name(f"{path.name}-wal")
    for n in range(60):
        task.put([reading(n * 500 + k, {f"p{i}": k for i in range(20)}) for k in range(10)])
        store.series(TEMP, *ALWAYS, 100)
        store.search(Search(), 5)
    pages, copied = checkpoint(path)
    assert pages == copied
    assert wal.stat().st_size < 8 * 1024 * 1024
    assert list(export) == []


def checkpoint(path):
    with closing(apsw.Connection(str(path))) as connection:
        return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def test_many_threads_ask_while_the_sink_writes(new_task, new_store, reading):
    task = new_task()
    task.put([reading(0)])
    store = new_store()
    errors: list[BaseException] = []
    done = threading.Event()

    def ask():
        try:
            while not done.is_set():
                store.points()
                store.series(TEMP, *ALWAYS, 20)
                store.search(Search(device="campus/ahu1"), 5)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1, 60):
        task.put([reading(n)])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.values(TEMP, *ALWAYS, 100)) == 60


def test_a_closed_store_says_so(new_task, new_store):
    new_task()
    store = new_store()
    store.points()
    store.close()
    with pytest.raises(StoreUnavailableError, match="was closed"):
        store.points()
