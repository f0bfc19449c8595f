"""What browser tests rely on: problems are found, nothing leaves this machine, nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from playwright.sync_api import Error

HOSTILE = ("<script>", "onerror=")
_START = """
import sys
from playwright.sync_api import sync_playwright
playwright = sync_playwright().start()
browser = playwright.chromium.launch(executable_path=sys.argv[1])
browser.new_page().goto("about:blank")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("console.error('broken')", "console error: broken"),
        ("setTimeout(() => { throw new Error('broken') })", "page error: broken"),
        (
            "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')",
            "CSP violation style-src",
        ),
        (
            "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
            "CSP violation",
        ),
        ("new Image().src = 'http://192.0.2.1/'", "CSP violation img-src http://192.0.2.1/"),
        ("setTimeout(() => alert('hello'))", "dialog: hello"),
    ],
)
def test_a_problem_of_a_page_is_found(local_plant, new_visit, script, problem):
    visit = new_visit(local_plant)
    visit.expected("")
    page = visit.open("/alarms")
    page.evaluate(f"() => {{ {script} }}")
    page.wait_for_timeout(300)
    assert any(problem in each for each in visit.problems), visit.problems


@pytest.mark.parametrize("url", ["http://192.0.2.1/", "http://example.com/", "https://[2001:db8::1]/"])
def test_a_page_of_another_host_is_not_reached(local_plant, new_visit, url):
    visit = new_visit(local_plant)
    visit.expected(re.escape(f"request to {url}"))
    with pytest.raises(Error, match="ERR_FAILED"):
        visit.page.goto(url)
    assert visit.problems == [f"request to {url}"]


def test_the_driver_and_the_browser_end_with_a_killed_run(browser, chromium):
    program = [sys.executable, "-c", _START, str(chromium)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2  # the driver, and at least one process of the browser
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_hostile_names_and_reasons_are_text(plant, new_visit):
    page = new_visit(plant).open("/set")
    for text in HOSTILE:
        page.get_by_label("Point").fill(f"campus/building/ahu1/{text}")
        page.get_by_label("Value").fill("1")
        page.get_by_label("Reason").fill(f"<img src=x {text}alert(1)>")
        page.get_by_role("button", name="Check").click()
        page.get_by_role("alert").wait_for()
        assert f"campus/building/ahu1/{text}" in page.get_by_role("heading", level=1).inner_text()
        assert page.locator("main img, main script").count() == 0
    page.goto(
        f"{plant.url}/commands?text=<script>alert(1)</script>&point=%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E"
    )
    assert page.get_by_label("Text").input_value() == "<script>alert(1)</script>"
    assert page.locator("main img, main script").count() == 0
