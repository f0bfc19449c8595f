"""A worker whose wall clock is set while it runs, and while it is started again; counted at the device.

A library that is loaded before libc sets the clock of the worker's process alone: by what a file says.
"""

import json
import shutil
import subprocess
import sys
import time

import pytest

from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

POINT = "campus/b1/ahu1/CoolingSetpoint"
POLICY = "{version: 1, rules: [{issuers: boss, points: campus/**, type: float, min: 0, max: 100}]}"
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long set_by(void) {
    const char *path = getenv("TEST_CLOCK");
    FILE *file = path ? fopen(path, "r") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += set_by();
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    now->tv_sec = read.tv_sec;
    now->tv_usec = read.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    if (now) *now = read.tv_sec;
    return read.tv_sec;
}
"""
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


class Plant:
    """A device behind a bus, and a worker whose wall clock is what `set_clock` says."""

    def __init__(self, folder, bus):
        self.folder, self.clock = folder, folder / "clock"
        self.value, self.writes, self.write_times = 21.0, [], []
        bus.rpc = {
            "platform.driver": {"set_point": self.set, "get_point": self.get, "revert_point": self.revert}
        }
        self.set_clock(0)
        (folder / "shim.c").write_text(SHIM)
        build = ["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"]
        subprocess.run(build, cwd=folder, check=True, timeout=60)
        (folder / "policy.yaml").write_text(POLICY)
        connector = {
            "name": "commands",
            "connector.class": "command",
            "topics": "commands",
            "volttron.address": bus.address,
            "platform.name": "lab",
            "policy.file": str(folder / "policy.yaml"),
            "audit.file": str(folder / "audit.log"),
            "clock.believe.ms": "4000",
            "max.age.ms": "20000",
            "max.clock.skew.ms": "1000",
        }
        broker = open_broker(check_plan("test", {"data.dir": str(folder / "data")}, []))
        for topic in ("commands", "command-results"):
            broker.create_topic(topic)
        broker.close()
        self.worker = WorkerProcess(folder / "worker", {"data.dir": str(folder / "data")}, [connector])

    def set(self, path, point, value):
        self.writes.append(value)
        self.write_times.append(time.monotonic())
        self.value = value
        return value

    def get(self, path, point):
        return self.value

    def revert(self, path, point):
        self.writes.append("revert")
        self.write_times.append(time.monotonic())
        self.value = 21.0

    def set_clock(self, seconds):
        new = self.clock.with_name("clock.new")
        new.write_text(str(seconds))
        new.replace(self.clock)

    def start(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(self.folder / "shim.so"))
            patch.setenv("TEST_CLOCK", str(self.clock))
            self.worker.start()
        self.worker.wait_for("partitions assigned")

    def wait_for_the_alarm(self):
        deadline = time.monotonic() + 20
        while not any(event["event"].startswith("CLOCK_UNTRUSTED") for event in list(self.worker.events)):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def send(self, command, wait="8"):
        """Return the last state of the command, or the error."""
        (self.folder / "command.json").write_text(json.dumps(command))
        arguments = ["--file", str(self.folder / "command.json"), "--json", "--wait", wait, "--create"]
        worker = ["--worker", str(self.folder / "worker" / "worker.json")]
        call = [sys.executable, "-m", "tieline.cli.main", "command", "send", *arguments, *worker]
        reported = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        states = [json.loads(line)["state"] for line in reported.stdout.splitlines()]
        return states[-1] if states else reported.stderr


def new_command(name, value, **fields):
    now = time.time_ns() // 1000
    return {
        "command_id": name,
        "issuer": "boss",
        "issued_at": now,
        "expires_at": now + 60_000_000,
        "action": "SET",
        "writes": [{"point": POINT, "value": value}],
        **fields,
    }


@pytest.fixture
def plant(tmp_path):
    with FakeRouter() as bus:
        plant = Plant(tmp_path, bus)
        yield plant
        if plant.worker.running:
            plant.worker.stop()


HOLD = 30.0


@pytest.mark.parametrize(
    ("step", "seconds", "restarted"),
    [(86_400, 2, False), (86_400, 2, True), (32 * 86_400, 7, True), (-7200, 2, False), (-7200, 7, True)],
)
def test_setting_the_clock_and_back_does_nothing_twice_and_ends_no_hold_early(
    plant, step, seconds, restarted
):
    """7 s: it is believed meanwhile."""
    plant.start()
    command = new_command("one", 22.5, hold_ms=int(HOLD * 1000))
    assert plant.send(command) == "SUCCEEDED"
    plant.set_clock(step)
    plant.wait_for_the_alarm()
    if restarted:
        plant.worker.kill()
        plant.start()
    time.sleep(seconds)
    assert plant.writes == [22.5]
    plant.send(command, wait="0")
    if restarted:
        plant.worker.kill()
    plant.set_clock(0)
    if restarted:
        plant.start()
    deadline = time.monotonic() + 150
    while "revert" not in plant.writes:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert HOLD - 1 < plant.write_times[1] - plant.write_times[0] < HOLD + 60
    number, state = 0, ""
    while state != "SUCCEEDED":
        assert time.monotonic() < deadline, state
        number += 1
        state = plant.send(new_command(f"later {number}", 23.5))
    assert plant.writes == [22.5, "revert", 23.5]
    assert plant.send(command) in ("SUCCEEDED", "HOLD_ENDED")
    assert plant.writes == [22.5, "revert", 23.5]
    assert plant.worker.stop() == 0
