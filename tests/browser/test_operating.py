"""What an operator does with the pages, in a browser, on both backends."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

DEVICE = "campus/building/ahu1"
SETPOINT = f"{DEVICE}/ZoneTemperatureSetPoint"
PROTECTED = f"{DEVICE}/Boiler"


def check(page: Page, value: str, **fields: str) -> None:
    """Fill the form of "set a point", and ask the policy."""
    form = page.locator("form[action$='/set/check']")
    field = form.locator("[name=value]")
    if field.evaluate("field => field.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)
    for name, text in fields.items():
        form.locator(f"[name={name}]").fill(text)
    form.get_by_role("button", name="Check").click()


def send(page: Page, state: str = "SUCCEEDED") -> str:
    """Send the checked command, wait for the state of its end, and return its id."""
    page.get_by_role("button", name="Send the command").click()
    expect(page.locator("#command-life [role=status]")).to_contain_text(state)
    return page.locator("h1 code").inner_text()


def test_the_overview_shows_each_connector_with_rates_that_move(plant, new_visit):
    page = new_visit(plant).open("/")
    for name in ("bus", "readings", "commands"):
        expect(page.locator(f"#card-{name}")).to_contain_text("RUNNING")
    equation = page.locator("#card-readings .equation")
    expect(equation).to_contain_text("received =")
    before = equation.inner_text()
    expect(equation).not_to_have_text(before)
    expect(page.locator("#card-readings .way strong").first).to_have_text(re.compile(r"^[1-9][\d.]*/s$"))


def test_a_point_is_set_and_its_command_is_followed_to_the_value_that_was_read_back(
    plant, new_visit, local_user
):
    page = new_visit(plant).open(f"/set?point=lab/{SETPOINT}")
    expect(page.get_by_text("From 60 to 85.")).to_be_visible()
    check(page, "71.5", reason="too cold")
    expect(page.get_by_text("The policy allows it.")).to_be_visible()
    command_id = send(page)
    life = page.locator("#command-life")
    for state in ("SENT", "ACCEPTED", "EXECUTING", "SUCCEEDED"):
        expect(life.locator("tbody")).to_contain_text(state)
    expect(life).to_contain_text("71.5 (read back)")
    expect(life).to_contain_text("too cold")
    expect(life).to_contain_text(local_user)
    assert (SETPOINT, 71.5) in plant.bus.written
    page.get_by_role("link", name="All commands").click()
    expect(page.locator(f"a[href$='/commands/{command_id}']")).to_have_text("SUCCEEDED")


def test_the_policy_refuses_a_value_before_anything_is_sent(plant, new_visit):
    page = new_visit(plant).open(f"/set?point=lab/{SETPOINT}")
    check(page, "95")
    expect(page.get_by_role("alert")).to_contain_text("95")
    expect(page.get_by_role("alert")).to_contain_text("POLICY_MAX")
    expect(page.get_by_role("button", name="Send the command")).to_have_count(0)
    assert (SETPOINT, 95) not in plant.bus.written


def test_a_point_without_a_rule_cannot_be_set(plant, new_visit):
    page = new_visit(plant).open(f"/set?point=lab/{DEVICE}/SupplyFan")
    expect(page.get_by_text("No rule of the policy lets you write this point.")).to_be_visible()
    check(page, "true")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("button", name="Send the command")).to_have_count(0)


def test_a_protected_point_is_written_after_its_name_was_typed(plant, new_visit):
    visit = new_visit(plant)
    visit.expected("400")
    page = visit.open(f"/set?point=lab/{PROTECTED}")
    value = "false" if plant.bus.values[PROTECTED] else "true"
    check(page, value)
    page.get_by_label("Type the point's name to confirm").fill("Boiler")
    page.get_by_role("button", name="Send the command").click()
    expect(page.get_by_role("alert")).to_contain_text("Type its name to confirm it")
    page.go_back()
    page.get_by_label("Type the point's name to confirm").fill(PROTECTED)
    send(page)
    assert plant.bus.values[PROTECTED] is (value == "true")


def test_a_hold_is_listed_until_it_is_released(plant, new_visit, local_user):
    visit = new_visit(plant)
    page = visit.open(f"/set?point=lab/{SETPOINT}")
    check(page, "70.5", hold="15m", reason="commissioning")
    command_id = send(page)
    expect(page.get_by_text("Held by us until")).to_be_visible()
    page.get_by_role("link", name="Release it").click()
    row = page.locator("#hold-list tbody tr", has=page.locator(f"a[href$='{command_id}']"))
    expect(row).to_contain_text("70.5")
    expect(row).to_contain_text("commissioning")
    expect(row).to_contain_text(local_user)
    page.get_by_label("Reason for a release").fill("done")
    row.get_by_role("button", name="Release").click()
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")
    assert plant.bus.values[SETPOINT] == 72.0
    page.get_by_role("link", name="Holds").click()
    expect(row).to_have_count(0)


def test_two_browsers_see_the_same_change(plant, new_visit):
    watching = new_visit(plant).open("/commands")
    expect(watching.locator("#command-rows")).to_be_visible()
    page = new_visit(plant).open(f"/set?point=lab/{SETPOINT}")
    check(page, "73.25", reason="seen by two")
    command_id = send(page)
    row = watching.locator("#command-rows tr", has=watching.locator(f"a[href$='{command_id}']"))
    expect(row).to_contain_text("SUCCEEDED")
    expect(row).to_contain_text("seen by two")


def test_the_kill_switch_stops_writes_and_is_an_alarm_on_every_page(plant, new_visit, local_user):
    page = new_visit(plant).open("/command-sinks")
    page.get_by_label("Reason").fill("smoke on floor 2")
    page.get_by_role("button", name="Stop all writes").click()
    try:
        expect(
            page.get_by_text(f"Engaged, nothing is written: {local_user}: smoke on floor 2")
        ).to_be_visible()
        page.goto(f"{plant.url}/set?point=lab/{SETPOINT}")
        expect(page.get_by_text("The kill switch is engaged, and nothing is written")).to_be_visible()
        expect(page.locator("#alarm-count")).to_have_text("1")
        written = len(plant.bus.written)
        check(page, "74")
        send(page, "REJECTED")
        expect(page.locator("#command-life")).to_contain_text("smoke on floor 2")
        assert len(plant.bus.written) == written
        page.get_by_role("link", name="Alarms").click()
        expect(page.locator("#alarm-list tbody tr")).to_have_count(1)
        expect(page.locator("#alarm-list")).to_contain_text("smoke on floor 2")
        expect(page.locator("#alarm-list time")).not_to_have_text("0 s ago")  # since it was engaged
    finally:
        plant.kill_switch.unlink()
    expect(page.locator("#alarm-list")).to_contain_text("Nothing is abnormal.")


def test_the_audit_log_is_verified_on_request(plant, new_visit):
    page = new_visit(plant).open("/command-sinks")
    page.get_by_role("link", name="Verify the audit log").click()
    expect(page.get_by_text(re.compile(r"Whole: \d+ lines"))).to_be_visible()


def test_an_open_page_says_that_the_worker_was_restarted_and_continues(plant, new_visit):
    visit = new_visit(plant)
    visit.expected("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET")
    page = visit.open("/")
    equation = page.locator("#card-readings .equation")
    expect(equation).to_contain_text("received =")
    plant.process.stop()
    notice = page.locator("#connection")
    expect(notice).to_contain_text("The connection to the worker is lost")
    expect(notice).to_contain_text("Values on this page are old")
    plant.process.start()
    expect(notice).to_contain_text("The worker was restarted; connected again")
    before = equation.inner_text()
    expect(equation).not_to_have_text(before)


def test_after_an_hour_asleep_a_laptop_connects_again_and_says_so(plant, new_visit):
    page = new_visit(plant).page
    page.clock.install()
    page.goto(f"{plant.url}/")
    equation = page.locator("#card-readings .equation")
    expect(equation).to_contain_text("received =")
    with page.expect_request(re.compile("/ui/events")):
        page.clock.fast_forward("01:00:00")
    notice = page.locator("#connection")
    expect(notice).to_contain_text("Connected again")
    before = equation.inner_text()
    expect(equation).not_to_have_text(before)


def test_a_shelved_alarm_leaves_the_list_with_a_reason_until_it_is_returned(plant, new_visit):
    plant.kill_switch.write_text("maintenance\n")
    try:
        page = new_visit(plant).open("/alarms")
        expect(page.locator("#alarm-list")).to_contain_text("maintenance")
        page.get_by_label("Reason for shelving").fill("known, ticket 7")
        page.get_by_role("button", name="Shelve the alarm of commands").click()
        expect(page.locator("#alarm-list")).to_contain_text("Nothing is abnormal.")
        expect(page.locator("#alarm-count")).to_be_empty()
        expect(page.get_by_text("known, ticket 7")).to_be_visible()
        page.get_by_role("button", name="Return the alarm of commands").click()
        expect(page.locator("#alarm-list")).to_contain_text("maintenance")
    finally:
        plant.kill_switch.unlink()
