"""``tieline lab`` on real servers, started in its own process as a newcomer starts it."""

import contextlib
import fcntl
import http.client
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

from tieline.config.files import read_settings
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
    """Return a folder with a short name, since VOLTTRON creates sockets in it, whose paths are limited."""
    return tmp_path_factory.mktemp("lab")


def run(folder, *arguments):
    command = [*LAB, "--folder", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def read_result(stdout):
    return json.loads(stdout.splitlines()[-1])


def left_running(folder):
    """Return the command lines of the processes whose command or working folder contains this folder."""
    commands = []
    for process in psutil.process_iter():
        try:
            command, cwd = process.cmdline(), process.cwd()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in (*command, cwd)):
            commands.append(command)
    return commands


@contextlib.contextmanager
def started(folder, *arguments, until):
    """Start a lab and yield it as soon as it has printed ``until`` on standard error."""
    lab = subprocess.Popen(
        [*LAB, "--folder", str(folder), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert lab.stderr is not None
    try:
        lines: list[str] = []
        while until not in "".join(lines[-1:]):
            lines.append(lab.stderr.readline())
            assert lines[-1], "".join(lines)
        yield lab
    finally:
        lab.kill()
        lab.communicate()


@on_real_servers
@pytest.mark.parametrize("broker", ["local log", pytest.param("Apache Kafka", marks=needs_kafka)])
def test_the_result_compares_what_was_seen_with_what_is_stored_and_finds_no_fault(tmp_path, broker):
    arguments = ["--kafka"] if broker == "Apache Kafka" else []
    completed = run(tmp_path / "run", "--duration", "10", "--devices", "2", *arguments)
    assert completed.returncode == 0, completed.stderr
    result = read_result(completed.stdout)
    assert result["broker"] == broker
    assert result["documents"] == result["readings"] == result["in"] >= result["seen"]
    # The driver also publishes each write: a set twice, a revert once.
    least, most = result["expected"]
    assert least + result["writes"] <= result["seen"] <= most + 2 * result["writes"]
    # One device of two, from before the observer's start.
    assert least / 2 <= result["command_to_cloud"] <= most / 2 + 2
    assert (result["duplicates"], result["missing"], result["dropped"], result["faults"]) == (0, 0, 0, [])
    # Ten seconds, and the time until the last command had ended.
    assert 10 <= result["seconds"] < 14
    assert (
        result["commands"] == result["ended"] == result["succeeded"] + result["rejected"] + result["expired"]
    )
    assert min(result["rejected"], result["expired"]) >= 1
    assert result["writes"] >= result["succeeded"] - 1 >= 10  # one was a dry run
    assert (result["writes_doubled"], result["writes_missing"]) == (0, 0)
    assert result["published"] == result["heard"] == result["echoes"] >= 9
    assert len(completed.stdout.splitlines()) == 1
    assert "\x1b" not in completed.stderr
    assert left_running(tmp_path) == []


@on_real_servers
def test_with_the_history_every_value_that_was_seen_is_stored_and_a_planted_loss_is_found(tmp_path):
    completed = run(tmp_path / "run", "--store", "history", "--duration", "5", "--plant-loss")
    result = read_result(completed.stdout)
    assert completed.returncode == 1, completed.stderr
    assert (result["store"], result["missing"], result["duplicates"], result["dropped"]) == (
        "history",
        1,
        0,
        0,
    )
    assert result["values_seen"] >= 9 * result["expected"][0] > 0
    # The source subscribed before the observer, so the file may have values that were not seen.
    assert result["values"] >= result["values_seen"] - 1
    assert len(result["faults"]) == 2, result["faults"]  # the number, and the value
    assert not (tmp_path / "run" / "mongo").exists()
    assert left_running(tmp_path) == []


@on_real_servers
def test_the_pages_are_open_while_the_lab_runs(tmp_path):
    with started(tmp_path / "run", "--duration", "600", until="open http"):
        worker = read_settings(tmp_path / "run" / "config" / "worker.yaml")
        address = worker["listeners"].removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
            connection.request("GET", "/ui/")
            answer = connection.getresponse()
            assert answer.status == 200
            assert "way-back" in answer.read().decode()
        assert address.startswith("127.0.0.1:")


@on_real_servers
def test_the_operators_connectors_run_beside_the_labs(tmp_path):
    lines, readings = tmp_path / "in.txt", tmp_path / "out.txt"
    lines.write_text("one\ntwo\n")
    connectors = {
        "mine": {"connector.class": "file", "file": str(lines), "topic": "lines"},
        "theirs": {"connector.class": "file", "file": str(readings), "topics": "volttron"},
    }
    arguments = []
    for name, settings in connectors.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"name": name, **settings}))
        arguments += ["--connector", str(file)]
    completed = run(tmp_path / "run", "--duration", "3", *arguments)
    assert completed.returncode == 0, completed.stderr
    result = read_result(completed.stdout)
    assert result["added"]["mine"] == {"state": "RUNNING", "received": 2, "delivered": 2}
    stored = len(readings.read_text().splitlines())
    # The count is from before the stop, and the lab waits only for its own connectors.
    assert result["in"] >= stored >= result["added"]["theirs"]["delivered"] > 0


@on_real_servers
def test_a_planted_loss_and_a_planted_write_are_faults(tmp_path):
    completed = run(tmp_path / "run", "--duration", "4", "--plant-loss", "--plant-write")
    result = read_result(completed.stdout)
    assert completed.returncode == 1, completed.stderr
    assert result["missing"] == 1
    assert result["documents"] == result["in"] - 1 == result["readings"] - 1
    assert (result["writes_doubled"], result["writes_missing"]) == (1, 0)
    assert len(result["faults"]) == 4
    assert result["faults"][-1].startswith("a device was written, but no result reports it")


def walk_through(folder):
    """Run each command of the tutorial against a lab in this folder; yield it with its output."""
    section = TUTORIAL.read_text("utf-8").split("## 2.")[1].split("## 5.")[0]
    commands = re.findall(r"^(?:echo [^|]*\| )?tieline .*$|(?<=`)tieline [^`]*(?=`)", section, re.MULTILINE)
    port = re.search(r"127\.0\.0\.1:(\d+)", (folder / "config" / "readings.yaml").read_text())
    assert port is not None
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "TIELINE_WORKER": str(folder / "config" / "worker.yaml")}
    for command in commands:
        typed = command.replace(".lab/run", str(folder)).replace("PORT", port[1])
        completed = subprocess.run(
            typed, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert completed.returncode == 0, (typed, completed.stderr)
        yield command, completed.stdout


@on_real_servers
def test_the_tutorials_commands_work_and_sigterm_stops_everything_and_compares(tmp_path):
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
        assert all("SUCCEEDED" in output for command, output in typed.items() if "send" in command)
        lab.send_signal(signal.SIGTERM)
        stdout, stderr = lab.communicate(timeout=60)
        assert lab.returncode == 0, stderr
        result = read_result(stdout)
        assert (result["missing"], result["writes_doubled"], result["writes_missing"]) == (0, 0, 0)
        assert result["echoes"] == result["published"] + 1
        written = (tmp_path / "run" / "volttron" / "writes.jsonl").read_text()
        assert written.count('"value": 75.0') == 1
        assert [names[process.pid] for process in family if process.is_running()] == []
        assert left_running(tmp_path) == []
        events = [
            json.loads(line)["event"] for line in (tmp_path / "run" / "worker.log").read_text().splitlines()
        ]
        assert events[-1] == "stopped"


@on_real_servers
def test_ctrl_c_during_the_start_leaves_nothing_running(tmp_path):
    with started(tmp_path / "run", until="starting the worker") as lab:
        lab.send_signal(signal.SIGINT)
        _, stderr = lab.communicate(timeout=60)
        assert lab.returncode == 0, stderr
        assert "stopped during the start" in stderr
        assert left_running(tmp_path) == []


@on_real_servers
def test_a_killed_worker_is_a_fault_and_everything_else_is_stopped(tmp_path):
    with started(tmp_path / "run", "--duration", "600", until="readings arrive") as lab:
        (worker,) = [
            process
            for process in psutil.Process(lab.pid).children(recursive=True)
            if process.cmdline()[1:4] == ["-m", "tieline.cli.main", "run"]
        ]
        worker.kill()
        stdout, _ = lab.communicate(timeout=60)
        assert lab.returncode == 1
        assert any("ended by itself with status 137" in fault for fault in read_result(stdout)["faults"])
        assert left_running(tmp_path) == []


@on_real_servers
def test_a_terminal_shows_a_table_and_closing_it_stops_everything(tmp_path):
    terminal, lab_terminal = pty.openpty()
    fcntl.ioctl(lab_terminal, 0x5414, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # TIOCSWINSZ: 24 lines of 80
    lab = subprocess.Popen(
        [*LAB, "--folder", str(tmp_path / "run")],
        stdin=lab_terminal, stdout=lab_terminal, stderr=lab_terminal, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(lab_terminal)
    watchdog = threading.Timer(60, lab.kill)
    watchdog.start()
    shown = ""
    while not all(
        word in shown
        for word in ("Reading", "device3", "campus", "RUNNING", "writes at devices", "no command")
    ):
        shown += os.read(terminal, 65536).decode(errors="replace")
    os.close(terminal)
    lab.send_signal(signal.SIGHUP)
    assert lab.wait(60) == 0
    watchdog.cancel()
    assert left_running(tmp_path) == []


def test_a_second_lab_in_the_same_folder_fails_with_the_pid_of_the_first(tmp_path):
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        completed = run(tmp_path / "run")
    assert completed.returncode == 2
    assert "pid 4711" in completed.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(bool(why_not), reason=str(why_not))
def test_without_java_the_error_names_what_is_missing_and_the_alternative(tmp_path):
    command = [*LAB, "--kafka", "--folder", str(tmp_path / "run")]
    completed = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 2
    assert "not found: java, mvn" in completed.stderr
    assert "without --kafka" in completed.stderr
    assert "Traceback" not in completed.stderr
