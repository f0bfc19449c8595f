"""MongoStore answers like a naive reduction of the documents, with and without rollups, in every layout."""

import math
import random

import pytest

from tieline_connectors.mongo.query.search import match_stages
from tieline_connectors.mongo.query.store import MongoStore
from tieline_connectors.points.questions import (
    Bucket,
    KnownPoint,
    PointName,
    ReadingStore,
    Search,
    StoreUnavailableError,
)
from tieline_connectors.points.stores import Stores
from tieline_lab.process import free_port

START = 1_767_225_600_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
TEMP = PointName("lab", "campus/b1/ahu1", "temp")
LAYOUTS = ("reading", "point", "timeseries")


@pytest.fixture
def store(mongo_uri, database):
    """A store of the collection ``readings``."""
    stores = []

    def open_store(collection="readings", timeout=60.0):
        stores.append(MongoStore(mongo_uri, database.name, collection, timeout))
        return stores[-1]

    yield open_store
    for opened in stores:
        opened.close()


def published(record, topic):
    """The same reading under another topic of the bus."""
    return record._replace(value=record.value | {"topic": topic})


def flush(sink):
    sink.task.flush({})


def some_readings(reading, count=300, seed=7):
    """Readings at irregular times in ten days: numbers, and now and then what no chart can show."""
    chance = random.Random(seed)
    odd = (None, True, "off", math.nan, math.inf, -0.0, {"json": str(2**70)}, {"json": "[1]"}, 2**40)
    records = []
    for number in range(count):
        second = chance.choice((0, 1, 59, 3599, 3600, chance.randrange(10 * 86_400)))
        value = chance.choice(odd) if not chance.randrange(4) else round(chance.uniform(-50, 50), 3)
        points = {"temp": value, "a.b": number}
        records.append(reading(second + number * 1e-6, points=points, time=START + second * SECOND + number))
    return records


def numbers_of(records, start, end):
    """The numbers of the point temp in a range, and whether there is something else; in order."""
    numbers, other = [], False
    for record in records:
        value = record.value["points"]["temp"]
        if isinstance(value, dict):
            value = 2**70 if value["json"] == str(2**70) else "list"
        if not start <= record.value["time"] < end or value is None:
            continue
        if isinstance(value, str) or not math.isfinite(value):
            other = True
        else:
            numbers.append((record.value["time"], float(value)))
    return sorted(numbers), other


def reduce_naively(numbers, start, width):
    """The buckets of all numbers; of width 0 each of them."""
    if width == 0:
        return [Bucket(time, *[number] * 4) for time, number in numbers]
    groups: dict[int, list[tuple[int, float]]] = {}
    for time, number in numbers:
        groups.setdefault(time // width, []).append((time, number))
    return [
        Bucket(
            max(start, number * width),
            group[0][1],
            min(value for _, value in group),
            max(value for _, value in group),
            group[-1][1],
        )
        for number, group in sorted(groups.items())
    ]


RANGES = [
    (START, START + 10 * DAY, 10),
    (START + 1_234_567, START + 9 * DAY + 4_567_891, 100),
    (START + 59 * SECOND + 1, START + 2 * HOUR + 1, 5),
    (START - 400 * DAY, START + 400 * DAY, 50),
    (START + 30 * SECOND, START + 90 * SECOND, 1),
]


@pytest.mark.parametrize("rollups", ["true", "false"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_series_equals_a_naive_reduction_of_the_documents(sink, reading, store, layout, rollups):
    records = some_readings(reading)
    running = sink(layout=layout, rollups=rollups)
    running.put(records)
    flush(running)
    answers: ReadingStore = store()

    for start, end, intervals in RANGES:
        series = answers.series(TEMP, start, end, intervals)
        numbers, other = numbers_of(records, start, end)
        assert list(series.buckets) == reduce_naively(numbers, start, series.width)
        assert len(series.buckets) <= 2 * intervals + 2
        assert series.skipped == other


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_range_with_few_values_shows_each_of_them(sink, reading, store, layout):
    sink(layout=layout).put([reading(n, points={"temp": n / 2}) for n in (2, 0, 1)])

    series = store().series(TEMP, START, START + HOUR, 100)

    assert series.width == 0
    assert [(bucket.start, bucket.last) for bucket in series.buckets] == [
        (START + n * SECOND + 123, n / 2) for n in range(3)
    ]


@pytest.mark.parametrize("rollups", ["true", "false"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_points_have_the_topic_and_units_of_their_newest_value_and_almost_its_time(
    sink, reading, store, layout, rollups
):
    running = sink(layout=layout, rollups=rollups)
    new = {"metadata": {"temp": {"units": "F"}}}
    topic = "devices/campus/b1/ahu1/all"
    running.put(
        [
            reading(1, points={"temp": 1, "$x": "text"}),
            published(reading(3, points={"temp": 3}, **new), "devices/new"),
            reading(2, points={"temp": 2}),
        ]
    )
    flush(running)
    later = [reading(5, points={"temp": 3}, **new), reading(4, points={"temp": None})]
    running.put([published(record, "devices/new") for record in later])
    flush(running)

    assert sorted(store().points()) == [
        KnownPoint(TEMP._replace(point="$x"), topic, None, START + 1 * SECOND + 123),
        KnownPoint(TEMP, "devices/new", "F", START + (3 if rollups == "true" else 5) * SECOND + 123),
    ]
    running.put([reading(300, points={"temp": 4}), reading(301, points={"temp": 5})])
    flush(running)
    (_, temp) = sorted(store().points())
    assert 0 <= START + 301 * SECOND + 123 - temp.last_time < 5 * MINUTE
    stores = Stores({"s": store()})
    stores.points()
    newest = stores.newest_value(TEMP, temp.last_time)
    assert newest is not None
    assert (newest.time, newest.value) == (START + 301 * SECOND + 123, 5)


def test_the_list_of_points_needs_no_rollup(sink, database, reading, store):
    running = sink(rollups="true")
    running.put([reading(n, device=f"campus/b1/ahu{n}") for n in range(20)])
    flush(running)
    database["readings.rollup"].drop()  # 20,000 points would be as many documents
    assert len(store().points()) == 100


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_export_keep_types_and_the_order_within_a_millisecond(sink, reading, store, layout):
    values = [1, 1.0, True, "on", None, {"json": str(2**70)}, 2**60, {"json": "[1]"}]
    records = [reading(n, points={"temp": v}, time=START + n) for n, v in enumerate(values)]
    running = sink(layout=layout)
    running.put([*records[::2], *records[1::2]])
    expected = [1, 1.0, True, "on", None, 2**70, 2**60, [1]]

    exported = list(store().export(TEMP, START, START + 8))
    newest = store().values(TEMP, START, START + 8, 3)

    assert [(value.time, value.value) for value in exported] == list(
        zip(range(START, START + 8), expected, strict=True)
    )
    assert [type(value.value) for value in exported][:3] == [int, float, bool]
    assert exported[0].units == "C"
    assert [value.value for value in newest] == [[1], 2**60, 2**70]
    assert [value.value for value in store().values(TEMP, START, START + 2, 9)] == [1.0, 1]
    assert store().values(TEMP._replace(platform="else"), START, START + 8, 3) == []


def test_search_pages_through_everything_newest_first(sink, reading, store):
    records = [reading(n, time=START + n * 300, device=f"d{n % 2}") for n in range(20)]
    records += [reading(n, time=START - n * 40 * DAY) for n in range(1, 5)]
    sink().put(records)
    opened, times, before = store(), [], None
    while page := opened.search(Search(), 7, before):
        times += [document["time"] for document in page]
        before = times[-1]

    assert times == sorted((record.value["time"] for record in records), reverse=True)


def times(documents):
    return [(document["time"] - START) // SECOND for document in documents]


def test_search_answers_by_topic_device_expression_and_time(sink, reading, store):
    sink().put([reading(n, device=f"campus/b1/ahu{n % 2}") for n in range(6)])
    search = store().search

    assert times(search(Search(), 3)) == [5, 4, 3]
    assert times(search(Search(topic="devices/campus/b1/ahu0/all"), 9)) == [4, 2, 0]
    assert times(search(Search(pattern="ahu1/all$"), 2)) == [5, 3]
    assert times(search(Search(device="campus/b1/ahu1", since=START + 2 * SECOND), 9)) == [5, 3]
    assert times(search(Search(until=START + 2 * SECOND + 124), 9, before=START + 2 * SECOND + 123)) == [1, 0]
    with pytest.raises(ValueError, match="not a regular expression"):
        search(Search(pattern="("), 9)


@pytest.mark.parametrize(
    ("layout", "search", "index"),
    [
        ("reading", Search(), "time_-1"),
        ("reading", Search(topic="devices/campus/b1/ahu1/all"), "topic_1_time_-1"),
        ("reading", Search(pattern="ahu[0-9]"), "time_-1"),
        ("reading", Search(device="campus/b1/ahu1"), "device_1_time_-1"),
        ("point", Search(topic="devices/campus/b1/ahu1/all"), "topic_1_time_-1"),
        ("cloudagent", Search(topic="devices/campus/b1/ahu1/all"), "topic_1_date_-1"),
        ("command-history", Search(history="from-cloud"), "from_1_time_-1_time_us_-1"),
        ("command-history", Search(history="to-cloud"), "to_1_time_-1_time_us_-1"),
        ("command-history", Search(command="c1"), "command_id_1_time_-1_time_us_-1"),
    ],
)
def test_the_queries_of_the_old_system_read_an_index(sink, reading, database, layout, search, index):
    running = sink(layout=layout)
    if layout == "command-history":
        command = {"command_id": "c1", "issued_at": START, "writes": [{"point": "a/b", "value": 1}]}
        record = reading(1)
        running.put([record._replace(value=command)])
    else:
        running.put([reading(n) for n in range(50)])
    newest = database.readings.find_one()
    field = "date" if layout == "cloudagent" else "time"

    indexed = match_stages(search._replace(since=START), newest)[0]["$match"]
    plan = str(database.readings.find(indexed).sort(field, -1).explain()["queryPlanner"]["winningPlan"])

    assert "IXSCAN" in plan
    assert index in plan


def test_commands_and_their_results_are_found_both_ways(sink, reading, store):
    command = {"command_id": "c1", "issued_at": START, "writes": [{"point": "a/b", "value": 1}]}
    result = {"command_id": "c1", "state": "SUCCEEDED", "at": START + 1, "writes": [{"point": "a/b"}]}
    values = (command, result, {**command, "command_id": "c2", "issued_at": START + 2})
    sink(layout="command-history").put([reading(n)._replace(value=value) for n, value in enumerate(values)])
    search = store().search

    assert [d["time"] - START for d in search(Search(history="from-cloud"), 9)] == [2, 0]
    assert [d["state"] for d in search(Search(history="to-cloud"), 9)] == ["SUCCEEDED"]
    assert [d["topic"] for d in search(Search(command="c1"), 9)] == ["a/b", "a/b"]


def test_the_old_agents_documents_are_found_with_their_times(sink, reading, store, database):
    old = {"author": "volttron.cloudagnet", "topic": "devices/campus/b1/ahu1/all", "message": [{}, {}]}
    database.readings.insert_one({**old, "date": "2025-12-31 23:59:59.000001"})
    sink(layout="cloudagent").put([reading(n) for n in range(2)])

    documents = store().search(Search(device="campus/b1/ahu1"), 9)

    assert [document["time"] for document in documents] == [START + SECOND, START, START - 999_999]
    assert store().points() == []
    assert store().series(TEMP, START, START + HOUR, 10).buckets == []


def test_an_empty_collection_has_no_answers(store):
    assert store().points() == []
    assert store().series(TEMP, START, START + HOUR, 10).buckets == []
    assert store().values(TEMP, START, START + HOUR, 10) == []
    assert list(store().export(TEMP, START, START + HOUR)) == []
    assert store().search(Search(), 10) == []


def test_a_server_that_does_not_answer_is_named_without_the_password():
    uri = f"mongodb://operator:s3cr%40t-word@127.0.0.1:{free_port()}/"
    store = MongoStore(uri, "tieline", "readings", timeout=0.3)

    for ask in (
        store.points,
        lambda: store.series(TEMP, 0, 1, 1),
        lambda: store.values(TEMP, 0, 1, 1),
        lambda: list(store.export(TEMP, 0, 1)),
        lambda: store.search(Search(), 1),
    ):
        with pytest.raises(
            StoreUnavailableError, match=r"MongoDB at 127\.0\.0\.1:\d+, tieline\.readings"
        ) as e:
            ask()
        assert "s3cr" not in str(e.value)
    assert "s3cr" not in store.name
    store.close()
