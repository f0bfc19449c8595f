"""A VOLTTRON driver that read only a part of its configuration is restarted. A stand-in plays the driver."""

import sys

import pytest

from tieline_lab.process import Process, ProcessError
from tieline_lab.volttron import VolttronPlatform
from tieline_lab.volttron.programs import VolttronPrograms

DRIVER = """
import pathlib, sys, time
starts = pathlib.Path("starts")
count = int(starts.read_text()) + 1 if starts.exists() else 1
starts.write_text(str(count))
print("RuntimeError: socket_lock already configured!" if count <= int(sys.argv[1]) else "well", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    platforms = []

    def start(bad_starts):
        messages: list[str] = []
        platform = VolttronPlatform(tmp_path, say=messages.append)
        platforms.append(platform)
        log = tmp_path / "driver.log"
        driver = Process(
            "driver",
            [sys.executable, "-c", DRIVER, str(bad_starts)],
            log,
            ready=lambda: log.read_bytes().count(b"\n") == len(messages) + 1,
            cwd=tmp_path,
        )
        monkeypatch.setattr(VolttronPrograms, "agent", lambda *_: driver)
        platform.start_driver()
        assert driver.running
        return len(messages), int((tmp_path / "starts").read_text())

    yield start
    for platform in platforms:
        platform.stop()


@pytest.mark.parametrize("bad_starts", [0, 1, 4])
def test_the_driver_is_restarted_until_it_has_read_its_whole_configuration(start, bad_starts):
    assert start(bad_starts) == (bad_starts, bad_starts + 1)


def test_a_driver_that_never_reads_its_whole_configuration_is_an_error(start):
    with pytest.raises(ProcessError, match="never read all of its configuration"):
        start(99)
