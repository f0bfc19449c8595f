"""A real Apache Kafka broker on this machine, from Maven's packages: one KRaft node."""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from collections.abc import Callable
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


class KafkaServer:
    """One broker that is its own controller; also as a context. Its data stay in ``work``.

    ``libs``: the jars; none: those of the cache, see :func:`libs`. ``node``: its number, for a cluster.
    """

    def __init__(self, work: Path, libs: Path | None = None, *, node: int = 1) -> None:
        self.work = work
        self.port = free_port()
        self._libs = libs
        self._node = node
        self._controller_port = free_port()
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
        """Start it and return when clients can use it: about 6 s the first time, then 3 s."""
        if self._process is None:
            self._process = self._prepare()
        self._process.start()

    def stop(self) -> None:
        """Stop it in good order: about 2 s."""
        if self._process is not None:
            self._process.stop(30.0)

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
        java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += [f"-Dlog4j2.configurationFile={FILES / 'kafka-log4j2.yaml'}"]
        java += ["-cp", f"{self._libs or libs()}/*"]
        log = self.work / "kafka.log"
        if not (self.work / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            command = [*java, "kafka.tools.StorageTool", "format"]
            command += [f"--cluster-id={cluster}", "-c", str(properties)]  # an id may begin with a dash
            with Process("Kafka's StorageTool", command, log) as format_:
                if format_.wait(60.0):
                    raise ProcessError(f"Kafka's data folder could not be formatted{format_.last_lines()}")
        return Process("Apache Kafka", [*java, "kafka.Kafka", str(properties)], log, ready=self._answers)

    def _settings(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": self._node,
            "controller.quorum.voters": f"{self._node}@127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.work.absolute() / "data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # A group of one member need not wait for others.
            "group.initial.rebalance.delay.ms": 0,
            # After a kill the controller forgets the broker's old session sooner: 4.5 s in place of 12 s.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
        }

    def _answers(self) -> bool:
        if not port_open(self.port):
            return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return bool(admin.list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False
