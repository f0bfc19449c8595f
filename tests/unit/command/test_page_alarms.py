"""Alarms of the command pages about the sinks themselves."""

from pathlib import Path
from typing import cast

import pytest

from tieline.api.pages import PageContext, RunningConnector
from tieline_connectors.command.pages.plugin import CommandPages


class Context:
    """What the pages use of their worker for alarms."""

    data_dir = Path("data")

    def __init__(self, settings, counters):
        self.connectors = [RunningConnector("commands", "command", "sink", settings, ["commands"])]
        self.counters = counters

    def ledgers(self):
        return {"commands": {"state": "RUNNING", "counters": self.counters}}


@pytest.fixture
def counters():
    return {}


@pytest.fixture
def pages(tmp_path, counters):
    settings = {
        "volttron.address": "ipc:///nowhere",
        "platform.name": "lab",
        "policy.file": str(tmp_path / "policy.yaml"),
        "audit.file": str(tmp_path / "audit.log"),
        "kill.switch.file": str(tmp_path / "kill"),
    }
    return CommandPages(cast(PageContext, Context(settings, counters)))


def test_a_clock_in_doubt_is_an_alarm_until_it_is_believed(pages, counters):
    assert pages.alarms() == []
    counters["clock.untrusted"] = 1
    (alarm,) = pages.alarms()
    assert (alarm.key, alarm.severity) == ("clock.commands", "critical")
    assert "tieline command clock trust" in alarm.text
    counters["clock.trusted"] = 1
    assert pages.alarms() == []


def test_an_alarm_of_a_sink_keeps_its_time_while_it_lasts(pages, tmp_path):
    (tmp_path / "kill").write_text("maintenance\n")
    (first,) = pages.alarms()
    assert first.key == "kill.commands"
    assert "maintenance" in first.text
    assert pages.alarms() == [first]
