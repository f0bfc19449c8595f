"""Every page with axe-core, in both themes, wide and narrow, and with the keyboard alone.

The file has the longest tests, and its name lets it begin first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from tests.browser.pages import PAGES, SETPOINT

VENDOR = Path(__file__).with_name("vendor")
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
_Scheme = Literal["light", "dark"]
_SCHEMES: tuple[_Scheme, _Scheme] = ("light", "dark")
_VIEWS = [(scheme, width) for width in (1280, 360) for scheme in _SCHEMES]

_IDENTITY = """function identity(element) {
  return element.tagName + ' ' + ['id', 'name', 'href', 'value', 'aria-label'].map(
    name => element.getAttribute(name) ?? '').join(' ').trim()
}"""
_CONTROLS = f"""() => {{ {_IDENTITY}; return [...document.querySelectorAll(
    'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]')]
  .filter(each => !each.disabled && each.checkVisibility()
    && !each.classList.contains('skip')).map(identity) }}"""
_WATCH_FOCUS = f"""() => {{
  {_IDENTITY}
  window.focusedControls = []
  document.addEventListener('focusin', (event) => {{
    const style = getComputedStyle(event.target)
    window.focusedControls.push([identity(event.target),
      style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2])
  }})
}}"""


_WIDE = """width => [...document.querySelectorAll('main *')].filter(
  each => each.getBoundingClientRect().right > width).map(each => each.outerHTML.slice(0, 120)).slice(0, 4)"""


def violations(page: Page, rules: Sequence[str] = _TAGS) -> list[str]:
    """Run axe-core with rules or groups of rules, and return what it found as text."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate((VENDOR / "axe.min.js").read_text("utf-8") + ";0")
    options: dict[str, Any] = {"runOnly": list(rules), "resultTypes": ["violations"]}
    result = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{found['id']}: {found['help']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for found in result["violations"]
        for node in found["nodes"]
    ]


def view_problems(page: Page) -> list[str]:
    """Look at an open page in both themes, wide and narrow; return what is wrong."""
    problems = []
    for scheme, width in _VIEWS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 800})
        rules = _TAGS if scheme == "light" else ["color-contrast"]  # the only one that depends on colours
        problems += [f"{scheme} {width}: {each}" for each in violations(page, rules)]
        needed = page.evaluate("() => document.documentElement.scrollWidth")
        if needed > width:
            wide = page.evaluate(_WIDE, width)
            problems.append(f"{scheme} {width}: the page is {needed} px wide because of {wide}")
    return problems


def keyboard_problems(page: Page) -> list[str]:
    """Press the tabulator until every control had its turn; return those that had none, or hid it."""
    controls: list[str] = page.evaluate(_CONTROLS)
    page.evaluate(_WATCH_FOCUS)
    for _ in range(len(controls) + 3 + 8 * page.locator("input[type^=date]").count()):  # a date has parts
        page.keyboard.press("Tab")
    focused: list[tuple[str, bool]] = page.evaluate("() => window.focusedControls")
    reached = {control for control, _ in focused}
    problems = [
        f"the focus is invisible: {control}"
        for control, is_visible in focused
        if control in controls and not is_visible
    ]
    missed = [each for each in controls if each not in reached]
    return [*problems, *(f"the keyboard does not reach {each}" for each in missed)]


def test_the_vendored_files_are_the_listed_ones():
    packages = json.loads((VENDOR / "vendor.json").read_text("utf-8"))
    files = {file["name"]: file["sha256"] for package in packages for file in package["files"]}
    assert {path.name for path in VENDOR.iterdir()} == {*files, "vendor.json"}
    for name, digest in files.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_axe_reports_text_without_contrast_and_a_field_without_a_label(local_plant, new_visit):
    page = new_visit(local_plant).open("/alarms")
    page.evaluate("document.querySelector('h1').style.color = '#eee'")
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    assert {each.partition(":")[0] for each in violations(page)} == {"color-contrast", "label"}


def test_a_control_that_the_keyboard_misses_and_an_invisible_focus_are_reported(local_plant, new_visit):
    page = new_visit(local_plant).open("/alarms")
    page.evaluate("document.querySelector('nav a[href$=commands]').tabIndex = -1")
    page.evaluate("document.querySelector('#theme').style.outline = 'none'")
    found = keyboard_problems(page)
    assert len(found) == 2, found
    hidden, missed = found
    assert missed.startswith("the keyboard does not reach A")
    assert hidden == "the focus is invisible: BUTTON theme"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_violates_no_rule_of_wcag_fits_a_narrow_screen_and_obeys_the_keyboard(
    local_plant, new_visit, path
):
    visit = new_visit(local_plant)
    visit.expected("404")
    page = visit.open(path)
    page.wait_for_load_state("load")
    assert keyboard_problems(page) == []
    assert not (found := view_problems(page)), found


def test_pages_with_alarms_holds_and_commands_violate_no_rule_of_wcag(local_plant, new_visit):
    visit = new_visit(local_plant)
    page = visit.open(f"/set?point=lab/{SETPOINT}")
    page.get_by_label("Value").fill("95")
    page.get_by_role("button", name="Check").click()
    found = view_problems(page)
    page.get_by_label("Value").fill("71")
    page.get_by_label("Hold for").fill("1m")
    page.get_by_label("Reason").fill("a test of the pages")
    page.get_by_role("button", name="Check").click()
    found += view_problems(page)
    page.get_by_role("button", name="Send the command").click()
    expect(page.locator("#command-life [role=status]")).to_contain_text("SUCCEEDED")
    found += view_problems(page)
    local_plant.kill_switch.write_text("a test of the pages\n")
    try:
        for path in ("/alarms", "/holds", "/command-sinks"):
            page = visit.open(path)
            expect(page.locator("#alarm-count")).not_to_be_empty()
            found += view_problems(page)
    finally:
        local_plant.kill_switch.unlink()
    assert found == []


def test_the_sign_in_page_violates_no_rule_of_wcag(guarded_plant, new_visit):
    visit = new_visit(guarded_plant)
    visit.expected("401")
    page = visit.open("/sign-in")
    found = view_problems(page)
    visit.sign_in("olga", "wrong")
    assert found + view_problems(page) == []


def test_every_page_that_a_link_leads_to_is_tested(local_plant, new_visit):
    visit = new_visit(local_plant)
    known = {urlsplit(path).path for path in PAGES}
    waiting, seen = ["/ui/"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        page = visit.open(path.removeprefix("/ui"))
        anchors = page.locator("a[href]:not([download])")
        links = anchors.evaluate_all("all => all.map(link => new URL(link.href).pathname)")
        waiting += [
            link for link in links if link.startswith("/ui/") and not link.startswith("/ui/commands/")
        ]
    assert {path.removeprefix("/ui") for path in seen} <= known
