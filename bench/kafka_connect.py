"""(b) The same job beside Kafka Connect with MongoDB's own sink, JSON on both sides."""

from __future__ import annotations

import time
from functools import partial

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from bench.connect_worker import connect_worker
from bench.figure import figure, in_turns, median, ratio, say
from bench.kafka_to_mongo import worker_run
from bench.process import cpu_seconds, peak_mb
from bench.stand import Stand, documents, new_name
from bench.topics import json_topic
from tieline_lab import kafka

_OURS = {"value.converter": "json", "layout": "value"}
_LIMIT = 300.0


def run(stand: Stand) -> None:
    """300,000 records measure the JVM's warm-up too, 1,500,000 less so."""
    if reason := kafka.why_not():
        figure("connect", None, "ratio", why=reason)
        return
    for server, count, rounds in (("null", 300_000, 3), ("null", 1_500_000, 3), ("embedded", 60_000, 3)):
        topic = json_topic(stand, count)
        for tasks in (1, 2):
            _compare(stand, server, topic, count, tasks, rounds)


def _compare(stand: Stand, server: str, topic: str, count: int, tasks: int, rounds: int) -> None:
    say(f"(b) {count} JSON records to the {server} server, {tasks} worker processes beside {tasks} tasks")

    def place(measure: partial[dict[str, float]]) -> dict[str, float]:
        with stand.null_mongo() if server == "null" else stand.mongo() as uri:
            return measure(uri)

    found = in_turns(
        {
            "Kafka Connect": lambda: place(partial(_connect_run, stand, topic, count, tasks=tasks)),
            "tieline": lambda: place(partial(worker_run, stand, topic, count, sink=_OURS, workers=tasks)),
        },
        rounds,
    )
    mine, theirs = found["tieline"], found["Kafka Connect"]
    name = f"connect.{server}.{count}.{tasks}"
    facts = {"records": count, "runs": rounds, "tieline": mine, "Kafka Connect": theirs}
    figure(f"{name}.rate", ratio(mine, theirs, "rate"), "ratio", ">= 1", **facts)
    for key, goal in (("cpu_us", 1), ("peak_mb", 0.25), ("first_s", 0.2)):
        medians = {"tieline": median(mine, key), "Kafka Connect": median(theirs, key)}
        figure(f"{name}.{key}", ratio(mine, theirs, key), "ratio", f"<= {goal}", **medians)


def _connect_run(stand: Stand, topic: str, count: int, uri: str, tasks: int) -> dict[str, float]:
    """As ``worker_run``. Progress is read from the committed offsets: a count could slow the server."""
    name = new_name("connect")
    started = time.monotonic()
    admin = AdminClient({"bootstrap.servers": stand.kafka.bootstrap})
    with connect_worker(stand, name, "512m") as worker:
        worker.create_sink(name, topic, uri, tasks)
        end = time.monotonic() + _LIMIT
        first = 0
        while not first:
            first = documents(uri, "bench", name)
            time.sleep(0.02)
            _in_time(end, first, count)
        then, cpu = time.monotonic(), cpu_seconds(worker.pid)
        done = first
        while done < count:
            time.sleep(0.05)
            done = _committed(admin, f"connect-{name}")
            _in_time(end, done, count)
        wall = time.monotonic() - then
        figures = {
            "rate": (count - first) / wall,
            "cpu_us": (cpu_seconds(worker.pid) - cpu) / (count - first) * 1e6,
            "peak_mb": peak_mb(worker.pid),
            "first_s": then - started,
        }
    stored = documents(uri, "bench", name)
    if stored != count:
        raise RuntimeError(f"Kafka Connect stored {stored} documents of {count} records")
    return {key: round(value, 1) for key, value in figures.items()}


def _committed(admin: AdminClient, group: str) -> int:
    asked = [ConsumerGroupTopicPartitions(group)]
    futures = admin.list_consumer_group_offsets(asked)
    found = futures[group].result(10).topic_partitions
    return sum(max(partition.offset, 0) for partition in found)


def _in_time(end: float, done: int, count: int) -> None:
    if time.monotonic() > end:
        raise TimeoutError(f"Kafka Connect: {done} of {count} within {_LIMIT} s")
