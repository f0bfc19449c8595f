"""A real Apache Kafka broker on this machine, from Maven's packages: a KRaft node, alone or of a cluster."""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from typing_extensions import Self

from tieline_lab.cache import FILES, cache_folder, once
from tieline_lab.process import Process, ProcessError, free_port, port_open

_POM = FILES / "kafka-pom.xml"
_VERSION = "4.3.1"


def why_not() -> str | None:
    """Why this machine cannot run the broker; none if it can."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    return f"Apache Kafka needs a JDK and Maven; not found: {', '.join(missing)}" if missing else None


def libs(say: Callable[[str], None] = print) -> Path:
    """The folder with the broker's jars; fetched by Maven the first time (about 10 s)."""

    def fetch(folder: Path) -> None:
        say(f"fetching Apache Kafka {_VERSION} with Maven into {folder}")
        command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
        command += [f"-Dkafka.version={_VERSION}", f"-DoutputDirectory={folder / 'libs'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProcessError(f"Maven could not fetch Apache Kafka:\n{(done.stdout + done.stderr)[-2000:]}")

    return once(cache_folder() / f"kafka-{_VERSION}", _VERSION + _POM.read_text(), fetch) / "libs"


def _new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


@dataclass(frozen=True)
class Quorum:
    """What the nodes of one cluster agree on; each of them is broker and controller."""

    controllers: Mapping[int, int] = field(default_factory=lambda: {1: free_port()})
    """The port of each node's controller, by the node's number. So many replicas has a topic by default."""
    min_insync_replicas: int = 1
    """How many of them must have a record before it counts as written."""
    heap: str = "512m"
    """The most that a node's JVM takes for its heap."""
    cluster_id: str = field(default_factory=_new_cluster_id)


class KafkaServer:
    """One broker that is a controller too; also as a context. Its data stay in ``work``.

    ``libs``: the jars; none: those of the cache, see :func:`libs`. ``quorum``: the cluster that it is the
    ``node`` of; none: it is one of its own. ``settings``: server properties in place of the lab's.
    """

    def __init__(
        self,
        work: Path,
        libs: Path | None = None,
        *,
        node: int = 1,
        quorum: Quorum | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.work = work
        self.port = free_port()
        self.node = node
        self._libs = libs
        self._quorum = quorum or Quorum({node: free_port()})
        self._own_settings = settings or {}
        self._process: Process | None = None

    @property
    def bootstrap(self) -> str:
        """Where clients find it: ``127.0.0.1:port``; the same after a restart."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        """The broker's process, made by the first ``start``."""
        if self._process is None:
            raise ProcessError("Apache Kafka was not started")
        return self._process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when clients can use it: about 6 s the first time, then 3 s.

        A node of a cluster is of use once most nodes run.
        """
        if self._process is None:
            self._process = self._prepare()
        self._process.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Stop it in good order: about 2 s; SIGKILL after ``timeout`` seconds."""
        if self._process is not None:
            self._process.stop(timeout)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it again with its data: about 5 s after a ``kill``."""
        self.stop()
        self.start()

    def _prepare(self) -> Process:
        self.work.mkdir(parents=True, exist_ok=True)
        properties = self.work / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        java = ["java", f"-Xmx{self._quorum.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += [f"-Dlog4j2.configurationFile={FILES / 'kafka-log4j2.yaml'}"]
        java += ["-cp", f"{self._libs or libs()}/*"]
        log = self.work / "kafka.log"
        if not (self.work / "data" / "meta.properties").exists():
            command = [*java, "kafka.tools.StorageTool", "format"]
            # With "=": an id may begin with a dash.
            command += [f"--cluster-id={self._quorum.cluster_id}", "-c", str(properties)]
            with Process("Kafka's StorageTool", command, log) as format_:
                if format_.wait(60.0):
                    raise ProcessError(f"Kafka's data folder could not be formatted{format_.last_lines()}")
        return Process("Apache Kafka", [*java, "kafka.Kafka", str(properties)], log, ready=self._answers)

    def _settings(self) -> dict[str, object]:
        controllers, in_sync = self._quorum.controllers, self._quorum.min_insync_replicas
        replicas = len(controllers)
        return {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p}" for n, p in controllers.items()),
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controllers[self.node]}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.work.absolute() / "data",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            # A group of one member need not wait for others.
            "group.initial.rebalance.delay.ms": 0,
            # After a kill the controller forgets the broker's old session sooner: 4.5 s in place of 12 s.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
            **self._own_settings,
        }

    def _answers(self) -> bool:
        if not port_open(self.port):
            return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return self.node in admin.list_topics(timeout=1.0).brokers
        except KafkaException:
            return False
