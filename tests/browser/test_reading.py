"""Everybody can read and use the pages: the keyboard alone, no JavaScript, the chosen theme and zone."""

from __future__ import annotations

from playwright.sync_api import expect
from tests.browser.pages import PAGES, SETPOINT

_MAX_TABS = 200


def test_a_point_is_set_with_the_keyboard_alone(local_plant, new_visit):
    page = new_visit(local_plant).open(f"/set?point=lab/{SETPOINT}")

    def tab_to(selector: str) -> None:
        for _ in range(_MAX_TABS):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"the keyboard does not reach {selector}")

    tab_to("[name=value]")
    page.keyboard.type("70.75")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The policy allows it.")).to_be_visible()
    tab_to("button.danger")
    page.keyboard.press("Enter")
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")
    assert (SETPOINT, 70.75) in local_plant.bus.written


def test_a_link_keeps_the_focus_when_its_list_is_updated(local_plant, new_visit):
    def send(value: str) -> None:
        page = new_visit(local_plant).open(f"/set?point=lab/{SETPOINT}")
        page.get_by_label("Value").fill(value)
        page.get_by_role("button", name="Check").click()
        page.get_by_role("button", name="Send the command").click()
        expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")

    send("68")
    page = new_visit(local_plant).open("/commands")
    link = page.locator("#command-rows a").first
    address = link.get_attribute("href")
    link.focus()
    send("68.5")
    expect(page.locator("#command-rows")).to_contain_text("68.5")
    expect(page.locator(f"#command-rows a[href='{address}']")).to_be_focused()


def test_the_first_tab_offers_to_skip_the_menu(local_plant, new_visit):
    page = new_visit(local_plant).open("/alarms")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_without_javascript_pages_are_readable_and_a_point_is_set(local_plant, new_visit):
    visit = new_visit(local_plant, java_script_enabled=False)
    for path in PAGES[:-1]:
        expect(visit.open(path).get_by_role("heading", level=1)).to_be_visible()
    page = visit.open(f"/set?point=lab/{SETPOINT}")
    page.get_by_label("Value").fill("69.5")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Send the command").click()
    page.wait_for_url("**/commands/*")
    for _ in range(50):
        page.reload()
        if page.get_by_text("69.5 (read back)").count():
            break
        page.wait_for_timeout(100)
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")


def test_the_chosen_theme_and_time_zone_stay(local_plant, new_visit):
    page = new_visit(local_plant, color_scheme="light").open("/alarms")
    page.get_by_role("button", name="Dark").click()
    page.get_by_label("Times in").fill("Asia/Kolkata")
    page.get_by_role("button", name="Change").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("html")).to_have_attribute("data-zone", "Asia/Kolkata")
    page.get_by_label("Times in").fill("")
    page.get_by_role("button", name="Change").click()
    expect(page.locator("html")).not_to_have_attribute("data-zone", "Asia/Kolkata")
