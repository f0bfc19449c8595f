"""A driver of VOLTTRON that read only a part of its configuration is started anew; a stand-in plays it."""

import sys

import pytest

from tieline_lab.process import Process, ProcessError
from tieline_lab.volttron import VolttronPlatform

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

    def start(bad):
        said: list[str] = []
        platform = VolttronPlatform(tmp_path, say=said.append)
        platforms.append(platform)
        log = tmp_path / "driver.log"
        driver = Process(
            "driver",
            [sys.executable, "-c", DRIVER, str(bad)],
            log,
            ready=lambda: log.read_bytes().count(b"\n") == len(said) + 1,
            cwd=tmp_path,
        )
        monkeypatch.setattr(VolttronPlatform, "_agent", lambda *_: driver)
        platform.start_driver()
        assert driver.running
        return said, int((tmp_path / "starts").read_text())

    yield start
    for platform in platforms:
        platform.stop()


@pytest.mark.parametrize("bad", [0, 1, 4])
def test_it_is_restarted_until_it_has_read_all(start, bad):
    said, starts = start(bad)
    assert (len(said), starts) == (bad, bad + 1)


def test_a_driver_that_never_reads_all_is_an_error(start):
    with pytest.raises(ProcessError, match="never read all of its configuration"):
        start(99)
