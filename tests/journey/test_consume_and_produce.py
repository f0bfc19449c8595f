"""``tieline consume`` and ``tieline produce`` beside a running worker, on either backend."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient

from tieline.broker.local.log import LocalLog
from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord, Unit
from tieline.cli.connection import BrokerOptions, open_session
from tieline.testing.worker_process import WorkerProcess
from tieline_lab import kafka

PATIENCE = 60


def program(command, *arguments):
    return [sys.executable, "-m", "tieline.cli.main", command, *map(str, arguments)]


def run(command, *arguments, text=""):
    return subprocess.run(
        program(command, *arguments),
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Consuming:
    """``tieline consume`` as a process."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            program("consume", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = self.process.stdout, self.process.stderr

    def record(self):
        """The next that it prints."""
        return json.loads(self.stdout.readline())


@contextmanager
def following(*arguments) -> Iterator[Consuming]:
    """From the moment from which it sees everything."""
    consuming = Consuming(*arguments)
    with consuming.process:
        try:
            while "following" not in (line := consuming.stderr.readline()):
                assert line, "it ended before it followed"
            yield consuming
        finally:
            consuming.process.kill()


def ended(consuming, number):
    """Its exit status after a signal, and what it said at its end."""
    consuming.process.send_signal(number)
    return consuming.process.wait(PATIENCE), consuming.stderr.read()


@pytest.fixture
def topics(backend):
    """This test's own."""
    return f"in-{backend.suffix}", f"out-{backend.suffix}"


@pytest.fixture
def worker(backend, tmp_path, topics):
    """It copies a file to one topic, and the other topic to a file; with its settings file."""
    (tmp_path / "in.txt").write_text("")
    connectors = [
        {"name": f"lines-{backend.suffix}", "connector.class": "file", "file": str(tmp_path / "in.txt"),
         "topic": topics[0], "value.converter": "string"},
        {"name": f"out-{backend.suffix}", "connector.class": "file", "file": str(tmp_path / "out.txt"),
         "topics": topics[1], "value.converter": "json"},
    ]  # fmt: skip
    with WorkerProcess(tmp_path, {**backend.worker, "data.dir": str(backend.data)}, connectors) as running:
        running.wait_for("progress")
        yield running


@pytest.fixture
def options(worker, tmp_path):
    """The options that name the place: the worker's own file."""
    return "--worker", tmp_path / "worker.json"


def wait_until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def groups(backend):
    """Return all groups of the broker."""
    if backend.name == "kafka":
        admin = AdminClient({"bootstrap.servers": backend.worker["bootstrap.servers"]})
        return {group.group_id for group in admin.list_consumer_groups().result(PATIENCE).valid}
    with Store(backend.data / "log.db", owner=False) as store:
        return set(store.groups())


def test_a_follower_sees_records_of_the_command_line_and_of_the_worker(
    backend, worker, options, topics, tmp_path
):
    into, out = topics
    with following(into, *options) as seen_in, following(out, *options) as seen_out:
        with open(tmp_path / "in.txt", "a") as lines:
            lines.write("from the file\n")
        sent = run("produce", out, *options, "--create", "--key", "k", text='{"n": 1}\n{"n": 2}\n')
        assert (sent.returncode, sent.stderr.splitlines()[-1][:6]) == (0, "2 sent")
        first = seen_in.record()
        others = [seen_out.record() for _ in range(2)]
        ends = [ended(seen_in, signal.SIGTERM), ended(seen_out, signal.SIGINT)]
    assert (first["topic"], first["value"], first["format"]) == (into, "from the file", "text")
    assert [(r["offset"], r["key"], r["value"]) for r in others] == [(0, "k", {"n": 1}), (1, "k", {"n": 2})]
    assert [status for status, _ in ends] == [0, 0]
    assert [stderr for _, stderr in ends if "Traceback" in stderr] == []
    wait_until(
        lambda: (tmp_path / "out.txt").exists() and (tmp_path / "out.txt").read_text().count("\n") == 2
    )
    assert [n for n in groups(backend) if backend.suffix in n and n != f"connect-out-{backend.suffix}"] == []


def test_a_record_is_shown_as_soon_as_it_arrives(backend, worker, options, topics):
    """Forty, one after another, each sent when the last was seen: a timer would add half its period."""
    with open_session(BrokerOptions(worker=options[1])) as opened:
        topic = topics[1]
        opened.broker.create_topic(topic)
        producer = opened.broker.producer("test", {"linger.ms": "0"})
        took = []
        with following(topic, *options) as follower:
            for n in range(40):
                began = time.perf_counter()
                producer.send(Unit([ProducerRecord(topic, b"%d" % n)]))
                assert follower.record()["value"] == n
                took.append(time.perf_counter() - began)
                producer.poll(10)
        producer.close(5)
    assert statistics.median(took[5:]) < 0.1, took


def test_avro_is_printed_as_it_was_sent_and_every_reader_from_the_beginning_sees_the_same(
    backend, worker, options, topics, tmp_path
):
    topic = topics[0]
    reading = {
        "platform": "p", "topic": "devices/a/all", "device": "a", "kind": "ALL", "form": "PAIR",
        "sender": "s",
        "headers": {"Date": "x", "more": {"json": "[1]"}}, "time": 1_700_000_000_000_000,
        "time_source": "DATE", "received": 1, "points": {"t": 21.5, "n": 2**62, "on": True, "z": None},
        "metadata": {"t": {"units": "C", "type": None, "tz": None}},
    }  # fmt: skip
    lines = "".join(json.dumps({**reading, "device": f"a{n}"}) + "\n" for n in range(3))
    sent = run("produce", topic, *options, "--create", "--schema", "volttron.DeviceReading",
               "--key-field", "device", text=lines)  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    shown = run("consume", topic, *options, "--from-beginning", "--no-follow", "--where", "points.t=21.5")
    assert shown.returncode == 0, shown.stderr
    printed = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [r["value"] for r in printed] == [{**reading, "device": f"a{n}"} for n in range(3)]
    assert {(r["format"], r["schema"]) for r in printed} == {("avro", "volttron.DeviceReading")}
    assert [r["key"] for r in printed] == ["a0", "a1", "a2"]
    again = run("consume", topic, *options, "--from-beginning", "--no-follow", "--where", "points.t=21.5")
    assert again.stdout == shown.stdout


def test_a_closed_pipe_ends_the_command_even_if_no_further_record_arrives(backend, worker, options, topics):
    run("produce", topics[1], *options, "--create", text="1\n2\n")
    with following(topics[1], *options, "--from-beginning") as follower:
        assert follower.record()["value"] == 1
        follower.stdout.close()
        assert follower.stderr.read() == ""
        assert follower.process.wait(PATIENCE) == 0


def test_each_line_is_sent_before_the_next_is_typed(backend, worker, options, topics):
    topic = topics[1]
    process = subprocess.Popen(
        program("produce", topic, *options, "--create", "--live"), stdin=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("1\n")
    assert "sending to" in process.stderr.readline()
    with following(topic, *options, "--from-beginning") as follower:
        assert follower.record()["value"] == 1
        process.stdin.write("{\n")
        assert "line 2: not JSON" in process.stderr.readline()
        process.stdin.write("3\n")
        assert follower.record()["value"] == 3
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert stderr.startswith("2 of 3 sent, 1 refused to")
    assert process.returncode == 1


def test_a_topic_that_is_created_later_is_awaited_and_shown_from_its_beginning(
    backend, worker, options, topics
):
    with following(topics[1], *options) as follower:
        run("produce", topics[1], *options, "--create", text="1\n2\n")
        assert [follower.record()["value"] for _ in range(2)] == [1, 2]


def test_showing_data_that_resembles_avro_does_not_create_the_topic_of_schemas(
    backend, worker, options, topics
):
    with open_session(BrokerOptions(worker=options[1])) as opened:
        before = set(opened.broker.topics()) | {topics[1]}
        opened.broker.create_topic(topics[1])
        producer = opened.broker.producer("test", {})
        producer.send(Unit([ProducerRecord(topics[1], b"\0\x7f\xff\xff\xffx")]))
        assert producer.poll(PATIENCE)
        producer.close(5)
        shown = run("consume", topics[1], *options, "--from-beginning", "--no-follow")
        assert json.loads(shown.stdout)["format"] == "bytes"
        assert set(opened.broker.topics()) <= before | {"__consumer_offsets", topics[0]}


def test_an_unavailable_broker_is_reported_without_its_secrets(tmp_path):
    settings = {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "operator",
        "sasl.password": "very-secret",
        "schema.registry.url": "http://reader:registry-secret@127.0.0.1:1",
    }
    (tmp_path / "worker.json").write_text(json.dumps(settings))
    answer = run("consume", "t", "--worker", tmp_path / "worker.json")
    assert answer.returncode == 1
    assert answer.stderr.startswith("Kafka at 127.0.0.1:1: ")
    assert "secret" not in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_reader_beside_the_worker_does_not_keep_the_local_log_large(tmp_path):
    """A reader stopped in the middle of a big topic pins nothing: the write-ahead log starts over."""
    log = LocalLog.open(tmp_path / "data")
    producer = log.producer("test", {})
    producer.send(Unit([ProducerRecord("t", b"[%d]" % n + b" " * 1000) for n in range(5000)]))
    producer.poll(PATIENCE)
    with following("t", "--data-dir", tmp_path / "data", "--from-beginning") as follower:
        follower.stdout.readline()  # the rest does not fit into the pipe: it stands in its writing
        follower.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, follower.process.pid, os.WSTOPPED)
        for _ in range(30):
            producer.send(Unit([ProducerRecord("t", b"x" * 1_000_000)]))
            producer.poll(PATIENCE)
        wait_until(lambda: (tmp_path / "data" / "log.db-wal").stat().st_size < 24 << 20)
        follower.process.send_signal(signal.SIGCONT)
    producer.close(1)
    log.close()


@pytest.mark.kafka
def test_after_an_outage_of_the_broker_no_record_was_skipped(tmp_path):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path) as server:
        options = "--bootstrap-servers", server.bootstrap
        assert run("produce", "t", *options, "--create", text="1\n").returncode == 0
        with following("t", *options, "--from-beginning") as follower:
            assert follower.record()["value"] == 1
            server.kill()
            assert follower.stderr.readline().startswith("waiting: ")
            server.restart()
            assert run("produce", "t", *options, text="2\n3\n").returncode == 0
            assert [follower.record()["value"] for _ in range(2)] == [2, 3]
            assert ended(follower, signal.SIGINT) == (0, "")
