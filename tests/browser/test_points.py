"""Points, charts and documents in a browser, on both backends and both stores."""

from __future__ import annotations

import csv
import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect

DEVICE = "campus/building/ahu1"
MOVING = f"lab/{DEVICE}/ZoneTemperature"
SETPOINT = f"lab/{DEVICE}/ZoneTemperatureSetPoint"
HOSTILE = "<script>alert(1)</script>"
NUMBER = re.compile(r"\d+(\.\d+)? °?\s?degF")


def row_of(page: Page, point: str) -> Locator:
    """Return the row of a point of the first device."""
    name = page.get_by_role("link", name=point, exact=True)
    return page.locator("table.points tbody tr", has=name).filter(has_text="ahu1")


def open_chart(page: Page, plant, *points: str, more: str = "") -> None:
    """Open the chart of points."""
    query = "&".join(f"point={quote(point, safe='')}" for point in points)
    page.goto(f"{plant.url}/chart?{query}{more}")


def stored_numbers(page: Page, plant, point: str, at_least: int) -> None:
    """Wait until the store has some numbers of a point."""
    for _ in range(50):
        open_chart(page, plant, point, more="&view=table")
        if page.locator(".table.scroll tbody tr").count() >= at_least:
            return
        page.wait_for_timeout(300)
    raise AssertionError(f"the store never had {at_least} numbers: {page.locator('main').inner_text()}")


def test_a_point_moves_on_an_open_page(plant, new_visit):
    page = new_visit(plant).open("/points?q=ZoneTemperature")
    value = row_of(page, "ZoneTemperature").locator(".value")
    expect(value).to_have_text(NUMBER)
    before = value.inner_text()
    expect(value).not_to_have_text(before)


def test_a_page_that_was_opened_before_any_point_was_known_shows_those_that_come(quiet_plant, new_visit):
    page = new_visit(quiet_plant).open("/points")
    expect(page.get_by_text("There are no points yet")).to_be_visible()
    filtered = new_visit(quiet_plant).open("/points?q=ahu2")
    quiet_plant.bus.devices = (1,)
    value = row_of(page, "ZoneTemperature").locator(".value")
    expect(value).to_have_text(NUMBER)
    before = value.inner_text()
    expect(value).not_to_have_text(before)  # the rows that came are live, too
    quiet_plant.bus.devices = (1, 2)
    page.get_by_role("link", name="Show them").click()
    expect(page.locator("table.points tbody tr", has_text="ahu2").first).to_be_visible()
    expect(page.get_by_role("link", name="Show them")).to_have_count(0)
    expect(filtered.locator("table.points tbody tr")).to_have_count(6)


def test_a_search_narrows_the_list_while_it_is_typed_and_its_address_can_be_shared(plant, new_visit):
    page = new_visit(plant).open("/points")
    expect(row_of(page, "SupplyFan")).to_be_visible()
    page.get_by_label("Search").press_sequentially("ZoneTemperatureSet")
    expect(row_of(page, "SupplyFan")).to_have_count(0)
    expect(row_of(page, "ZoneTemperatureSetPoint")).to_be_visible()
    expect(page).to_have_url(re.compile("q=ZoneTemperatureSet"))
    page.reload()
    expect(page.get_by_label("Search")).to_have_value("ZoneTemperatureSet")
    expect(row_of(page, "SupplyFan")).to_have_count(0)


def test_a_favourite_stays_for_the_next_visit(plant, new_visit):
    page = new_visit(plant).open("/points?q=OutsideAir")
    row_of(page, "OutsideAirTemperature").get_by_role(
        "button", name="Favourite OutsideAirTemperature"
    ).click()
    other = new_visit(plant).open("/points?favourites=yes")
    star = row_of(other, "OutsideAirTemperature").get_by_role("button")
    expect(star).to_have_attribute("aria-pressed", "true")
    star.click()
    expect(row_of(other, "OutsideAirTemperature")).to_have_count(0)


def test_a_point_is_charted_live_and_its_numbers_are_a_table_and_a_csv(plant, new_visit, tmp_path):
    page = new_visit(plant).page
    stored_numbers(page, plant, MOVING, at_least=2)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV of all values").click()
    download.value.save_as(tmp_path / "values.csv")
    with (tmp_path / "values.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 2
    page.get_by_role("link", name="Chart", exact=True).click()
    expect(page.locator("#chart canvas")).to_be_visible()
    value = page.locator("table.charted .value")
    before = value.inner_text()
    expect(value).not_to_have_text(before)
    dark = page.evaluate(
        "() => { const canvas = document.querySelector('#chart canvas');"
        " const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        " return pixels.reduce((sum, each, index) => sum + (index % 4 === 3 && each > 0), 0) }"
    )
    assert dark > 500  # axes, grid and a line were drawn


def test_several_points_are_selected_for_one_chart_whose_address_holds_the_view(plant, new_visit):
    page = new_visit(plant).open("/points?device=campus/building/ahu1")
    for point in ("ZoneTemperature", "OutsideAirTemperature"):
        page.get_by_role("checkbox", name=f"Select {point} for a chart").first.check()
    page.get_by_role("button", name="Chart the selected").click()
    rows = page.locator("table.charted tbody tr")
    expect(rows).to_have_count(2)
    page.get_by_role("navigation", name="Range").get_by_role("link", name=re.compile("^1 h|^1 hour")).click()
    expect(rows).to_have_count(2)
    address = page.url
    other = new_visit(plant).page
    other.goto(address)
    expect(other.locator("table.charted tbody tr")).to_have_count(2)
    expect(other.locator("#chart canvas")).to_be_visible()
    page.get_by_role("link", name="Remove OutsideAirTemperature from the chart").click()
    expect(rows).to_have_count(1)


def test_a_point_is_set_from_its_row_and_two_browsers_see_the_new_value(plant, new_visit):
    watching = new_visit(plant).open("/points?q=ZoneTemperatureSetPoint")
    page = new_visit(plant).open("/points?q=ZoneTemperatureSetPoint")
    row_of(page, "ZoneTemperatureSetPoint").get_by_role(
        "link", name="Set ZoneTemperatureSetPoint", exact=True
    ).click()
    page.get_by_label("Value").fill("66.125")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Send the command").click()
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")
    expect(row_of(watching, "ZoneTemperatureSetPoint").locator(".value")).to_contain_text("66.125")


def test_documents_are_found_by_a_regular_expression_on_their_topic_newest_first(plant, new_visit):
    page = new_visit(plant).open("/documents?pattern=ahu2")
    for _ in range(50):
        if page.locator("table.documents tbody tr").count() > 1:
            break
        page.wait_for_timeout(300)
        page.reload()
    times = page.locator("table.documents time").evaluate_all(
        "all => all.map(each => Number(each.dataset.ms))"
    )
    assert times == sorted(times, reverse=True)
    topics = page.locator("table.documents tbody tr td:nth-child(2)").all_inner_texts()
    assert len(topics) > 1
    assert all("ahu2" in topic for topic in topics)


@pytest.mark.parametrize("path", ["/points?q=script", f"/points?q={quote(HOSTILE)}"])
def test_a_point_with_a_hostile_name_is_text_on_its_pages(plant, new_visit, path):
    page = new_visit(plant).open(path)
    link = page.get_by_role("link", name=HOSTILE, exact=True)
    expect(link).to_be_visible()
    assert page.locator("main script, main img").count() == 0
    link.click()
    expect(page.locator("table.charted")).to_contain_text(HOSTILE)
    assert page.locator("main script, main img").count() == 0
    page.goto(f"{plant.url}/documents?pattern=ahu3")
    page.locator("h1").wait_for()
    assert page.locator("main script, main img").count() == 0
