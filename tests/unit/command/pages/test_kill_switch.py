"""The kill switch on the page of a worker with users and of one without."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html import unescape

import pytest


@pytest.fixture
def sink(tmp_path):
    """The settings of a command sink whose kill switch has a name that a shell would split."""
    (tmp_path / "policy.yaml").write_text("version: 1\nrules: []\n")
    return {
        "name": "commands",
        "connector.class": "command",
        "topics": "commands",
        "volttron.address": "tcp://127.0.0.1:1",
        "platform.name": "vol1",
        "policy.file": str(tmp_path / "policy.yaml"),
        "audit.file": str(tmp_path / "audit.log"),
        "kill.switch.file": str(tmp_path / "kill switch"),
    }


def codes(html):
    """Return the lines that a page gives to copy."""
    return [unescape(each) for each in re.findall(r"<pre><code>(.*?)</code></pre>", html)]


def test_a_worker_without_users_says_how_the_switch_is_released_before_and_after_it_is_engaged(
    serve, sink, tmp_path
):
    browser = serve([sink]).browser()
    before = browser.get("/command-sinks").html
    assert "can engage the kill switch, but not release it" in before
    after = browser.post("/command-sinks/kill", sink="commands", reason="leak").html
    assert "leak" in after
    assert "/command-sinks/release" not in after
    assert browser.post("/command-sinks/release", sink="commands").status == 403
    assert codes(before) == codes(after)
    remove, *_ = codes(after)
    subprocess.run(shlex.split(remove), check=True)
    assert "Not engaged" in browser.get("/command-sinks").html


@pytest.mark.slow
def test_the_commands_on_the_page_add_an_administrator_who_can_release_it(serve, sink, tmp_path):
    served = serve([sink])
    browser = served.browser()
    _, add, setting = codes(browser.get("/command-sinks").html)
    served.stop()
    (tmp_path / "kill switch").write_text("leak\n")
    program, *arguments = shlex.split(add)
    assert program == "tieline"
    command = [sys.executable, "-m", "tieline.cli.main", *arguments]
    subprocess.run(command, input="correct horse battery\n", text=True, check=True)
    assert setting.startswith("listeners.users.file: ")
    browser = serve([sink], listeners_users_file=setting.partition(": ")[2]).browser()
    browser.sign_in(arguments[2])
    assert codes(browser.get("/command-sinks").html) == []
    assert "Not engaged" in browser.post("/command-sinks/release", sink="commands").html
    assert not (tmp_path / "kill switch").exists()


def test_an_operator_of_a_worker_with_users_is_referred_to_an_administrator(
    serve, sink, users_file, tmp_path
):
    (tmp_path / "kill switch").write_text("leak\n")
    browser = serve([sink], listeners_users_file=str(users_file)).browser()
    browser.sign_in("otto")
    html = browser.get("/command-sinks").html
    assert "An administrator releases it." in html
    assert codes(html) == []
