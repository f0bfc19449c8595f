"""The real servers start, stop, keep their data, and never outlive the process that started them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from pymongo import MongoClient

from tieline_lab import kafka, mongo
from tieline_lab.cache import create_once
from tieline_lab.kafka import KafkaServer
from tieline_lab.mongo import MongoServer
from tieline_lab.process import Process, ProcessError, free_port, port_open

PYTHON = sys.executable


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true within {seconds:g} s"
        time.sleep(0.02)


def has_ended(pid):
    """Return whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_process_that_ends_before_it_is_ready_shows_its_last_lines_and_its_log(tmp_path):
    log = tmp_path / "x.log"
    process = Process("x", [PYTHON, "-c", "print('no such port'); exit(3)"], log, ready=lambda: False)
    with pytest.raises(ProcessError, match=r"(?s)x ended with status 3.*no such port.*x\.log"):
        process.start()
    assert not process.running


def test_a_process_that_is_never_ready_is_killed(tmp_path):
    process = Process("x", ["sleep", "100"], tmp_path / "log", ready=lambda: False)
    with pytest.raises(ProcessError, match=r"x was not ready in 0\.2 s"):
        process.start(timeout=0.2)
    assert has_ended(process.pid)


def test_a_missing_program_is_reported(tmp_path):
    process = Process("x", [tmp_path / "nothing"], tmp_path / "log")
    with pytest.raises(ProcessError, match=r"(?s)x could not be started.*No such file"):
        process.start()


def test_stop_lets_a_process_end_in_good_order_and_keeps_its_status(tmp_path):
    program = "import signal; signal.signal(15, lambda *_: exit(7)); print('up', flush=True); signal.pause()"
    log = tmp_path / "log"
    with Process("x", [PYTHON, "-c", program], log, ready=lambda: "up" in log.read_text()) as process:
        assert process.running
    assert process.status == 7


def test_stop_kills_a_process_that_ignores_it_and_its_children(tmp_path):
    program = (
        "import signal, subprocess, time; signal.signal(15, signal.SIG_IGN);"
        "print('child', subprocess.Popen(['sleep', '100']).pid, flush=True); time.sleep(100)"
    )
    log = tmp_path / "log"
    process = Process("x", [PYTHON, "-c", program], log, ready=lambda: log.read_text().endswith("\n"))
    process.start()
    child = int(log.read_text().split()[1])
    process.stop(timeout=0.2)
    assert process.status == 128 + signal.SIGKILL
    wait_until(lambda: has_ended(child))


def test_children_that_a_process_left_running_end_with_it(tmp_path):
    program = "import subprocess; print(subprocess.Popen(['sleep', '100']).pid)"
    process = Process("x", [PYTHON, "-c", program], tmp_path / "log")
    process.start()
    assert process.wait(20.0) == 0
    wait_until(lambda: has_ended(int((tmp_path / "log").read_text())))
    process.stop()


def test_a_free_port_is_not_one_of_the_ports_for_clients():
    ports = {free_port() for _ in range(50)}
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < first for port in ports)
    assert len(ports) > 40


@pytest.mark.mongo
@pytest.mark.skipif(mongo.why_not() is not None, reason=str(mongo.why_not()))
def test_servers_die_with_a_parent_that_is_killed(tmp_path):
    parent = textwrap.dedent(
        """
        import pathlib, sys, time
        from tieline_lab.mongo import MongoServer
        server = MongoServer(pathlib.Path(sys.argv[1]))
        server.start()
        print(server.process.pid, server.port, flush=True)
        time.sleep(100)
        """
    )
    with subprocess.Popen([PYTHON, "-c", parent, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, port = map(int, process.stdout.readline().split())
        assert port_open(port)
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid) and not port_open(port))


def test_a_folder_is_created_once_and_again_if_its_recipe_changes_or_it_is_incomplete(tmp_path):
    created = []

    def create(folder):
        created.append(folder)
        (folder / "it").write_text("x")

    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError

    create_once(tmp_path / "thing", "a==1", create)
    create_once(tmp_path / "thing", "a==1", create)
    assert len(created) == 1
    with pytest.raises(RuntimeError):
        create_once(tmp_path / "thing", "a==2", fail)
    create_once(tmp_path / "thing", "a==2", create)
    assert len(created) == 2
    assert not (tmp_path / "thing" / "half").exists()


@pytest.mark.mongo
@pytest.mark.skipif(mongo.why_not() is not None, reason=str(mongo.why_not()))
def test_mongo_keeps_what_it_acknowledged_through_a_kill(tmp_path):
    with MongoServer(tmp_path) as server:
        with MongoClient[dict[str, int]](server.uri) as client:
            client.lab.things.insert_many([{"_id": n} for n in range(100)])
        server.kill()
        assert not port_open(server.port)
        server.restart()
        with MongoClient[dict[str, int]](server.uri) as client:
            assert sorted(document["_id"] for document in client.lab.things.find()) == list(range(100))
    assert not port_open(server.port)


@pytest.mark.kafka
@pytest.mark.skipif(kafka.why_not() is not None, reason=str(kafka.why_not()))
def test_kafka_keeps_what_it_acknowledged_through_a_kill(tmp_path):
    with KafkaServer(tmp_path) as server:
        producer = Producer({"bootstrap.servers": server.bootstrap})
        for n in range(100):
            producer.produce("things", str(n))
        assert producer.flush(30) == 0
        server.kill()
        assert not port_open(server.port)
        server.restart()
        consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "g"})
        consumer.assign([TopicPartition("things", 0, 0)])
        assert [int(message.value() or b"") for message in consumer.consume(100, 30.0)] == list(range(100))
        consumer.close()
    assert not port_open(server.port)
