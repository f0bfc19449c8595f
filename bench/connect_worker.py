"""A real Kafka Connect worker with MongoDB's sink, from Maven's packages. Its REST listens on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.figure import say
from bench.stand import Stand
from tieline_lab.cache import FILES, cache_folder, create_once
from tieline_lab.maven import fetch_jars
from tieline_lab.process import Process, free_port

_HERE = Path(__file__).parent
_SINK = "com.mongodb.kafka.connect.sink."
_HEAP = "512m"


class ConnectWorker:
    """One running worker."""

    def __init__(self, port: int, pid: int) -> None:
        self.pid = pid
        self._url = f"http://127.0.0.1:{port}"

    def create_sink(self, name: str, topic: str, uri: str, tasks: int) -> None:
        """Create a MongoDB sink with unordered inserts and an ``_id`` of topic, partition and offset."""
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
        deadline = time.monotonic() + 60
        while True:
            try:
                self._put(f"/connectors/{name}/config", settings)
                return
            except urllib.error.HTTPError:  # the worker has not joined its group yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _put(self, path: str, body: Mapping[str, str]) -> None:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"content-type": "application/json"}, method="PUT"
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()


@contextlib.contextmanager
def start_connect_worker(stand: Stand, group: str) -> Iterator[ConnectWorker]:
    """Start the only worker of a new cluster."""
    work = stand.create_folder("connect")
    port = free_port()
    properties = {
        **stand.kafka_settings,
        "group.id": group,
        "listeners": f"http://127.0.0.1:{port}",
        "rest.advertised.host.name": "127.0.0.1",
        "plugin.path": _fetch_jars("connect-plugins-pom.xml"),
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
    command = ["java", f"-Xmx{_HEAP}", f"-Dlog4j2.configurationFile={FILES / 'kafka-log4j2.yaml'}"]
    command += ["-cp", f"{_fetch_jars('connect-pom.xml') / 'jars'}/*"]
    command += ["org.apache.kafka.connect.cli.ConnectDistributed", str(file)]
    with Process("Kafka Connect", command, work / "log", ready=lambda: _answers(port)) as process:
        yield ConnectWorker(port, process.pid)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/connectors", timeout=5):
            return True
    except OSError:
        return False


def _fetch_jars(pom: str) -> Path:
    """Return a folder whose folder ``jars`` has the jars of a POM; the first call fetches them."""

    def fetch(folder: Path) -> None:
        say(f"fetching the jars of {pom} with Maven")
        fetch_jars(_HERE / pom, folder / "jars")

    return create_once(cache_folder() / pom.removesuffix("-pom.xml"), (_HERE / pom).read_text(), fetch)
