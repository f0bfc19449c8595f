"""(i) Commands: from the sender's call to the result, compared with the bare RPC to the same real platform.

A bare ``set_point`` and a command take turns, so that a busy moment affects both. A command does more than
its RPC: it is stored, claimed and audited, its point is read before and after, and results are sent.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figure import print_figure, say
from bench.latency import p50_ms, p99_ms
from bench.stand import Stand, create_name
from tieline.api import Schema, SourceRecord
from tieline.api.commands import TopicClient
from tieline.cli.command_context import WorkerCommandContext
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.command.model.command import TERMINAL
from tieline_lab.volttron import VolttronPlatform, why_not

_PAIRS, _WARM_UP = 500, 20
_MANY = 500
_DEVICE, _POINT = "campus/building/device1", "ZoneTemperatureSetPoint"
_POLICY = f"{{version: 1, rules: [{{issuers: bench, points: {_DEVICE}/*, type: float, min: 0, max: 100}}]}}"
_UNSET = ("correlation_id", "not_before", "reason", "priority", "hold_ms", "tolerance", "signature")


def run(stand: Stand) -> None:
    """Measure commands on both backends."""
    if reason := why_not():
        print_figure("commands.local.overhead_p99", None, "ms", "<= 50", why=reason)
        return
    with VolttronPlatform(stand.create_folder("volttron")) as platform:
        for backend in ("local", "kafka"):
            broker_settings = stand.kafka_settings if backend == "kafka" else {}
            with _run_worker(stand.create_folder("commands"), platform, broker_settings) as client:
                _compare_with_rpc(f"commands.{backend}", platform, client)
                _measure_rate(f"commands.{backend}", client)


def _compare_with_rpc(name: str, platform: VolttronPlatform, client: _CommandClient) -> None:
    say(f"(i) {name}: {_PAIRS} bare calls and {_PAIRS} commands in turns")
    rpcs: list[float] = []
    commands: list[float] = []
    with platform.connect("observer") as observer:
        for number in range(_WARM_UP + _PAIRS):
            start = time.perf_counter()
            observer.call("platform.driver", "set_point", _DEVICE, _POINT, 60.0 + number % 7)
            rpc_end = time.perf_counter()
            client.send([70.0 + number % 7])
            client.await_results()
            rpcs.append(rpc_end - start)
            commands.append(time.perf_counter() - rpc_end)
    rpcs, commands = rpcs[_WARM_UP:], commands[_WARM_UP:]
    overheads = [command - rpc for command, rpc in zip(commands, rpcs, strict=True)]
    facts = {
        "bare_p50": p50_ms(rpcs),
        "bare_p99": p99_ms(rpcs),
        "p50": p50_ms(overheads),
        "most": max(overheads) * 1000,
    }
    rounded = {name: round(value, 1) for name, value in facts.items()}
    print_figure(f"{name}.overhead_p99", p99_ms(overheads), "ms", "<= 50", commands=_PAIRS, **rounded)
    p99 = round(p99_ms(commands), 2)
    print_figure(f"{name}.result_p50", p50_ms(commands), "ms", p99=p99, commands=_PAIRS)


def _measure_rate(name: str, client: _CommandClient) -> None:
    say(f"(i) {name}: {_MANY} commands at once")
    start = time.perf_counter()
    client.send([60.0 + number % 30 for number in range(_MANY)])
    client.await_results()
    print_figure(f"{name}.rate", _MANY / (time.perf_counter() - start), "commands/s", commands=_MANY)


class _CommandClient:
    """Sends commands and waits until each has succeeded."""

    def __init__(self, topics: TopicClient, topic: str, results: str) -> None:
        self._topics, self._topic = topics, topic
        self._results = topics.reader(results, since=0)
        self._schema = Schema.named("command.Command")
        self._waiting: set[str] = set()

    def send(self, values: list[float]) -> None:
        """Send a command for each value."""
        commands = map(_create_command, values)
        records = [SourceRecord(self._topic, c, _DEVICE, value_schema=self._schema) for c in commands]
        self._waiting.update(record.value["command_id"] for record in records)
        self._topics.send(records)

    def await_results(self) -> None:
        """Return when all commands have succeeded. Raises ``RuntimeError``."""
        deadline = time.monotonic() + 120
        while self._waiting:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self._waiting)} commands have no result after 120 s")
            for record in self._results.poll(1.0):
                if record.value["state"] in TERMINAL:
                    if record.value["state"] != "SUCCEEDED":
                        raise RuntimeError(f"a command did not succeed: {record.value}")
                    self._waiting.discard(record.value["command_id"])


@contextlib.contextmanager
def _run_worker(
    folder: Path, platform: VolttronPlatform, broker_settings: Mapping[str, str]
) -> Iterator[_CommandClient]:
    topic, results = create_name("commands"), create_name("results")
    (folder / "policy.yaml").write_text(_POLICY)
    keys = platform.keys("tieline.command")
    sink = {
        "name": topic,
        "connector.class": "command",
        "topics": topic,
        "results.topic": results,
        "volttron.address": platform.address,
        "volttron.identity": "tieline.command",
        "volttron.secretkey": keys["secretkey"],
        "volttron.serverkey": keys["serverkey"],
        "platform.name": "lab",
        "policy.file": str(folder / "policy.yaml"),
        "audit.file": str(folder / "audit.log"),
    }
    settings = {**broker_settings, "data.dir": str(folder / "data")}
    with contextlib.closing(open_broker(check_plan("bench", settings, []))) as broker:
        broker.create_topic(topic, partitions=1)
    with WorkerProcess(folder, settings, [sink]) as worker:
        worker.wait_for("partitions assigned", 60)
        with WorkerCommandContext().topics(folder / "worker.json") as topics:
            yield _CommandClient(topics, topic, results)


def _create_command(value: float) -> dict[str, Any]:
    now = time.time_ns() // 1000
    return {
        **dict.fromkeys(_UNSET),
        "command_id": str(uuid.uuid4()),
        "issuer": "bench",
        "issued_at": now,
        "expires_at": now + 120_000_000,
        "action": "SET",
        "writes": [{"point": f"{_DEVICE}/{_POINT}", "value": value}],
        "dry_run": False,
    }
