"""The pages about points of a running worker, on the local log and a real history file."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from html import unescape
from typing import Any

import pytest

from tieline.api import SourceRecord
from tieline.api.commands import TopicClient
from tieline.topics.client import WorkerTopics
from tieline.topics.session import BrokerSession

HISTORY = {
    "name": "history",
    "connector.class": "history",
    "topics": "bus",
    "value.converter": "json",
}
HOSTILE = [
    "<script>alert(1)</script>",
    'quote" & <b>',
    "line\nbreak",
    "slash/inside",
    "100%",
    "=1+1",
    "",
    "L" * 10_000,
]


def reading(
    device: str, points: Mapping[str, Any], seconds_ago: float = 0.0, unit: str = "degF"
) -> SourceRecord:
    """Return a record with a reading, as JSON with the fields of ``volttron.DeviceReading``."""
    time_us = time.time_ns() // 1000 - int(seconds_ago * 1_000_000)
    value = {
        "platform": "vol1",
        "topic": f"devices/{device}/all",
        "device": device,
        "kind": "ALL",
        "sender": "platform.driver",
        "headers": {},
        "time": time_us,
        "time_source": "TIMESTAMP",
        "received": time_us,
        "points": dict(points),
        "metadata": {name: {"units": unit, "type": "float", "tz": "UTC"} for name in points},
    }
    return SourceRecord("bus", value)


@contextmanager
def topics(served) -> Iterator[TopicClient]:
    plan = served.plan
    with ExitStack() as at_exit:
        session = BrokerSession(plan.backend.open(owner=False), plan.backend.name, plan.external_registry)
        at_exit.enter_context(closing(session))
        yield WorkerTopics(session, at_exit)


@contextmanager
def running(served):
    """Run the connectors of a worker inside the block."""
    thread = threading.Thread(target=served.worker.run, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.worker.interrupt()
        thread.join(30)


@pytest.fixture
def worker(serve):
    """A running worker with a history."""
    with running(serve([HISTORY])) as served:
        yield served


@pytest.fixture(params=["history", pytest.param("mongo", marks=pytest.mark.mongo)])
def store(request, tmp_path):
    """The settings of a sink that stores readings."""
    if request.param == "history":
        return HISTORY
    return {
        **HISTORY,
        "name": "mongo",
        "connector.class": "mongo",
        "connection.uri": request.getfixturevalue("mongo_uri"),
        "database": f"pages_{uuid.uuid4().hex[:12]}",
        "collection": "readings",
        "layout": "point",
    }


@pytest.fixture
def storing(serve, store):
    """A running worker with one of the stores."""
    with running(serve([store])) as served:
        yield served


def wait_for(condition):
    """Return the first true result of the condition, which is called until then."""
    until = time.monotonic() + 30
    while not (result := condition()):
        assert time.monotonic() < until, "it did not happen within 30 s"
        time.sleep(0.1)
    return result


def found(pattern, html):
    """Return what the group of a pattern matches in HTML, as text."""
    match = re.search(pattern, html)
    assert match is not None, pattern
    return unescape(match[1])


def page_with(browser, path, text):
    """Return the page when it contains the text."""
    return wait_for(lambda: (page := browser.get(path)) and text in page.html and page)


def send(served, *records):
    with topics(served) as client:
        client.send(records)


def address(name):
    return urllib.parse.quote(name, safe="")


def stream(served, channel):
    """Yield the updates of a channel, as a page gets them."""
    url = f"{served.url}events?channel={address(channel)}"
    with urllib.request.urlopen(url, timeout=30) as response:
        for line in response:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])


def notice_of_more(updates):
    """The first notice of points that a page does not list; other updates may come before it."""
    return next(
        fragments["points-new"] for each in updates if "points-new" in (fragments := each["fragments"])
    )


def test_a_point_is_shown_with_value_unit_and_age(worker):
    send(worker, reading("campus/ahu1", {"ZoneTemperature": 71.5}))
    page = page_with(worker.browser(), "/points", "71.5")
    assert "ZoneTemperature" in page.html
    assert "degF" in page.html
    assert re.search(r"<time [^>]*data-ms=", page.html)


def test_an_open_page_says_that_there_are_points_which_it_does_not_list(worker):
    browser = worker.browser()
    empty = browser.get("/points")
    assert "There are no points yet" in empty.html
    updates = stream(worker, found(r'data-channel="(points\?[^"]+)"', empty.html))
    send(worker, reading("campus/ahu1", {"Zone": 71.5}))
    assert 'hx-trigger="load"' in notice_of_more(updates)  # nothing is lost by showing them
    updates.close()
    updates = stream(worker, found(r'data-channel="(points\?[^"]+)"', browser.get("/points").html))
    send(worker, reading("campus/ahu1", {"Zone": 72.5}), reading("campus/ahu2", {"Zone": 71.5, "Fan": 1}))
    notice = notice_of_more(updates)
    assert "2 more points are known now" in notice
    assert "hx-trigger" not in notice  # the reader decides when rows move
    updates.close()


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: name[:10] or "empty")
def test_a_hostile_name_is_text_everywhere(worker, name):
    send(worker, reading("campus/ahu1", {name: 71.5}, unit="<i>unit</i>"))
    browser = worker.browser()
    page = page_with(browser, "/points", "71.5")
    assert "<script>alert" not in page.html
    assert "<i>unit" not in page.html
    link = found(r'href="/ui(/chart\?[^"]*)"', page.html)
    chart = browser.get(link)
    assert chart.status == 200
    assert "<script>alert" not in chart.html
    download = page_with(browser, link.replace("/chart?", "/chart/values.csv?"), "71.5")
    numbers = browser.get(link + "&view=table")
    assert 'class="number">71.5<' in numbers.html
    assert "<script>alert" not in numbers.html
    row = list(csv.reader(io.StringIO(download.html, newline="")))[1]
    assert row[3] == (f"'{name}" if name.startswith("=") else name)


def test_search_filter_and_tags_select_without_javascript(worker):
    send(
        worker,
        reading("campus/ahu1", {"ZoneTemperature": 71.5, "Fan": True}),
        reading("campus/ahu2", {"ZoneTemperature": 91.5}),
    )
    browser = worker.browser()
    page_with(browser, "/points", "3 of 3 points")
    for query, text in {
        "q=ahu2": "1 of 3 points",
        "filter=value+%3E+80": "1 of 3 points",
        "type=boolean": "1 of 3 points",
        "unit=degF": "3 of 3 points",
        "platform=vol1&device=campus%2Fahu1": "2 of 3 points",
        "platform=vol2": "0 of 3 points",
        "favourites=yes": "0 of 3 points",
    }.items():
        assert text in browser.get(f"/points?{query}").html, query
    wrong = browser.get("/points?filter=colour+%3E+3")
    assert 'role="alert"' in wrong.html


def test_a_favourite_belongs_to_one_person(worker):
    send(worker, reading("campus/ahu1", {"ZoneTemperature": 71.5, "Fan": True}))
    browser = worker.browser()
    page = page_with(browser, "/points", "2 of 2 points")
    star = found(r'name="change" value="(\+\w+)"', page.html)
    assert (
        "1 of 2 points" in browser.post("/points/favourite", change=star, here="/points?favourites=yes").html
    )
    assert browser.post("/points/favourite", change="?", here="/points").status == 400
    assert "2 of 2" in browser.post("/points/favourite", change=star, here="//elsewhere.example").html
    assert (
        "0 of 2"
        in browser.post("/points/favourite", change="-" + star[1:], here="/points?favourites=yes").html
    )


def test_rows_on_the_page_are_updated_and_others_are_not(worker):
    send(worker, reading("campus/ahu1", {"Zone": 1.5}), reading("campus/ahu2", {"Zone": 1.5}))
    page = page_with(worker.browser(), "/points?q=ahu1", "1 of 2 points")
    channel = found(r'data-channel="(points\?[^"]*)"', page.html)
    updates = stream(worker, channel)
    send(worker, reading("campus/ahu1", {"Zone": 2.5}), reading("campus/ahu2", {"Zone": 2.5}))
    rows: dict[str, str] = {}
    while not any("2.5" in html for html in rows.values()):
        fragments = next(updates)["fragments"]
        rows |= {name: html for name, html in fragments.items() if name.startswith("r-")}
    assert len(rows) == 1


def test_a_chart_gets_new_values(worker):
    send(worker, reading("campus/ahu1", {"Zone": 1.5}))
    browser = worker.browser()
    page_with(browser, "/points", "1.5")
    data = json.loads(browser.get("/chart/data?point=vol1/campus/ahu1/Zone&from=15m").html)
    updates = stream(worker, data["channel"])
    next(updates)
    send(worker, reading("campus/ahu1", {"Zone": 2.5}), reading("campus/ahu1", {"Zone": 3.5}))
    values = [value for update in (next(updates),) for _, value in update["data"][data["series"][0]["id"]]]
    assert values[0] == 2.5


def test_a_chart_is_loaded_with_the_live_values_that_its_store_does_not_have(serve):
    empty = {**HISTORY, "topics": "other"}
    slow = {**HISTORY, "name": "slow", "file": "/proc/no-such-file"}  # it stores nothing yet
    with running(serve([empty, slow])) as worker:
        browser = worker.browser()
        browser.get("/chart?point=vol1/campus/ahu1/Zone")  # from now on, although the point is not known yet
        for value in (1.5, 2.5, 3.5):
            send(worker, reading("campus/ahu1", {"Zone": value}))
        page_with(browser, "/points", "3.5")
        data = json.loads(browser.get("/chart/data?point=vol1/campus/ahu1/Zone&from=15m").html)
        assert data["series"][0]["y"] == [1.5, 2.5, 3.5]


def test_the_chart_the_table_and_the_csv_have_the_same_numbers(storing):
    send(storing, *(reading("campus/ahu1", {"Zone": float(n)}, 600 - n) for n in range(50)))
    browser = storing.browser()
    query = "point=vol1/campus/ahu1/Zone&from=1h"
    wait_for(lambda: browser.get(f"/chart/numbers.csv?{query}").html.count("Zone") == 50)
    drawn = json.loads(browser.get(f"/chart/data?{query}").html)["series"][0]["y"]
    rows = list(csv.DictReader(io.StringIO(browser.get(f"/chart/numbers.csv?{query}").html)))
    table = browser.get(f"/chart?{query}&view=table").html
    assert drawn == [float(n) for n in range(50)]
    assert [float(row["last"]) for row in rows] == drawn
    assert re.findall(r'<td class="number">([^<]*)</td>', table) == [f"{n}" for n in reversed(range(50))]


def test_texts_are_a_table_of_changes(storing):
    texts = ["auto", "auto", "manual", "manual", "auto"]
    send(storing, *(reading("campus/ahu1", {"Mode": text}, 100 - n) for n, text in enumerate(texts)))
    browser = storing.browser()
    query = "point=vol1/campus/ahu1/Mode&from=1h"
    wait_for(lambda: browser.get(f"/chart/values.csv?{query}").html.count("Mode") == 5)
    html = browser.get(f"/chart?{query}&view=table").html
    assert re.findall(r"<td>(auto|manual)</td>", html) == ["auto", "manual", "auto"]


def test_a_wrong_address_is_explained(worker):
    browser = worker.browser()
    for path in (
        "/chart?point=nonsense",
        "/chart?from=yesterday",
        "/chart/data?point=id:0",
        "/documents?store=x",
    ):
        answer = browser.get(path)
        assert answer.status in (400, 404), path
        assert 'role="alert"' in answer.html
    assert browser.get("/documents?pattern=(").status == 400


def test_documents_are_paged_without_a_loss_although_their_times_are_equal(storing):
    record = reading("campus/ahu1", {f"p{number:03}": float(number) for number in range(130)})
    send(storing, record)
    browser = storing.browser()
    page = page_with(browser, "/documents", "Older")
    seen = []
    for _ in range(5):
        seen += re.findall(r"<summary>(p\d+) = ", page.html)
        older = re.search(r'href="/ui(/documents\?[^"]*before=[^"]*)">Older', page.html)
        if older is None:
            break
        page = browser.get(older[1].replace("&amp;", "&"))
    assert sorted(seen) == [f"p{number:03}" for number in range(130)]


@pytest.mark.mongo
def test_the_stored_command_history_has_an_address_for_each_direction(serve, mongo_uri):
    database = f"pages_{uuid.uuid4().hex[:12]}"
    store = {"connector.class": "mongo", "connection.uri": mongo_uri, "database": database}
    readings = {**store, "name": "readings", "topics": "bus", "collection": "readings"}
    history = {
        **store,
        "name": "commands",
        "topics": "commands",
        "layout": "command-history",
        "value.converter": "json",
    }
    with running(serve([readings, history])) as served:
        old = {"message": "open the valve", "new_value": 21.5, "device_point": "campus/ahu1/Setpoint"}
        result = {**old, "from": "CloudAgent", "to": "Cloud", "message": "the valve is open"}
        send(served, SourceRecord("commands", old), SourceRecord("commands", result))
        browser = served.browser()
        sent = page_with(browser, "/documents?history=from-cloud", "open the valve")
        answered = page_with(browser, "/documents?history=to-cloud", "the valve is open")
        assert ("CloudAgent" in sent.html, sent.html.count("<details>")) == (True, 1)
        assert answered.html.count("<details>") == 1
        assert browser.get("/documents?history=sideways").status == 400


def test_documents_are_found_by_topic_and_pattern(storing):
    send(storing, reading("campus/ahu1", {"Zone": 1.0}), reading("campus/vav2", {"Zone": 2.0}))
    browser = storing.browser()
    page_with(browser, "/documents", "vav2")
    for query in ("topic=devices/campus/vav2/all", "pattern=vav%5B0-9%5D", "device=campus/vav2"):
        html = browser.get(f"/documents?{query}").html
        assert (html.count("<summary>"), "Zone = 2" in html) == (1, True), query


@pytest.mark.slow
def test_the_last_values_of_a_stopped_source_come_from_the_store(serve, store):
    path = "/chart/values.csv?point=vol1/campus/ahu1/Zone&from=2h"
    with running(serve([store])) as first:
        send(first, reading("campus/ahu1", {"Zone": 71.5}, 3600))
        page_with(first.browser(), path, "71.5")
    first.stop()
    second = serve([store])
    assert "1 h ago" in page_with(second.browser(), "/points", "71.5").html
    assert 'class="reading stale"' in page_with(second.browser(), "/points", "▲ 1 abnormal").html


def test_values_that_are_not_numbers_are_an_alarm(worker):
    send(worker, reading("campus/ahu1", {"Zone": math.nan}))
    page = page_with(worker.browser(), "/alarms", "Not a number")
    assert "/ui/points?platform=vol1&amp;device=campus%2Fahu1" in page.html


@pytest.mark.slow
def test_twenty_thousand_points_are_one_quick_page(worker, capsys):
    send(
        worker,
        *(reading(f"campus/b{n % 10}/ahu{n}", {f"p{m}": float(m) for m in range(100)}) for n in range(200)),
    )
    browser = worker.browser()
    page_with(browser, "/points", "000 of 20")
    before = time.perf_counter()
    page = browser.get("/points?q=ahu7&filter=value+%3E+50")
    elapsed = time.perf_counter() - before
    with capsys.disabled():
        print(
            f"\n20,000 points: the page takes {elapsed * 1000:.0f} ms and has {len(page.html) / 1000:.0f} kB"
        )
    assert page.html.count('<tr id="p-') <= 100
    assert len(page.html) < 300_000


@pytest.fixture
def command_sink(tmp_path):
    """The settings of a sink that executes commands."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nrules: []\n")
    return {
        "name": "commands",
        "connector.class": "command",
        "topics": "commands",
        "volttron.address": "tcp://127.0.0.1:1",
        "platform.name": "vol1",
        "policy.file": str(policy),
        "audit.file": str(tmp_path / "audit.log"),
    }


def test_commands_are_marks_on_the_chart_of_their_point(serve, command_sink):
    served = serve([command_sink])
    browser = served.browser()
    query = "point=vol1/campus/ahu1/Zone&from=1h"
    assert json.loads(browser.get(f"/chart/marks?{query}").html) == []
    at = time.time_ns() // 1000
    result = {
        "command_id": "c1",
        "issuer": "me",
        "writes": [{"point": "campus/ahu1/Zone", "requested": 21.5}],
    }
    other = {"command_id": "c2", "state": "FAILED", "at": at, "writes": [{"point": "campus/ahu2/Zone"}]}
    results = [
        result | {"state": "ACCEPTED", "at": at - 2_000_000},
        result | {"state": "SUCCEEDED", "at": at - 1_000_000},
        other,
    ]
    with topics(served) as client:
        client.send([SourceRecord("command-results", each) for each in results])
    done = wait_for(lambda: "SUCCEEDED" in (page := browser.get(f"/chart/marks?{query}").html) and page)
    (mark,) = json.loads(done)
    assert mark == {"time": (at - 2_000_000) / 1e6, "text": "21.5: SUCCEEDED"}
    table = browser.get(f"/chart?{query}&view=table").html
    assert "21.5: SUCCEEDED" in table
    assert "/ui/set?point=vol1%2Fcampus%2Fahu1%2FZone" in table


def test_an_open_history_says_when_it_is_complete_although_no_command_came(serve, command_sink):
    served = serve([command_sink])
    assert "No command matches" in served.browser().get("/commands").html
    for update in stream(served, "commands?point="):
        if "may be incomplete" not in update["fragments"]["command-rows"]:
            break


def test_commands_from_before_the_last_week_are_marks_too(serve, command_sink):
    served = serve([command_sink])
    at = time.time_ns() // 1000 - 20 * 86_400_000_000
    write = {"point": "campus/ahu1/Zone", "requested": 21.5}
    results = [
        SourceRecord(
            "command-results",
            {"command_id": f"c{number}", "state": "FAILED", "at": at + number, "writes": [write]},
            timestamp=at // 1000,
        )
        for number in range(3)
    ]
    with topics(served) as client:
        client.send(results)
    answer = served.browser().get("/chart/marks?point=vol1/campus/ahu1/Zone&from=30d").html
    assert [mark["text"] for mark in json.loads(answer)] == ["21.5: FAILED"] * 3


def test_a_viewer_sees_everything_and_sets_nothing(serve, users_file, command_sink):
    served = serve([HISTORY, command_sink], listeners_users_file=str(users_file))
    send(served, reading("campus/ahu1", {"Zone": 71.5}))
    vera, otto = served.browser(), served.browser()
    vera.sign_in("vera")
    otto.sign_in("otto")
    page = page_with(vera, "/points", "71.5")
    chart = "/chart?point=vol1/campus/ahu1/Zone"
    assert "/ui/set?" not in page.html + vera.get(chart).html
    assert "/ui/set?" in otto.get("/points").html
    assert "/ui/set?" in otto.get(chart).html
    star = found(r'name="change" value="(\+\w+)"', vera.get("/points").html)
    assert "1 of 1" in vera.post("/points/favourite", change=star, here="/points?favourites=yes").html
    assert "0 of 1" in otto.get("/points?favourites=yes").html
