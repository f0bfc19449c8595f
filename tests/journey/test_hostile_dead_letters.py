"""Records that are made to break dead letters: none is lost, none is changed, and the pipeline moves on."""

import time

import pytest

from tieline.broker.records import ProducerRecord, Unit
from tieline.dead_letters.record import read_letter
from tieline.testing.worker_process import WorkerProcess

MANY = tuple((f"h{n % 7}", b"%d" % n) for n in range(1_000))
OLD_LETTER = (
    ("__connect.errors.topic", b"another"),
    ("__connect.errors.stage", b"KEY_CONVERTER"),
    ("tieline.dlq.id", b"another-0@7"),
    ("tieline.dlq.headers", b"0"),
    ("__connect.errors.exception.message", None),
)
HOSTILE = [
    (b"x" * (10 << 20), None, ()),
    (b"{", b"k" * 100_000, MANY),
    (b"{1", b"", OLD_LETTER),
    (b"\xff\xfe", b"\xff", (("", b""), ("\u00e4" * 100, b"\x00\xff"))),
]


def fill(backend, topic, records, *, timeout=60.0):
    """Write records to a topic, which is created with room for them."""
    broker = backend.open()
    broker.create_topic(topic, partitions=1, config={"max.message.bytes": str(16 << 20)})
    producer = broker.producer("test", {})
    producer.send(Unit([ProducerRecord(topic, value, key, headers) for value, key, headers in records]))
    deadline = time.monotonic() + timeout
    while not (deliveries := producer.poll(1.0)):
        assert time.monotonic() < deadline
    assert [delivery.failures for delivery in deliveries] == [{}]
    producer.close(5.0)
    broker.close()


def letters(backend, topic):
    found = []
    broker = backend.open()
    broker.read(topic, lambda record: found.append(read_letter(record)))
    broker.close()
    return found


def sink(backend, folder, **settings):
    return {
        "name": f"out-{backend.suffix}",
        "connector.class": "file",
        "topics": f"t-{backend.suffix}",
        "file": str(folder / "out.txt"),
        "value.converter": "json",
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.name": f"dead-{backend.suffix}",
        **{key.replace("_", "."): value for key, value in settings.items()},
    }


def test_large_values_many_headers_and_old_letters_are_kept_byte_for_byte(backend, tmp_path):
    connector = sink(backend, tmp_path)
    good = [(b"%d" % n, None, ()) for n in range(3)]
    records = [HOSTILE[0], good[0], *HOSTILE[1:3], good[1], HOSTILE[3], good[2]]
    fill(backend, connector["topics"], records)
    with WorkerProcess(tmp_path, backend.worker, [connector]) as worker:
        ledger = worker.wait_for_ledger(
            lambda ledger: (
                ledger[connector["name"]]["totals"]["received"] == 7
                and ledger[connector["name"]]["totals"]["in_flight"] == 0
            )
        )
        assert worker.stop() == 0
    totals = ledger[connector["name"]]["totals"]
    assert (totals["delivered"], totals["dead_lettered"]) == (3, 4)
    found = letters(backend, connector["errors.deadletterqueue.topic.name"])
    assert [(each.value, each.key, each.headers) for each in found] == HOSTILE
    assert [each.offset for each in found] == [0, 2, 3, 5]
    assert {each.cause.stage for each in found} == {"VALUE_CONVERTER"}
    assert (tmp_path / "out.txt").read_text() == "0\n1\n2\n"


def test_a_topic_of_bad_records_alone_is_passed_in_time(backend, tmp_path):
    connector = sink(backend, tmp_path, errors_tolerance_window="off")
    fill(backend, connector["topics"], [(b"no JSON", b"%d" % n, ()) for n in range(5_000)])
    started = time.monotonic()
    with WorkerProcess(tmp_path, backend.worker, [connector]) as worker:
        worker.wait_for_ledger(lambda ledger: ledger[connector["name"]]["totals"]["dead_lettered"] == 5_000)
        assert time.monotonic() - started < 60
        assert worker.stop() == 0
    found = letters(backend, connector["errors.deadletterqueue.topic.name"])
    assert [each.offset for each in found] == list(range(5_000))
    assert (tmp_path / "out.txt").read_text() == ""


def test_a_deleted_topic_of_dead_letters_is_created_again(backend, tmp_path):
    """What was in it is gone with it; letters that are not written yet are not lost."""
    if backend.name == "local":
        pytest.skip("the worker owns the local log")
    connector = sink(backend, tmp_path)
    topic, dead = connector["topics"], connector["errors.deadletterqueue.topic.name"]
    fill(backend, topic, [(b"no JSON", None, ()), (b"1", None, ())])
    with WorkerProcess(tmp_path, backend.worker, [connector]) as worker:
        worker.wait_for_ledger(lambda ledger: ledger[connector["name"]]["totals"]["dead_lettered"] == 1)
        broker = backend.open()
        broker.delete_topic(dead)
        broker.close()
        fill(backend, topic, [(b"no JSON either", None, ()), (b"2", None, ())])
        worker.wait_for_ledger(
            lambda ledger: (
                ledger[connector["name"]]["totals"]["received"] == 4
                and ledger[connector["name"]]["totals"]["in_flight"] == 0
            ),
            timeout=40,
        )
        assert worker.stop() == 0
    assert [each.value for each in letters(backend, dead)] == [b"no JSON either"]
