"""Dead letters of a real worker, replayed by ``tieline dlq`` beside it, which is killed on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter

from tieline.broker.records import Delivery, ProducerRecord, Unit
from tieline.testing.worker_process import WorkerProcess

NUMBER = 120  # good records, and as many bad ones
PATIENCE = 120


def connectors(backend, folder, converter):
    shared = {"connector.class": "file", "topics": f"t-{backend.suffix}", "key.converter": "string"}
    store = {
        **shared,
        "name": f"store-{backend.suffix}",
        "file": str(folder / "store.txt"),
        "value.converter": converter,
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.name": f"dead-{backend.suffix}",
    }
    if converter == "json":
        store["value.converter.schemas.enable"] = "false"
    other = {
        **shared,
        "name": f"other-{backend.suffix}",
        "file": str(folder / "other.txt"),
        "value.converter": "string",
    }
    if backend.name == "kafka":  # static members: a stop need not wait for a session to expire
        for each in (store, other):
            each["consumer.override.group.instance.id"] = each["name"]
    return [store, other]


def worker_on(backend, folder, converter):
    return WorkerProcess(folder, backend.worker, connectors(backend, folder, converter))


def fill(backend):
    broker = backend.open()
    topic = f"t-{backend.suffix}"
    broker.create_topic(topic, partitions=1)
    records = []
    for n in range(NUMBER):
        records += [ProducerRecord(topic, b'{"n": %d}' % n), ProducerRecord(topic, b"bad-%d" % n)]
    producer = broker.producer("fill", {})
    producer.send(Unit(records))
    deliveries: list[Delivery] = []
    while not deliveries:
        deliveries = producer.poll(1.0)
    assert not deliveries[0].failures
    producer.close(5.0)
    broker.close()


def dlq(folder, command, *arguments):
    files = ["--worker", str(folder / "worker.json")]
    return [sys.executable, "-m", "tieline.cli.main", "dlq", command, *files, *arguments]


def replay(folder, store, *arguments):
    command = dlq(folder, "replay", "-c", str(folder / f"{store}.json"), "--everything", *arguments)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout.splitlines()[-1])


def replay_and_signal(folder, store, number):
    """Begin a slow replay, and send it a signal when a part is written. Return what it printed."""
    command = dlq(folder, "replay", "-c", str(folder / f"{store}.json"), "--everything", "--rate", "30")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("running: ") and int(line.split()[1]) >= 15:
            break
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE)[0], process.returncode


def counts(ledger):
    return tuple(ledger[name] for name in ("replayed", "delivered", "dead_lettered_again", "remaining"))


def lines(path):
    return Counter(path.read_text().split("\n"))


def test_a_replay_that_is_cancelled_and_killed_delivers_each_letter_and_its_ledger_is_exact(
    backend, tmp_path
):
    fill(backend)
    store, other = f"store-{backend.suffix}", f"other-{backend.suffix}"
    with worker_on(backend, tmp_path, "json") as worker:
        worker.wait_for_ledger(
            lambda ledger: (
                ledger[store]["dead_lettered"] == NUMBER and ledger[other]["delivered"] == 2 * NUMBER
            )
        )
        # nothing is repaired yet: all fail again, which stops no task (errors.tolerance.window)
        status, ledger = replay(tmp_path, store, "--rate", "0")
        assert (status, counts(ledger)) == (0, (NUMBER, 0, NUMBER, 0))
        assert worker.last_ledger[store]["state"] == "RUNNING"
    with worker_on(backend, tmp_path, "string") as worker:
        out, status = replay_and_signal(tmp_path, store, signal.SIGTERM)
        cancelled = json.loads(out.splitlines()[-1])
        assert (status, cancelled["state"], cancelled["replayed"]) == (1, "cancelled", NUMBER)
        assert 0 < cancelled["remaining"] < NUMBER or cancelled["waiting"]
        out, status = replay_and_signal(tmp_path, store, signal.SIGKILL)
        assert (out, status) == ("", -signal.SIGKILL)
        status, ledger = replay(tmp_path, store, "--rate", "0")
        assert (status, counts(ledger)) == (0, (NUMBER, NUMBER, 0, 0))
        assert ledger["job"] == cancelled["job"]
        assert worker.stop() == 0
    written = lines(tmp_path / "store.txt")
    assert {line for line in written if line.startswith("bad-")} == {f"bad-{n}" for n in range(NUMBER)}
    assert set(written.values()) == {1}
    # the other group has not seen the records again
    assert sum(lines(tmp_path / "other.txt").values()) == 2 * NUMBER + 1
    listed = subprocess.run(
        dlq(tmp_path, "list", "--topic", f"dead-{backend.suffix}"),
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert listed.stdout == ""
