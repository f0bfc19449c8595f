"""(b) tieline and Kafka Connect with MongoDB's sink at the same task, both with JSON."""

from __future__ import annotations

import time

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from bench.connect_worker import start_connect_worker
from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.kafka_to_mongo import COUNT, run_workers
from bench.process import cpu_seconds, peak_mb
from bench.stand import MongoKind, Stand, count_documents, create_name
from bench.topics import create_json_topic
from tieline_lab import kafka

_SINK = {"value.converter": "json", "layout": "value"}
_ROUNDS = 3
_TIMEOUT = 300.0
_SERVERS: tuple[tuple[MongoKind, int], ...] = (("null", COUNT), ("null", 5 * COUNT), ("embedded", COUNT // 5))
"""The servers, each with a number of records. The JVM's warm-up weighs less with more records."""


def run(stand: Stand) -> None:
    """Compare them on both servers, with one task and with two."""
    if reason := kafka.why_not():
        print_figure("connect", None, "ratio", why=reason)
        return
    for server, count in _SERVERS:
        topic = create_json_topic(stand, count)
        for tasks in (1, 2):
            _compare(stand, server, topic, count, tasks)


def _compare(stand: Stand, server: MongoKind, topic: str, count: int, tasks: int) -> None:
    say(f"(b) {count} JSON records to the {server} server, {tasks} worker processes and {tasks} tasks")

    def measure_connect() -> dict[str, float]:
        with stand.run_mongo(server) as uri:
            return _run_connect(stand, topic, count, uri, tasks)

    def measure_tieline() -> dict[str, float]:
        with stand.run_mongo(server) as uri:
            return run_workers(stand, topic, count, uri, _SINK, tasks)

    results = run_in_turns({"Kafka Connect": measure_connect, "tieline": measure_tieline}, _ROUNDS)
    tieline, connect = results["tieline"], results["Kafka Connect"]
    name = f"connect.{server}.{count}.{tasks}"
    facts = {"records": count, "runs": _ROUNDS, "tieline": tieline, "Kafka Connect": connect}
    print_figure(f"{name}.rate", ratio(tieline, connect, "rate"), "ratio", ">= 1", **facts)
    for key, goal in (("cpu_us", 1), ("peak_mb", 0.25), ("first_s", 0.2)):
        medians = {"tieline": median(tieline, key), "Kafka Connect": median(connect, key)}
        print_figure(f"{name}.{key}", ratio(tieline, connect, key), "ratio", f"<= {goal}", **medians)


def _run_connect(stand: Stand, topic: str, count: int, uri: str, tasks: int) -> dict[str, float]:
    """Measure Kafka Connect as ``run_workers`` measures tieline.

    The progress is that of the committed offsets, since counting documents could slow the server down.
    """
    name = create_name("connect")
    started = time.monotonic()
    admin = AdminClient({**stand.kafka_settings})
    with start_connect_worker(stand, name) as worker:
        worker.create_sink(name, topic, uri, tasks)
        deadline = time.monotonic() + _TIMEOUT
        first = 0
        while not first:
            first = count_documents(uri, name)
            time.sleep(0.02)
            _check_deadline(deadline, first, count)
        first_moment, first_cpu = time.monotonic(), cpu_seconds(worker.pid)
        delivered = first
        while delivered < count:
            time.sleep(0.05)
            delivered = _count_committed(admin, f"connect-{name}")
            _check_deadline(deadline, delivered, count)
        seconds = time.monotonic() - first_moment
        figures = {
            "rate": (count - first) / seconds,
            "cpu_us": (cpu_seconds(worker.pid) - first_cpu) / (count - first) * 1e6,
            "peak_mb": peak_mb(worker.pid),
            "first_s": first_moment - started,
        }
    stored = count_documents(uri, name)
    if stored != count:
        raise RuntimeError(f"Kafka Connect stored {stored} documents of {count} records")
    return {key: round(value, 1) for key, value in figures.items()}


def _count_committed(admin: AdminClient, group: str) -> int:
    futures = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    return sum(max(partition.offset, 0) for partition in futures[group].result(10).topic_partitions)


def _check_deadline(deadline: float, delivered: int, count: int) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"Kafka Connect delivered {delivered} of {count} records within {_TIMEOUT:g} s")
