"""(i) Commands: from the sender's call to the result, beside the bare RPC to the same real platform.

A bare ``set_point`` and a command take turns, so that a busy moment falls on both. A command is more than
its RPC: it is stored, claimed, audited, its point read before and after the write, and each of that told.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figure import figure, say
from bench.latency import p50_ms, p99_ms
from bench.stand import Stand, new_name
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
_UNSAID = ("correlation_id", "not_before", "reason", "priority", "hold_ms", "tolerance", "signature")


def run(stand: Stand) -> None:
    """On both homes of the log."""
    if reason := why_not():
        figure("commands.local.overhead_p99", None, "ms", "<= 50", why=reason)
        return
    with VolttronPlatform(stand.folder("volttron")) as platform:
        for home in ("local", "kafka"):
            where = {"bootstrap.servers": stand.kafka.bootstrap} if home == "kafka" else {}
            with _line(stand.folder("commands"), platform, where) as line:
                _beside_the_rpc(f"commands.{home}", platform, line)
                _many(f"commands.{home}", line)


def _beside_the_rpc(name: str, platform: VolttronPlatform, line: _Line) -> None:
    say(f"(i) {name}: {_PAIRS} bare calls and {_PAIRS} commands in turns")
    bare: list[float] = []
    whole: list[float] = []
    with platform.connect("observer") as observer:
        for number in range(_WARM_UP + _PAIRS):
            begun = time.perf_counter()
            observer.call("platform.driver", "set_point", _DEVICE, _POINT, 60.0 + number % 7)
            called = time.perf_counter()
            line.send([70.0 + number % 7])
            line.wait()
            bare.append(called - begun)
            whole.append(time.perf_counter() - called)
    bare, whole = bare[_WARM_UP:], whole[_WARM_UP:]
    over = [command - rpc for command, rpc in zip(whole, bare, strict=True)]
    facts = {
        "bare_p50": p50_ms(bare),
        "bare_p99": p99_ms(bare),
        "p50": p50_ms(over),
        "most": max(over) * 1000,
    }
    rounded = {name: round(value, 1) for name, value in facts.items()}
    figure(f"{name}.overhead_p99", p99_ms(over), "ms", "<= 50", commands=_PAIRS, **rounded)
    figure(f"{name}.result_p50", p50_ms(whole), "ms", p99=round(p99_ms(whole), 2), commands=_PAIRS)


def _many(name: str, line: _Line) -> None:
    say(f"(i) {name}: {_MANY} commands at once")
    begun = time.perf_counter()
    line.send([60.0 + number % 30 for number in range(_MANY)])
    line.wait()
    figure(f"{name}.rate", _MANY / (time.perf_counter() - begun), "commands/s", commands=_MANY)


class _Line:
    """Sends commands and waits until each has succeeded."""

    def __init__(self, topics: TopicClient, topic: str, results: str) -> None:
        self._topics, self._topic = topics, topic
        self._results = topics.reader(results, since=0)
        self._schema = Schema.named("command.Command")
        self._waiting: set[str] = set()

    def send(self, values: list[float]) -> None:
        """One command a value."""
        records = [SourceRecord(self._topic, _command(v), _DEVICE, value_schema=self._schema) for v in values]
        self._waiting.update(record.value["command_id"] for record in records)
        self._topics.send(records)

    def wait(self) -> None:
        """Raises ``RuntimeError`` where one came to another end."""
        deadline = time.monotonic() + 120
        while self._waiting:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self._waiting)} commands have no result")
            for record in self._results.poll(1.0):
                if record.value["state"] in TERMINAL:
                    if record.value["state"] != "SUCCEEDED":
                        raise RuntimeError(f"a command did not succeed: {record.value}")
                    self._waiting.discard(record.value["command_id"])


@contextlib.contextmanager
def _line(folder: Path, platform: VolttronPlatform, where: Mapping[str, str]) -> Iterator[_Line]:
    topic, results = new_name("commands"), new_name("results")
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
    plan = check_plan("bench", {**where, "data.dir": str(folder / "data")}, [])
    with contextlib.closing(open_broker(plan)) as broker:
        broker.create_topic(topic, partitions=1)
    settings = {**where, "data.dir": str(folder / "data")}
    with WorkerProcess(folder, settings, [sink]) as worker:
        worker.wait_for("partitions assigned", 60)
        with WorkerCommandContext().topics(folder / "worker.json") as topics:
            yield _Line(topics, topic, results)


def _command(value: float) -> dict[str, Any]:
    now = time.time_ns() // 1000
    return {
        **dict.fromkeys(_UNSAID),
        "command_id": str(uuid.uuid4()),
        "issuer": "bench",
        "issued_at": now,
        "expires_at": now + 120_000_000,
        "action": "SET",
        "writes": [{"point": f"{_DEVICE}/{_POINT}", "value": value}],
        "dry_run": False,
    }
