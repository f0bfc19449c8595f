"""A real Apache Kafka broker on this machine, from Maven's packages: a KRaft node, alone or in a cluster."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tieline_lab.cache import FILES, cache_folder, create_once
from tieline_lab.maven import fetch_jars
from tieline_lab.process import Process, ProcessError, Server, free_port, port_open

_POM = FILES / "kafka-pom.xml"
_VERSION = "4.3.1"


def why_not() -> str | None:
    """Return why this machine cannot run the broker, or ``None`` if it can."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    return f"Apache Kafka needs a JDK and Maven: not found: {', '.join(missing)}" if missing else None


def fetch_libs(say: Callable[[str], None] = print) -> Path:
    """Return the folder with the broker's jars; the first call fetches them with Maven in about 10 s."""

    def fetch(folder: Path) -> None:
        say(f"fetching Apache Kafka {_VERSION} with Maven into {folder}")
        fetch_jars(_POM, folder / "libs", f"-Dkafka.version={_VERSION}")

    create_once(_libs_folder().parent, _VERSION + _POM.read_text(), fetch)
    return _libs_folder()


def _libs_folder() -> Path:
    return cache_folder() / f"kafka-{_VERSION}" / "libs"


def _new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


@dataclass(frozen=True)
class Quorum:
    """Settings that all nodes of a cluster share; each node is a broker and a controller."""

    controllers: Mapping[int, int] = field(default_factory=lambda: {1: free_port()})
    """The port of each node's controller, by the node's number. By default, every node has each partition."""
    min_insync_replicas: int = 1
    """How many nodes must have a record before it counts as written."""
    heap: str = "512m"
    """The largest heap of a node's JVM."""
    cluster_id: str = field(default_factory=_new_cluster_id)


class KafkaServer(Server):
    """One broker that is also a controller. Its data stay in ``work``.

    ``libs`` is the folder with the jars; ``None`` means the one of ``fetch_libs``. ``node`` is its number in
    the cluster ``quorum``; ``None`` means a cluster with this node only. ``settings`` replace server
    properties of the lab.
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
        self._settings = settings or {}
        self._properties = work / "server.properties"
        self.process = Process(
            "Apache Kafka",
            [*self._java(), "kafka.Kafka", str(self._properties)],
            work / "kafka.log",
            ready=self._answers,
        )

    @property
    def bootstrap(self) -> str:
        """Its address for clients, ``127.0.0.1:port``; the same after a restart."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when clients can use it: about 6 s the first time, then 3 s.

        A node of a cluster is ready as soon as most nodes run.
        """
        if self._libs is None:
            fetch_libs()
        self.work.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}={value}\n" for key, value in self._server_properties().items()]
        self._properties.write_text("".join(lines))
        if not (self.work / "data" / "meta.properties").exists():
            self._format_data()
        self.process.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Stop it in good order, in about 2 s; send SIGKILL after ``timeout`` seconds."""
        self.process.stop(timeout)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it again with its data: about 5 s after a ``kill``."""
        self.stop()
        self.start()

    def _java(self) -> list[str]:
        java = ["java", f"-Xmx{self._quorum.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += [f"-Dlog4j2.configurationFile={FILES / 'kafka-log4j2.yaml'}"]
        return [*java, "-cp", f"{self._libs or _libs_folder()}/*"]

    def _format_data(self) -> None:
        # With "=": an id may begin with a dash.
        options = [f"--cluster-id={self._quorum.cluster_id}", "-c", str(self._properties)]
        command = [*self._java(), "kafka.tools.StorageTool", "format", *options]
        with Process("Kafka's StorageTool", command, self.process.log) as formatting:
            if formatting.wait(60.0):
                raise ProcessError(f"Kafka's data folder could not be formatted{formatting.last_lines()}")

    def _server_properties(self) -> dict[str, object]:
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
            # A group of one member does not have to wait for others.
            "group.initial.rebalance.delay.ms": 0,
            # After a kill the broker's old session expires at the controller after 4.5 s instead of 12 s.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
            **self._settings,
        }

    def _answers(self) -> bool:
        if not port_open(self.port):
            return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return self.node in admin.list_topics(timeout=1.0).brokers
        except KafkaException:
            return False
