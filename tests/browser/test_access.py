"""Who may see and do what, in a browser, on a worker with users."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

SETPOINT = "campus/building/ahu1/ZoneTemperatureSetPoint"


def test_a_page_asks_to_sign_in_and_then_continues_where_the_person_wanted_to_go(guarded_plant, new_visit):
    visit = new_visit(guarded_plant)
    page = visit.open("/commands?state=FAILED")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.get_by_label("Name").fill("olga")
    page.get_by_label("Password").fill("correct horse battery")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{guarded_plant.url}/commands?state=FAILED")
    expect(page.get_by_label("State")).to_have_value("FAILED")


def test_a_wrong_password_is_refused_without_saying_which_part_is_wrong(guarded_plant, new_visit):
    visit = new_visit(guarded_plant)
    visit.expected("401")
    for name in ("olga", "nobody-of-this-name"):
        page = visit.sign_in(name, "wrong")
        expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
        expect(page.get_by_role("navigation")).to_have_count(0)


@pytest.mark.parametrize("path", ["/", "/alarms", "/commands", "/holds", "/command-sinks"])
def test_a_viewer_sees_a_page_and_is_offered_no_change(guarded_plant, new_visit, path):
    visit = new_visit(guarded_plant)
    visit.sign_in("vera")
    guarded_plant.kill_switch.write_text("maintenance\n")  # an alarm that an operator could shelve
    try:
        page = visit.open(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        own = {"/ui/sign-out", "/ui/preferences"}
        forms = page.locator("form[method=post]").evaluate_all(
            "all => all.map(form => new URL(form.action).pathname)"
        )
        assert set(forms) <= own
        assert page.locator("button[form]").count() == 0
    finally:
        guarded_plant.kill_switch.unlink()


def test_a_viewer_may_ask_the_policy_and_cannot_send(guarded_plant, new_visit):
    visit = new_visit(guarded_plant)
    visit.expected("403")
    visit.sign_in("vera")
    page = visit.open(f"/set?point=lab/{SETPOINT}")
    page.get_by_label("Value").fill("70")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("Your role is viewer: an operator can send it.")).to_be_visible()
    written = list(guarded_plant.bus.written)
    form = page.locator("form[action$='/set/check']")
    form.evaluate("form => form.setAttribute('action', '/ui/set')")  # a forged request
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("alert")).to_contain_text("this needs the role operator")
    assert guarded_plant.bus.written == written


def test_a_command_of_the_pages_has_the_signed_in_user_as_its_issuer(guarded_plant, new_visit):
    visit = new_visit(guarded_plant)
    visit.sign_in("olga")
    page = visit.open(f"/set?point=lab/{SETPOINT}")
    page.get_by_label("Value").fill("70.25")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Send the command").click()
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")
    expect(page.locator("#command-life")).to_contain_text("by olga")


def test_an_operator_engages_the_kill_switch_and_only_an_administrator_releases_it(guarded_plant, new_visit):
    visit = new_visit(guarded_plant)
    visit.sign_in("olga")
    page = visit.open("/command-sinks")
    page.get_by_label("Reason").fill("leak")
    page.get_by_role("button", name="Stop all writes").click()
    expect(page.get_by_text("Engaged, nothing is written: olga: leak")).to_be_visible()
    expect(page.get_by_role("button", name="Release the kill switch")).to_have_count(0)
    admin = new_visit(guarded_plant)
    admin.sign_in("ada")
    page = admin.open("/command-sinks")
    page.get_by_role("button", name="Release the kill switch").click()
    expect(page.get_by_text("Not engaged.")).to_be_visible()
    assert not guarded_plant.kill_switch.exists()


def test_an_open_page_of_a_user_who_signs_out_in_another_tab_leads_to_the_sign_in_page(
    guarded_plant, new_visit
):
    visit = new_visit(guarded_plant)
    visit.expected("401")
    page = visit.sign_in("olga")
    expect(page.locator("#card-bus")).to_be_visible()
    other = visit.context.new_page()
    other.goto(f"{guarded_plant.url}/alarms")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
