"""(k) The schema registry: its start, its rate of answers, and its rate of registrations.

The start is measured from the open local log, with 10,000 schemas in its topic, to the first answer over
HTTP. A separate process gets schemas by their ids over eight kept connections. Small lookups are measured
while two clients continuously have schemas of 1 MB checked. On Kafka, 50 clients register schemas at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from bench.figure import print_figure, say
from bench.stand import Stand
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.registry.http.server import RegistryConfig, RegistryServer
from tieline.registry.model.events import Content, SchemaStored, encode
from tieline.registry.schema_topic import TOPIC, SchemaTopic
from tieline_lab.process import run as run_command

_SCHEMAS = 10_000
_SECONDS = 5.0
_CLIENTS = 50

# A client prints its requests per second. Arguments: port, number of schemas, number of clients, seconds.
_CLIENT = """
import http.client, json, random, sys, threading, time
port, schemas, clients, seconds = *map(int, sys.argv[1:4]), float(sys.argv[4])
counts = [0] * clients

def get(connection, client):
    connection.request("GET", f"/schemas/ids/{random.randint(1, schemas)}")

def register(connection, client):
    schema = {"type": "record", "name": f"bench.R{client}_{counts[client]}", "fields": []}
    connection.request("POST", f"/subjects/s{client}-{counts[client]}/versions",
                       json.dumps({"schema": json.dumps(schema)}), {"Content-Type": "application/json"})

def run(client):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        SEND(connection, client)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200 and body, body
        counts[client] += 1

threads = [threading.Thread(target=run, args=[client]) for client in range(clients)]
start = time.monotonic()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(counts) / (time.monotonic() - start))
"""


def run(stand: Stand) -> None:
    """Measure a start and lookups on the local log, then registrations on Kafka."""
    _measure_local_log(stand)
    _measure_kafka(stand)


def _measure_kafka(stand: Stand) -> None:
    say(f"(k) {_CLIENTS} clients register schemas on Kafka")
    with stand.open_broker() as broker, _start_registry(SchemaTopic(broker)) as url:
        rate = _run_clients(url, "register", _CLIENTS, 2 * _SECONDS)
        print_figure("registry.register", rate, "1/s", ">= 50", clients=_CLIENTS)


def _run_clients(url: str, function: str, clients: int, seconds: float) -> float:
    """Run clients in a separate process that call ``get`` or ``register``; return their rate in 1/s."""
    program = _CLIENT.replace("SEND", function)
    arguments = [url.rpartition(":")[2], str(_SCHEMAS), str(clients), str(seconds)]
    return float(run_command([sys.executable, "-c", program, *arguments]))


@contextlib.contextmanager
def _start_registry(topic: SchemaTopic) -> Iterator[str]:
    server = RegistryServer(topic, RegistryConfig.parse({"listen": "127.0.0.1:0"}))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _measure_local_log(stand: Stand) -> None:
    say(f"(k) a registry with {_SCHEMAS} schemas")
    with contextlib.closing(LocalLog.open(stand.create_folder("registry"))) as log:
        _fill(log)
        start = time.monotonic()
        with _start_registry(SchemaTopic(log)) as url:
            with urllib.request.urlopen(f"{url}/subjects?limit=1", timeout=30) as response:
                assert json.load(response)
            print_figure("registry.start", time.monotonic() - start, "s", "<= 3", schemas=_SCHEMAS)
            rate = _run_clients(url, "get", 8, _SECONDS)
            print_figure("registry.get_by_id", rate, "1/s", ">= 2000", schemas=_SCHEMAS)
            _measure_lookups_beside_checks(url)


def _measure_lookups_beside_checks(url: str) -> None:
    """Measure 100 lookups while two other clients have schemas of the largest allowed size checked."""
    stop = threading.Event()

    def check_large_schemas(client: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            fields = [{"name": f"f{client}_{turn}_{n}", "type": "int"} for n in range(25_000)]
            schema = {"type": "record", "name": "L", "fields": fields}
            _post(f"{url}/compatibility/subjects/large/versions", schema)

    _post(f"{url}/subjects/large/versions", {"type": "record", "name": "L", "fields": []})
    threads = [threading.Thread(target=check_large_schemas, args=[client]) for client in range(2)]
    for thread in threads:
        thread.start()
    waits = []
    for number in range(1, 101):
        start = time.monotonic()
        assert _post(f"{url}/subjects/subject-{number}", _create_schema(number)) == 200
        waits.append(time.monotonic() - start)
    stop.set()
    for thread in threads:
        thread.join()
    print_figure("registry.small_beside_large", max(waits), "s", "<= 1", median=sorted(waits)[50])


def _post(url: str, schema: Any) -> int:
    data = json.dumps({"schema": json.dumps(schema)}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def _create_schema(number: int) -> Any:
    fields = [{"name": f"field{n}", "type": ["null", "double"], "default": None} for n in range(10)]
    return {"type": "record", "name": f"bench.Record{number}", "fields": fields}


def _fill(log: LocalLog) -> None:
    log.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
    with log.exclusive(TOPIC) as writer:
        records = []
        for number in range(1, _SCHEMAS + 1):
            content = Content("AVRO", json.dumps(_create_schema(number)))
            key, value = encode(SchemaStored(f"subject-{number}", 1, number, content))
            records.append(ProducerRecord(TOPIC, value, key, partition=0))
        writer.append(records)
