"""``tieline lab`` as a newcomer starts it: in a process of its own, on real servers."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tieline_lab import kafka, mongo, volttron

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "first-reading.md"
LAB = [sys.executable, "-m", "tieline.cli.main", "lab"]
why_not = volttron.why_not() or mongo.why_not()
real = [pytest.mark.volttron, pytest.mark.mongo, pytest.mark.skipif(bool(why_not), reason=str(why_not))]


def on_real_servers(test):
    for mark in real:
        test = mark(test)
    return test


needs_kafka = [pytest.mark.kafka, pytest.mark.skipif(bool(kafka.why_not()), reason=str(kafka.why_not()))]


@pytest.fixture
def tmp_path(tmp_path_factory):
    """A short name: VOLTTRON makes sockets in its home, whose paths have 107 characters at most."""
    return tmp_path_factory.mktemp("lab")


def run(folder, *arguments):
    command = [*LAB, "--folder", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def result(done):
    return json.loads(done.stdout.splitlines()[-1])


def left_running(folder):
    """The command lines of processes that name this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command, cwd = process.cmdline(), process.cwd()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in (*command, cwd)):
            found.append(command)
    return found


@contextlib.contextmanager
def started(folder, *arguments, until):
    """A lab that has said ``until`` on standard error, and begins to say more."""
    lab = subprocess.Popen(
        [*LAB, "--folder", str(folder), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert lab.stderr is not None
    try:
        said: list[str] = []
        while until not in "".join(said[-1:]):
            said.append(lab.stderr.readline())
            assert said[-1], "".join(said)
        yield lab
    finally:
        lab.kill()
        lab.communicate()


@on_real_servers
@pytest.mark.parametrize("home", ["local log", pytest.param("Apache Kafka", marks=needs_kafka)])
def test_it_counts_what_an_observer_saw_and_what_is_stored_and_all_is_well(tmp_path, home):
    arguments = ["--kafka"] if home == "Apache Kafka" else []
    done = run(tmp_path / "run", "--duration", "10", "--devices", "2", *arguments)
    assert done.returncode == 0, done.stderr
    told = result(done)
    assert told["broker"] == home
    assert told["documents"] == told["readings"] == told["in"] >= told["seen"]
    # Beside the readings the driver tells each write on the bus: a set twice, a revert once.
    least, most = told["expected"]
    assert least + told["writes"] <= told["seen"] <= most + 2 * told["writes"]
    assert (
        least / 2 <= told["command_to_cloud"] <= most / 2 + 2
    )  # one device of two, from before the observer
    assert (told["duplicates"], told["missing"], told["dropped"], told["faults"]) == (0, 0, 0, [])
    # Ten seconds and what it took until the last command had ended.
    assert 10 <= told["seconds"] < 14
    assert told["commands"] == told["ended"] == told["succeeded"] + told["rejected"] + told["expired"]
    assert min(told["rejected"], told["expired"]) >= 1
    assert told["writes"] >= told["succeeded"] - 1 >= 10  # one was dry
    assert (told["writes_doubled"], told["writes_missing"]) == (0, 0)
    assert told["published"] == told["heard"] == told["echoes"] >= 9
    assert len(done.stdout.splitlines()) == 1
    assert "\x1b" not in done.stderr
    assert left_running(tmp_path) == []


@on_real_servers
def test_connectors_of_ones_own_run_beside_the_labs(tmp_path):
    lines, readings = tmp_path / "in.txt", tmp_path / "out.txt"
    lines.write_text("one\ntwo\n")
    own = {
        "mine": {"connector.class": "file", "file": str(lines), "topic": "lines"},
        "theirs": {"connector.class": "file", "file": str(readings), "topics": "volttron"},
    }
    arguments = []
    for name, settings in own.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"name": name, **settings}))
        arguments += ["--connector", str(file)]
    done = run(tmp_path / "run", "--duration", "3", *arguments)
    assert done.returncode == 0, done.stderr
    told = result(done)
    assert told["added"]["mine"] == {"state": "RUNNING", "received": 2, "delivered": 2}
    stored = len(readings.read_text().splitlines())
    # Told before it was stopped, and the lab waits for its own connectors only.
    assert told["in"] >= stored >= told["added"]["theirs"]["delivered"] > 0


@on_real_servers
def test_a_planted_loss_and_a_planted_write_are_noticed(tmp_path):
    done = run(tmp_path / "run", "--duration", "4", "--plant-loss", "--plant-write")
    told = result(done)
    assert done.returncode == 1, done.stderr
    assert told["missing"] == 1
    assert told["documents"] == told["in"] - 1 == told["readings"] - 1
    assert (told["writes_doubled"], told["writes_missing"]) == (1, 0)
    assert len(told["faults"]) == 4
    assert told["faults"][-1].startswith("written at the device, and no result speaks of it")


def walk_through(folder):
    """Each command that the tutorial says to type beside the lab, for a lab here, and its output."""
    section = TUTORIAL.read_text("utf-8").split("## 2.")[1].split("## 5.")[0]
    commands = re.findall(r"^(?:echo [^|]*\| )?tieline .*$|(?<=`)tieline [^`]*(?=`)", section, re.MULTILINE)
    port = re.search(r"127\.0\.0\.1:(\d+)", (folder / "config" / "readings.yaml").read_text())
    assert port is not None
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outside = {**os.environ, "PATH": paths, "TIELINE_WORKER": str(folder / "config" / "worker.yaml")}
    for command in commands:
        typed = command.replace(".lab/run", str(folder)).replace("PORT", port[1])
        done = subprocess.run(
            typed, shell=True, env=outside, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (typed, done.stderr)
        yield command, done.stdout


@on_real_servers
def test_the_tutorials_commands_work_and_sigterm_ends_all_in_order_and_counted(tmp_path):
    with started(tmp_path / "run", "--duration", "600", until="readings arrive") as lab:
        family = psutil.Process(lab.pid).children(recursive=True)
        names = {process.pid: process.cmdline() for process in family}
        for program in (
            "tieline.cli.main",
            "secantusd-py",
            "volttron_as_root.py",
            "volttron-platform-driver",
        ):
            assert any(program in word for command in names.values() for word in command), names
        typed = dict(walk_through(tmp_path / "run"))
        verbs = ("send", "consume", "query", "history", "audit", "produce")
        assert [next(verb for verb in verbs if verb in command) for command in typed] == [
            "query", "consume", "send", "history", "query", "audit", "produce"
        ]  # fmt: skip
        assert all("SUCCEEDED" in said for command, said in typed.items() if "send" in command)
        lab.send_signal(signal.SIGTERM)
        stdout, stderr = lab.communicate(timeout=60)
        assert lab.returncode == 0, stderr
        told = json.loads(stdout.splitlines()[-1])
        assert (told["missing"], told["writes_doubled"], told["writes_missing"]) == (0, 0, 0)
        assert told["echoes"] == told["published"] + 1
        written = (tmp_path / "run" / "volttron" / "writes.jsonl").read_text()
        assert written.count('"value": 75.0') == 1
        assert [names[process.pid] for process in family if process.is_running()] == []
        assert left_running(tmp_path) == []
        events = [
            json.loads(line)["event"] for line in (tmp_path / "run" / "worker.log").read_text().splitlines()
        ]
        assert events[-1] == "stopped"


@on_real_servers
def test_ctrl_c_while_it_starts_leaves_nothing_running(tmp_path):
    with started(tmp_path / "run", until="starting the worker") as lab:
        lab.send_signal(signal.SIGINT)
        _, stderr = lab.communicate(timeout=60)
        assert lab.returncode == 0, stderr
        assert "stopped before it had begun" in stderr
        assert left_running(tmp_path) == []


@on_real_servers
def test_a_worker_that_dies_is_told_and_the_rest_is_stopped(tmp_path):
    with started(tmp_path / "run", "--duration", "600", until="readings arrive") as lab:
        (worker,) = [
            process
            for process in psutil.Process(lab.pid).children(recursive=True)
            if process.cmdline()[1:4] == ["-m", "tieline.cli.main", "run"]
        ]
        worker.kill()
        stdout, _ = lab.communicate(timeout=60)
        assert lab.returncode == 1
        assert any("ended by itself with status 137" in fault for fault in json.loads(stdout)["faults"])
        assert left_running(tmp_path) == []


@on_real_servers
def test_in_a_terminal_a_table_is_shown_and_closing_it_ends_everything(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, 0x5414, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # TIOCSWINSZ: 24 lines of 80
    lab = subprocess.Popen(
        [*LAB, "--folder", str(tmp_path / "run")],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    watchdog = threading.Timer(60, lab.kill)
    watchdog.start()
    shown = ""
    while not all(
        word in shown
        for word in ("Reading", "device3", "campus", "RUNNING", "writes at devices", "no command")
    ):
        shown += os.read(ours, 65536).decode(errors="replace")
    os.close(ours)
    lab.send_signal(signal.SIGHUP)
    assert lab.wait(60) == 0
    watchdog.cancel()
    assert left_running(tmp_path) == []


def test_a_second_lab_in_the_same_folder_is_refused_with_the_pid_of_the_first(tmp_path):
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        done = run(tmp_path / "run")
    assert done.returncode == 2
    assert "pid 4711" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(bool(why_not), reason=str(why_not))
def test_a_machine_without_java_is_told_so_and_the_way_out(tmp_path):
    command = [*LAB, "--kafka", "--folder", str(tmp_path / "run")]
    done = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "not found: java, mvn" in done.stderr
    assert "without --kafka" in done.stderr
    assert "Traceback" not in done.stderr
