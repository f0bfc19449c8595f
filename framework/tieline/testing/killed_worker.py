"""What a kill -9 of a real worker costs: nothing, as tests of a source and of a sink."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tieline.api import ID_HEADER, SinkRecord
from tieline.broker.port import Broker
from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import check_plan
from tieline.plugins.discovery import SINKS, SOURCES
from tieline.plugins.unpackaged import write_entry_points
from tieline.testing.promises import NotTested
from tieline.testing.sink_calls import SinkCalls, Written, text_of
from tieline.testing.source_calls import Feed, SourceCalls
from tieline.testing.worker_process import WorkerProcess

_NAME = "contract"
_TOPIC = "contract"
_HOW_LONG = 30.0
"""Seconds that a worker may take to start and to handle a few records, on a busy machine."""


class KilledWorker:
    """``tieline run`` with one connector on a local log, in ``folder``; it is killed, and started again."""

    def __init__(
        self,
        folder: Path,
        group: str,
        connector: type,
        settings: Mapping[str, str],
        worker: Mapping[str, str],
    ) -> None:
        target = f"{connector.__module__}:{connector.__qualname__}"
        write_entry_points(folder / "plugin", "tieline-contract-kit", {group: {_NAME: target}})
        path = os.pathsep.join([str(folder / "plugin"), *(part or "." for part in sys.path)])
        worker_settings = {"progress.interval.ms": "100", "offset.flush.interval.ms": "100", **worker}
        self._data = folder / "data"
        self._process = WorkerProcess(
            folder,
            worker_settings,
            [
                {
                    "value.converter": "json",
                    "restart.enabled": "false",  # a failure is a finding, and is reported at once
                    **settings,
                    "name": _NAME,
                    "connector.class": _NAME,
                }
            ],
            environment={"PYTHONPATH": path},
        )

    def run_until(self, done: Callable[[], bool], what: str) -> None:
        """Start it, and kill it when ``done`` returns true."""
        with self._process as worker:
            self.wait(worker, done, what)
            worker.kill()

    @contextmanager
    def running(self) -> Iterator[WorkerProcess]:
        """Start it, and stop it in an orderly way."""
        with self._process as worker:
            yield worker
            code = worker.stop(_HOW_LONG)
            assert code == 0, f"the worker ended with exit status {code}:\n{_log(worker)}"

    def ready(self) -> bool:
        """Return whether the connector's task runs, as far as its ledger shows."""
        return bool(self.ledger().get("state") == "RUNNING")

    def ledger(self) -> Mapping[str, Any]:
        """Return the connector's part of the last ledger."""
        stats: Mapping[str, Any] = self._process.last_ledger.get(_NAME, {})
        return stats

    def records(self) -> list[tuple[str, bytes | None]]:
        """Return identity and value of every record in the log, in order; also beside the worker."""
        records: list[tuple[str, bytes | None]] = []
        if not (self._data / "log.db").exists():
            return records
        with closing(self._open(owner=False)) as broker:
            for topic in broker.topic_names():
                if not topic.startswith("_"):
                    broker.read(topic, lambda r: records.append((_id(r.headers, r.value), r.value)))
        return records

    def send(self, records: Sequence[SinkRecord]) -> None:
        """Write records into the log while no worker runs."""
        unit = Unit(
            [
                ProducerRecord(_TOPIC, json.dumps(r.value).encode(), None, r.headers, r.timestamp)
                for r in records
            ]
        )
        with closing(self._open(owner=True)) as broker:
            broker.create_topic(_TOPIC)
            producer = broker.producer(_NAME, {})
            producer.send(unit)
            until = time.monotonic() + _HOW_LONG
            while not (deliveries := producer.poll(0.1)):
                assert time.monotonic() < until, "the local log took no records"
            producer.close(1.0)
            assert not deliveries[0].failures

    def _open(self, *, owner: bool) -> Broker:
        plan = check_plan("worker", {"data.dir": str(self._data)}, [])
        return plan.backend.open(owner=owner)

    def wait(self, worker: WorkerProcess, done: Callable[[], bool], what: str) -> None:
        """Wait until ``done`` returns true; fail with the worker's log if it does not."""
        until = time.monotonic() + _HOW_LONG
        while not done():
            state = self.ledger().get("state")
            if not worker.running or state == "FAILED" or time.monotonic() >= until:
                raise AssertionError(
                    f"{what}; the task's state is {state}. The worker's log:\n{_log(worker)}"
                )
            time.sleep(0.02)


class _Arrival:
    """Feeds 20 records, to a running task if the source is not replayable; then: whether all are here."""

    def __init__(self, worker: KilledWorker, feed: Feed, total: int, replayable: bool, settle: float) -> None:
        self._worker = worker
        self._feed = feed
        self._total = total
        self._settle = settle
        self._fed = replayable
        if replayable:
            feed(20)

    def __call__(self) -> bool:
        if not self._fed and self._worker.ready():
            time.sleep(self._settle)  # its start may still be in progress
            self._feed(20)
            self._fed = True
        return self._fed and len({name for name, _ in self._worker.records()}) >= self._total


class SourceInAKilledWorker(SourceCalls):
    """A source in a real worker on the local log."""

    def test_a_killed_worker_loses_nothing(
        self,
        settings: Mapping[str, str],
        feed: Feed,
        worker_settings: Mapping[str, str] | None,
        tmp_path: Path,
        not_tested: NotTested,
    ) -> None:
        """Killed, started again and stopped: each record is in the log, under one id."""
        kind = self.connector
        all_worker_settings = _worker_settings(kind, worker_settings, not_tested)
        worker = KilledWorker(tmp_path / "killed worker", SOURCES, kind, settings, all_worker_settings)
        fed = 20
        has_arrived = _Arrival(worker, feed, fed, self._replayable, self.settle)
        worker.run_until(has_arrived, f"not all of the {fed} records came into the log")
        fed += 20
        has_arrived = _Arrival(worker, feed, fed, self._replayable, self.settle)
        with worker.running() as process:
            worker.wait(
                process, has_arrived, f"not all of the {fed} records came into the log after a kill -9"
            )
        records = worker.records()
        names = Counter(name for name, _ in records)
        assert len(names) >= fed, f"{fed - len(names)} of {fed} records are missing after a kill -9"
        assert len(names) == fed, (
            f"{len(names) - fed} records came again under another id or with another value after a kill -9: "
            "a record that is read again is equal to the first time"
        )
        if self._replayable:
            another = KilledWorker(tmp_path / "another worker", SOURCES, kind, settings, all_worker_settings)
            self._check_ids(records, self._read_again(another, fed))

    def _read_again(self, worker: KilledWorker, count: int) -> list[tuple[str, bytes | None]]:
        """Return what a worker without saved offsets reads; nothing, where records were acknowledged."""
        deadline: list[float] = []

        def done() -> bool:
            if not deadline and worker.ready():
                deadline.append(time.monotonic() + 3 * self.soon)
            return len(worker.records()) >= count or bool(deadline and time.monotonic() > deadline[0])

        worker.run_until(done, "a worker without saved offsets does not start")
        return worker.records()

    def _check_ids(
        self, first: list[tuple[str, bytes | None]], again: list[tuple[str, bytes | None]]
    ) -> None:
        """Check that a record has one id, in every process and whatever came later."""
        counted = Counter(value for _, value in set(first))
        ids = {value: name for name, value in first if counted[value] == 1}
        others = [value for name, value in again if ids.get(value, name) != name]
        assert not others, (
            f"{len(others)} of {len(again)} records came under another id (tieline.id) in another process: "
            "a store would keep both. Make the id of what distinguishes a record, not of hash() or a time"
        )


class SinkInAKilledWorker(SinkCalls):
    """A sink in a real worker on the local log."""

    def test_a_killed_worker_loses_nothing(
        self,
        settings: Mapping[str, str],
        written: Written,
        worker_settings: Mapping[str, str] | None,
        tmp_path: Path,
        not_tested: NotTested,
    ) -> None:
        """Killed, started again and stopped: each record is outside, once if it is idempotent."""
        kind = self.connector
        all_worker_settings = _worker_settings(kind, worker_settings, not_tested)
        connector_settings = {"max.poll.records": "10", **settings, "topics": _TOPIC}
        worker = KilledWorker(
            tmp_path / "killed worker", SINKS, kind, connector_settings, all_worker_settings
        )
        batches = [self._batch(0, first, 40) for first in (0, 40)]
        try:
            expected = Counter(text_of(json.loads(json.dumps(r.value))) for batch in batches for r in batch)
        except TypeError:
            not_tested("the values of this sink are not JSON")
        worker.send(batches[0])
        worker.run_until(lambda: bool(worker.ledger().get("delivered")), "no record was written")
        worker.send(batches[1])
        with worker.running():
            self._all_come(worker, written, expected)
        stored = Counter(map(text_of, written()))
        missing = expected - stored
        assert not missing, (
            f"{missing.total()} of {expected.total()} records are missing after a kill -9: "
            "offsets were committed before their records were safe"
        )
        if self.idempotent:
            surplus = stored - expected
            assert not surplus, f"{surplus.total()} records were written twice after a kill -9"

    def _all_come(self, worker: KilledWorker, written: Written, expected: Counter[str]) -> None:
        until = time.monotonic() + _HOW_LONG
        while expected - Counter(map(text_of, written())) or worker.ledger().get("lag") != 0:
            if time.monotonic() >= until or worker.ledger().get("state") == "FAILED":
                return  # what is missing is reported with its number
            time.sleep(0.05)


def _worker_settings(
    connector: type, settings: Mapping[str, str] | None, not_tested: NotTested
) -> Mapping[str, str]:
    if settings is None:
        not_tested("give the fixture 'worker_settings' ({} is enough)")
    if "<locals>" in connector.__qualname__:
        not_tested(f"{connector.__name__} is defined inside a function: a worker cannot import it")
    return settings


def _id(headers: Any, value: bytes | None) -> str:
    record_id = dict(headers).get(ID_HEADER)
    return repr(value) if record_id is None else record_id.decode("ascii", "replace")


def _log(worker: WorkerProcess) -> str:
    path = worker.folder / "worker.log"
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    return "\n".join(lines[-15:])
