"""The real servers of the benchmarks, in a temporary folder on a real disk."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

from pymongo import MongoClient

from bench.process import cpu_seconds
from tieline.broker.kafka.broker import KafkaBroker
from tieline.testing.worker_process import WorkerProcess
from tieline_lab.cache import cache_folder
from tieline_lab.kafka import KafkaServer
from tieline_lab.mongo import MongoServer
from tieline_lab.process import Process, free_port, port_open

ROOT = Path(__file__).parent.parent
MongoKind = Literal["embedded", "null"]


class Stand:
    """Starts servers, which are stopped with ``stack``. All files are in ``work``."""

    def __init__(self, work: Path, stack: contextlib.ExitStack) -> None:
        self.work = work
        self._stack = stack

    def create_folder(self, name: str) -> Path:
        """Create a folder of its own."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))

    @cached_property
    def kafka(self) -> KafkaServer:
        """The Apache Kafka broker that all benchmarks share, started by the first one that needs it."""
        return self._stack.enter_context(KafkaServer(self.create_folder("kafka")))

    @property
    def kafka_settings(self) -> dict[str, str]:
        """The settings with which a client or worker finds Kafka."""
        return {"bootstrap.servers": self.kafka.bootstrap}

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic on Kafka."""
        with self.open_broker() as broker:
            broker.create_topic(name, partitions=partitions, replication=1)

    @contextlib.contextmanager
    def open_broker(self) -> Iterator[KafkaBroker]:
        """Connect to Kafka through tieline's broker interface."""
        broker = KafkaBroker(self.kafka.bootstrap, {}, offsets_topic="tieline-offsets")
        with contextlib.closing(broker):
            yield broker

    @contextlib.contextmanager
    def run_mongo(self, server: MongoKind) -> Iterator[str]:
        """Start a MongoDB-wire server; yield its URI.

        ``embedded`` stores and syncs, in an empty folder; ``null`` confirms each write and stores nothing.
        """
        if server == "embedded":
            with MongoServer(self.create_folder("mongo")) as embedded:
                yield embedded.uri
            return
        port = free_port()
        command = [sys.executable, "-m", "bench.null_mongo", str(port)]
        log = self.create_folder("null-mongo") / "log"
        with Process("the null MongoDB server", command, log, ready=lambda: port_open(port), cwd=ROOT):
            yield f"mongodb://127.0.0.1:{port}/"


@contextlib.contextmanager
def open_stand() -> Iterator[Stand]:
    """Create the stand of one run of benchmarks; stop its servers and remove its files at the end."""
    with contextlib.ExitStack() as stack:
        cache_folder().mkdir(parents=True, exist_ok=True)
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=cache_folder()))
        yield Stand(Path(work), stack)


def create_name(prefix: str) -> str:
    """Return a name that was not used before."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def count_documents(uri: str, collection: str) -> int:
    """Return the number of documents in a collection of the database ``bench``.

    The embedded server reads all of them for that, so do not call it while something is measured.
    """
    client: MongoClient[dict[str, object]]
    with MongoClient(uri) as client:
        return client["bench"][collection].estimated_document_count()


def wait_until_delivered(worker: WorkerProcess, name: str, records: int) -> tuple[float, int, float]:
    """Wait until so many records are delivered; return the time, their number and the worker's CPU time."""
    deadline = time.monotonic() + 300
    while True:
        delivered = int(worker.last_ledger.get(name, {}).get("delivered", 0))
        if delivered >= records:
            return time.monotonic(), delivered, cpu_seconds(worker.pid)
        if time.monotonic() > deadline or not worker.running:
            raise TimeoutError(f"{delivered} of {records} records were delivered within 300 s")
        time.sleep(0.002)
