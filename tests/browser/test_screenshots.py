"""Pictures of the main pages for the README and the documentation: ``make screenshots``."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Page, expect

DEVICE = "campus/building/ahu1"
SETPOINT = f"lab/{DEVICE}/ZoneTemperatureSetPoint"
PROTECTED = f"lab/{DEVICE}/Boiler"
MOVING = f"lab/{DEVICE}/ZoneTemperature"
_MAX_BYTES = 100_000
_MIN_BYTES = 10_000  # an empty page is smaller


def command(page: Page, point: str, **fields: str) -> None:
    """Set a point, and wait for its end."""
    page.goto(f"{page.url.partition('/ui')[0]}/ui/set?point={point}")
    form = page.locator("form[action$='/set/check']")
    for name, text in fields.items():
        form.locator(f"[name={name}]").fill(text)
    form.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Send the command").click()
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")


def test_the_main_pages_are_photographed_in_both_themes(guarded_plant, new_visit, tmp_path):
    folder = Path(os.environ.get("TIELINE_TEST_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    visit = new_visit(guarded_plant, viewport={"width": 1040, "height": 640}, reduced_motion="reduce")
    page = visit.sign_in("olga")
    command(page, SETPOINT, value="70.5", reason="less heat in the afternoon")
    command(page, SETPOINT, value="68", hold="30m", reason="commissioning")
    guarded_plant.kill_switch.write_text("work on the boiler\n")
    try:
        pages = {
            "overview": "/",
            "points": "/points?platform=lab&device=campus/building/ahu1",
            "chart": f"/chart?point={SETPOINT}&point={MOVING}&from=30s",
            "alarms": "/alarms",
        }
        for name, path in pages.items():
            visit.open(path)
            expect(page.locator("#alarm-count")).not_to_be_empty()
            if name == "points":
                expect(page.locator(".point-notice")).to_have_count(0, timeout=60_000)
            if name == "chart":
                expect(page.locator("#chart canvas")).to_be_visible()
            photograph(page, folder, name)
    finally:
        guarded_plant.kill_switch.unlink()
    visit.open(f"/set?point={SETPOINT}")
    page.get_by_label("Value").fill("71")
    page.get_by_label("Reason").fill("too cold")
    page.get_by_role("button", name="Check").click()
    photograph(page, folder, "set")


def photograph(page: Page, folder: Path, name: str) -> None:
    """Take a picture in each theme, without the name of this machine."""
    page.evaluate("document.querySelector('footer > span').textContent = 'Worker on building-7'")
    button = page.locator("#theme")  # it offers the other theme
    for scheme, other in (("light", "Dark"), ("dark", "Light")):
        if button.inner_text() != other:
            button.click()
        expect(button).to_have_text(other)
        if name == "chart":
            page.wait_for_timeout(400)  # it is drawn again in the new colours
        file = folder / f"{name}-{scheme}.png"
        page.screenshot(path=file)
        assert _MIN_BYTES < file.stat().st_size <= _MAX_BYTES, file
