"""A real Kafka Connect worker with MongoDB's sink, from Maven's packages; its REST on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figure import say
from bench.stand import Stand
from tieline_lab.cache import FILES, cache_folder, once
from tieline_lab.process import Process, ProcessError, free_port

_HERE = Path(__file__).parent
_SINK = "com.mongodb.kafka.connect.sink."


class ConnectWorker:
    """One running worker."""

    def __init__(self, port: int, pid: int) -> None:
        self.pid = pid
        self._url = f"http://127.0.0.1:{port}"

    def create_sink(self, name: str, topic: str, uri: str, tasks: int) -> None:
        """A MongoDB sink: unordered inserts, ``_id`` from topic, partition and offset."""
        settings = {
            "connector.class": "com.mongodb.kafka.connect.MongoSinkConnector",
            "tasks.max": str(tasks),
            "topics": topic,
            "connection.uri": uri,
            "database": "bench",
            "collection": name,
            "bulk.write.ordered": "false",
            "writemodel.strategy": f"{_SINK}writemodel.strategy.InsertOneDefaultStrategy",
            "document.id.strategy": f"{_SINK}processor.id.strategy.KafkaMetaDataStrategy",
            "consumer.override.max.poll.records": "2000",
            "consumer.override.auto.offset.reset": "earliest",
            "consumer.override.fetch.min.bytes": "100000",
            "consumer.override.fetch.max.wait.ms": "100",
        }
        asked_until = time.monotonic() + 60
        while True:
            try:
                self._ask("PUT", f"/connectors/{name}/config", settings)
                return
            except urllib.error.HTTPError:  # it has only just joined its own group
                if time.monotonic() > asked_until:
                    raise
                time.sleep(0.1)

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            self._url + path, data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def connect_worker(stand: Stand, group: str, heap: str | None) -> Iterator[ConnectWorker]:
    """A new worker with a cluster of its own; ``heap``: its -Xmx; none: the JVM's default."""
    work = stand.folder("connect")
    port = free_port()
    properties = {
        "bootstrap.servers": stand.kafka.bootstrap,
        "group.id": group,
        "listeners": f"http://127.0.0.1:{port}",
        "rest.advertised.host.name": "127.0.0.1",
        "plugin.path": _jars("connect-plugins-pom.xml"),
        "plugin.discovery": "hybrid_warn",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "config.storage.topic": f"{group}-configs",
        "offset.storage.topic": f"{group}-offsets",
        "offset.storage.partitions": "4",
        "status.storage.topic": f"{group}-status",
        "status.storage.partitions": "2",
        "config.storage.replication.factor": "1",
        "offset.storage.replication.factor": "1",
        "status.storage.replication.factor": "1",
        "offset.flush.interval.ms": "500",
        "connector.client.config.override.policy": "All",
    }
    file = work / "connect.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    command = ["java", *([f"-Xmx{heap}"] if heap else [])]
    command += [f"-Dlog4j2.configurationFile={FILES / 'kafka-log4j2.yaml'}"]
    command += ["-cp", f"{_jars('connect-pom.xml') / 'jars'}/*"]
    command += ["org.apache.kafka.connect.cli.ConnectDistributed", str(file)]
    with Process("Kafka Connect", command, work / "log", ready=lambda: _answers(port)) as process:
        yield ConnectWorker(port, process.pid)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/connectors", timeout=5):
            return True
    except OSError:
        return False


def _jars(pom: str) -> Path:
    """The folder that holds ``jars`` with what a pom names; fetched by Maven the first time."""

    def fetch(folder: Path) -> None:
        say(f"fetching what {pom} names, with Maven")
        command = ["mvn", "-q", "-B", "-f", str(_HERE / pom), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={folder / 'jars'}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ProcessError(f"Maven could not fetch {pom}:\n{(done.stdout + done.stderr)[-2000:]}")

    return once(cache_folder() / pom.removesuffix("-pom.xml"), (_HERE / pom).read_text(), fetch)
