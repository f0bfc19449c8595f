"""The table of live points: order, staleness, tree and selection."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.points.live import table as table_module
from tieline_connectors.points.live.point import UNREAD, LivePoint
from tieline_connectors.points.live.selection import PAGE, Selection, select
from tieline_connectors.points.live.staleness import SECOND, SHORTEST, UNKNOWN, limit_of, with_gap
from tieline_connectors.points.live.table import LiveTable, NewValue
from tieline_connectors.points.live.tree import Place, branches, children
from tieline_connectors.points.names import parse_point_text, point_id, point_text
from tieline_connectors.points.questions import KnownPoint, PointName

MINUTE = 60 * SECOND
NAME = PointName("vol1", "campus/ahu1", "temp")

names = st.builds(PointName, st.text(max_size=8), st.text("ab/", max_size=8), st.text(max_size=8))


def new(value: Any, time: int, name: PointName = NAME, units: str | None = "degF") -> NewValue:
    return NewValue(name, f"devices/{name.device}/all", units, value, time)


def filled(values: Sequence[NewValue]) -> LiveTable:
    table = LiveTable()
    table.update(values)
    return table


@given(names)
def test_a_name_survives_its_address(name: PointName) -> None:
    assert parse_point_text(point_text(name)) == name


@given(st.text(max_size=20))
def test_any_text_is_a_name_or_none(text: str) -> None:
    name = parse_point_text(text)
    assert name is None or parse_point_text(point_text(name)) == name


@given(names, names)
def test_two_names_have_two_ids(first: PointName, second: PointName) -> None:
    assert (point_id(first) == point_id(second)) == (first == second)


def test_a_value_is_stale_after_three_intervals() -> None:
    table = filled([new(1.0, minute * MINUTE) for minute in range(4)])
    table.judge(3 * MINUTE + 180 * SECOND)
    assert not table.snapshot()[0].is_stale
    table.judge(3 * MINUTE + 181 * SECOND)
    assert table.snapshot()[0].is_stale


def test_a_new_value_ends_staleness() -> None:
    table = filled([new(1.0, 0)])
    table.judge(UNKNOWN + 1)
    assert table.snapshot()[0].problem == "stale"
    table.update([new(2.0, UNKNOWN + 1)])
    assert table.snapshot()[0].problem == ""


def test_time_that_the_follower_skipped_makes_no_value_stale() -> None:
    table = filled([new(1.0, second * SECOND) for second in range(5)])
    table.unseen += 300 * SECOND
    table.judge(320 * SECOND)
    assert not table.snapshot()[0].is_stale
    table.judge(340 * SECOND)
    assert table.snapshot()[0].is_stale


def test_one_outage_is_not_the_interval() -> None:
    gaps: tuple[int, ...] = ()
    time = 0
    for gap in (60, 60, 60, 86400, 60):
        gaps = with_gap(gaps, time, time + gap * SECOND)
        time += gap * SECOND
    assert limit_of(gaps) == 180 * SECOND


@given(st.lists(st.integers(-(10**9), 10**12), max_size=20))
def test_a_limit_is_at_least_thirty_seconds(times: Sequence[int]) -> None:
    gaps: tuple[int, ...] = ()
    for previous, time in itertools.pairwise(times):
        gaps = with_gap(gaps, previous, time)
    assert limit_of(gaps) == UNKNOWN if not gaps else limit_of(gaps) >= SHORTEST
    assert len(gaps) <= 5
    assert all(gap > 0 for gap in gaps)


def test_an_older_value_changes_nothing() -> None:
    table = filled([new("new", 2 * MINUTE), new("old", MINUTE)])
    assert table.snapshot()[0].value == "new"


def test_a_store_adds_points_whose_value_is_read_later() -> None:
    table = LiveTable()
    table.seed([KnownPoint(NAME, "devices/campus/ahu1/all", "degF", 5 * MINUTE)])
    (point,) = table.snapshot()
    assert point.value is UNREAD
    table.set_stored_value(NAME, 6 * MINUTE, 20.5)  # the list of all points was not that new
    assert (table.snapshot()[0].value, table.snapshot()[0].time) == (20.5, 6 * MINUTE)
    table.set_stored_value(NAME, 6 * MINUTE, 99.0)
    assert table.snapshot()[0].value == 20.5


def test_a_stored_value_does_not_replace_a_live_one() -> None:
    table = filled([new(1.0, 6 * MINUTE)])
    table.seed([KnownPoint(NAME, "devices/campus/ahu1/all", "degF", 5 * MINUTE)])
    table.set_stored_value(NAME, 5 * MINUTE, 20.5)
    assert table.snapshot()[0].value == 1.0


def test_a_reader_sees_a_version_only_after_all_its_points() -> None:
    table = LiveTable()
    done = threading.Event()
    missed: list[int] = []

    def read() -> None:
        seen = 0
        while not done.is_set():
            version = table.version
            for point in table.snapshot():
                if seen >= point.version and point.value != values.get(point.id, point.value):
                    missed.append(point.version)
                values[point.id] = point.value
            seen = version

    values: dict[str, Any] = {}
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        table.update([new(number, number * SECOND, NAME._replace(point=str(which))) for which in range(20)])
    done.set()
    reader.join()
    assert missed == []


def test_values_of_an_open_chart_are_kept_and_others_are_not() -> None:
    table = filled([new(1.0, 0), new(1.0, 0, NAME._replace(point="other"))])
    point = point_id(NAME)
    table.follow([point])
    before = table.version
    table.update([new(2.0, SECOND), new(3.0, 2 * SECOND), new(9.0, SECOND, NAME._replace(point="other"))])
    assert [value.value for value in table.recent([point], before)[point]] == [2.0, 3.0]
    assert table.recent([point], table.version) == {}
    table.follow([])
    assert table.recent([point], 0) == {}


def test_a_bus_cannot_fill_the_memory_with_names(monkeypatch: Any) -> None:
    monkeypatch.setattr(table_module, "MAX_POINTS", 3)
    table = filled([new(1, 0, NAME._replace(point=str(number))) for number in range(5)])
    assert (len(table), table.dropped) == (3, 2)


@given(st.lists(names, max_size=30, unique=True))
def test_the_tree_leads_to_every_point(every: Sequence[PointName]) -> None:
    points = filled([new(1.0, 0, name) for name in every]).snapshot()
    reached: list[PointName] = []

    def walk(place: Place) -> None:
        inside = [point for point in points if place.contains(point)]
        nodes = children(place, inside)
        below = [point for node in nodes for point in inside if node.place.contains(point)]
        assert len(below) == len(set(below)) == sum(node.points for node in nodes)
        reached.extend(point.name for point in inside if point not in below)
        for node in nodes:
            assert node.place.ancestors()[-2] == place
            walk(node.place)

    walk(Place())
    assert sorted(reached) == sorted(every)


def test_a_tree_without_a_branch_leads_to_the_first_branch() -> None:
    devices = ("campus/b1/ahu1", "campus/b1/ahu2", "campus/b2/ahu1")
    points = filled([new(1.0, 0, PointName("vol1", device, "p")) for device in devices]).snapshot()
    nodes = branches(Place(), points)
    assert [(node.place.label_below(Place()), node.points) for node in nodes] == [
        ("vol1/campus/b1", 2),
        ("vol1/campus/b2", 1),
    ]
    place = Place("vol1", "campus/b1")
    below = [node.place.label_below(place) for node in branches(place, points[:2])]
    assert below == ["ahu1", "ahu2"]


def test_a_node_with_points_of_its_own_stays() -> None:
    points = filled([new(1.0, 0, PointName("vol1", device, "p")) for device in ("ahu", "ahu/fan")]).snapshot()
    assert [node.place for node in branches(Place(), points)] == [Place("vol1", "ahu")]


def some_points() -> Sequence[LivePoint]:
    table = filled(
        [
            new(70.0, 0, PointName("vol1", "campus/b1/ahu1", "ZoneTemperature")),
            new(True, 0, PointName("vol1", "campus/b2/ahu2", "Fan"), None),
            new(math.nan, 0, PointName("vol2", "campus/b1/vav", "Flow"), "cfm"),
            new("auto", 0, PointName("vol2", "campus/b1/vav", "Mode"), ""),
        ]
    )
    return table.snapshot()


def names_of(selection: Selection) -> list[str]:
    return [point.name.point for point in select(selection, some_points(), 0).rows]


def test_abnormal_points_come_first() -> None:
    assert names_of(Selection()) == ["Flow", "ZoneTemperature", "Fan", "Mode"]


def test_every_word_of_a_search_must_occur() -> None:
    assert names_of(Selection(words="b1 ZONE")) == ["ZoneTemperature"]
    assert names_of(Selection(words="b1 fan")) == []


def test_tags_select() -> None:
    assert names_of(Selection(unit="cfm")) == ["Flow"]
    assert names_of(Selection(type="boolean")) == ["Fan"]
    assert names_of(Selection(Place("vol1", "campus/b2"))) == ["Fan"]
    assert names_of(Selection(only=[some_points()[0].id])) == ["ZoneTemperature"]


def test_a_page_beyond_the_last_is_the_last() -> None:
    points = filled([new(1.0, 0, NAME._replace(point=f"{n:04}")) for n in range(PAGE + 1)]).snapshot()
    selected = select(Selection(page=9), points, 0)
    assert (selected.page, selected.pages, len(selected.rows)) == (2, 2, 1)
