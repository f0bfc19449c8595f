"""An operator's work with the pages on a real VOLTTRON platform: what is shown is what the device did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tieline_lab.volttron import VolttronPlatform

DEVICE = "campus/building/device1"
SETPOINT = f"{DEVICE}/ZoneTemperatureSetPoint"


@pytest.fixture(autouse=True)
def _given_back(volttron_platform: VolttronPlatform) -> Iterator[None]:
    """Revert the set point before and after a test."""

    def revert() -> None:
        with volttron_platform.connect() as client:
            client.call("platform.driver", "revert_point", *SETPOINT.rsplit("/", 1))

    revert()
    yield
    revert()


def test_a_point_of_a_real_platform_is_set_read_back_and_charted_with_its_mark(
    real_plant, new_visit, volttron_platform
):
    before = len(volttron_platform.writes())
    watching = new_visit(real_plant).open(f"/points?device={DEVICE}&q=ZoneTemperatureSetPoint")
    row = watching.locator("table.points tbody tr", has_text="ZoneTemperatureSetPoint").first
    expect(row.locator(".value")).to_be_visible()
    page = new_visit(real_plant).open(f"/set?point=lab/{SETPOINT}")
    page.get_by_label("Value").fill("71.25")
    page.get_by_label("Reason").fill("a draught at the window")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("The policy allows it.")).to_be_visible()
    assert len(volttron_platform.writes()) == before  # nothing was sent yet
    page.get_by_role("button", name="Send the command").click()
    life = page.locator("#command-life")
    expect(life.locator("[role=status]")).to_contain_text("SUCCEEDED")
    for step in ("SENT", "ACCEPTED", "not written yet", "EXECUTING", "71.25 (read back)"):
        expect(life.locator("tbody")).to_contain_text(step)
    assert [write["value"] for write in volttron_platform.writes()[before:]] == [71.25]
    expect(row.locator(".value")).to_contain_text("71.25")  # as the driver publishes it

    page.goto(f"{real_plant.url}/chart?point=lab/{SETPOINT}&from=15m")
    expect(page.locator("#chart canvas")).to_be_visible()
    expect(page.locator("table.charted .value")).to_contain_text("71.25")
    page.get_by_role("link", name="Table", exact=True).click()
    mark = page.get_by_role("link", name="71.25: SUCCEEDED")
    expect(mark).to_be_visible()
    for _ in range(30):  # the driver publishes every second, and the sink stores it
        if page.locator(".table.scroll tbody tr", has_text="71.25").count():
            break
        page.wait_for_timeout(300)
        page.reload()
    expect(page.locator(".table.scroll tbody tr", has_text="71.25").first).to_be_visible()
    mark.click()
    expect(page.locator("#command-life")).to_contain_text("a draught at the window")
