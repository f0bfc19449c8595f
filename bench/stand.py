"""Where the benchmarks run: real servers on this machine, in a folder on a real disk, gone afterwards."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from pymongo import MongoClient

from tieline.broker.kafka.broker import KafkaBroker
from tieline_lab.cache import cache_folder
from tieline_lab.kafka import KafkaServer
from tieline_lab.mongo import MongoServer
from tieline_lab.process import Process, free_port, port_open

ROOT = Path(__file__).parent.parent


class Stand:
    """Makes servers; they end with it."""

    def __init__(self, work: Path, ends: contextlib.ExitStack) -> None:
        self.work = work
        self._ends = ends
        self._kafka: KafkaServer | None = None

    def folder(self, name: str) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))

    @property
    def kafka(self) -> KafkaServer:
        """One Apache Kafka broker for all."""
        if self._kafka is None:
            self._kafka = self._ends.enter_context(KafkaServer(self.folder("kafka")))
        return self._kafka

    def create_topic(self, name: str, partitions: int) -> None:
        """A topic on Kafka."""
        with self.broker() as broker:
            broker.create_topic(name, partitions=partitions, replication=1)

    @contextlib.contextmanager
    def broker(self) -> Iterator[KafkaBroker]:
        """Kafka by tieline's own port."""
        broker = KafkaBroker(self.kafka.bootstrap, {}, offsets_topic="tieline-offsets")
        with contextlib.closing(broker):
            yield broker

    @contextlib.contextmanager
    def null_mongo(self) -> Iterator[str]:
        """The URI of a server that says ok at once."""
        port = free_port()
        command = [sys.executable, "-m", "bench.null_mongo", str(port)]
        log = self.folder("null-mongo") / "log"
        with Process("the server that keeps nothing", command, log, ready=lambda: port_open(port), cwd=ROOT):
            yield f"mongodb://127.0.0.1:{port}/"

    @contextlib.contextmanager
    def mongo(self) -> Iterator[str]:
        """The URI of an embedded server with an empty folder."""
        with MongoServer(self.folder("mongo")) as server:
            yield server.uri


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    """A place for one run of benchmarks."""
    with contextlib.ExitStack() as ends:
        cache_folder().mkdir(parents=True, exist_ok=True)
        work = ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=cache_folder()))
        yield Stand(Path(work), ends)


def new_name(prefix: str) -> str:
    """A name that was not used yet."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def documents(uri: str, database: str, collection: str) -> int:
    """How many there are. On an embedded server a count reads them all: not while it is measured."""
    client: MongoClient[dict[str, object]]
    with MongoClient(uri) as client:
        return client[database][collection].estimated_document_count()
