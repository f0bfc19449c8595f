"""(k) The schema registry: how soon it answers, how much, and how many schemas are registered a second.

The start is from the opened local log, with 10,000 schemas in its topic, to the first answer over HTTP. The
GETs are of schemas by their ids, over eight kept connections, from a process of its own. Small requests are
lookups, while schemas of 1 MB are checked against each other without a pause. New schemas are registered by
50 clients at once, on Kafka.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from bench.figure import figure, say
from bench.stand import Stand
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.registry.http.server import RegistryConfig, RegistryServer
from tieline.registry.model.events import Content, SchemaStored, encode
from tieline.registry.schema_topic import TOPIC, SchemaTopic

_SCHEMAS = 10_000
_SECONDS = 5.0
_CLIENTS = 50

_CLIENT = """
import http.client, random, sys, threading, time
port, schemas, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
done = [0] * 8
def ask(which):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.request("GET", f"/schemas/ids/{random.randint(1, schemas)}")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        done[which] += 1
threads = [threading.Thread(target=ask, args=[which]) for which in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(done))
"""


_REGISTERING = """
import http.client, json, sys, threading, time
port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
done = [0] * clients
def register(which):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        schema = {"type": "record", "name": f"bench.R{which}_{done[which]}", "fields": []}
        connection.request("POST", f"/subjects/s{which}-{done[which]}/versions",
                           json.dumps({"schema": json.dumps(schema)}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        done[which] += 1
threads = [threading.Thread(target=register, args=[which]) for which in range(clients)]
began = time.monotonic()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(done) / (time.monotonic() - began))
"""


def run(stand: Stand) -> None:
    """One start, one load; then registrations on Kafka."""
    _on_the_local_log(stand)
    _on_kafka(stand)


def _on_kafka(stand: Stand) -> None:
    say(f"(k) {_CLIENTS} clients register schemas on Kafka")
    with stand.broker() as broker, _served(SchemaTopic(broker)) as url:
        command = [
            sys.executable,
            "-c",
            _REGISTERING,
            url.rpartition(":")[2],
            str(_CLIENTS),
            str(2 * _SECONDS),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        figure("registry.register", float(done), "1/s", ">= 50", clients=_CLIENTS)


@contextlib.contextmanager
def _served(topic: SchemaTopic) -> Iterator[str]:
    server = RegistryServer(topic, RegistryConfig.parse({"listen": "127.0.0.1:0"}))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _on_the_local_log(stand: Stand) -> None:
    say(f"(k) a registry with {_SCHEMAS} schemas")
    log = LocalLog.open(stand.folder("registry"))
    try:
        _fill(log)
        began = time.monotonic()
        with _served(SchemaTopic(log)) as url:
            with urllib.request.urlopen(f"{url}/subjects?limit=1", timeout=30) as answer:
                assert json.load(answer)
            figure("registry.start", time.monotonic() - began, "s", "<= 3", schemas=_SCHEMAS)
            figure("registry.get_by_id", _load(url) / _SECONDS, "1/s", ">= 2000", schemas=_SCHEMAS)
            _beside_large_ones(url)
    finally:
        log.close()


def _beside_large_ones(url: str) -> None:
    """100 lookups, while two other clients have schemas checked that are as large as they may be."""
    ended = threading.Event()

    def large(which: int) -> None:
        for turn in itertools.count():
            if ended.is_set():
                return
            fields = [{"name": f"f{which}_{turn}_{n}", "type": "int"} for n in range(25_000)]
            _post(
                f"{url}/compatibility/subjects/large/versions",
                {"type": "record", "name": "L", "fields": fields},
            )

    _post(f"{url}/subjects/large/versions", {"type": "record", "name": "L", "fields": []})
    threads = [threading.Thread(target=large, args=[which]) for which in range(2)]
    for thread in threads:
        thread.start()
    waits = []
    for number in range(1, 101):
        began = time.monotonic()
        assert _post(f"{url}/subjects/subject-{number}", _record(number)) == 200
        waits.append(time.monotonic() - began)
    ended.set()
    for thread in threads:
        thread.join()
    figure("registry.small_beside_large", max(waits), "s", "<= 1", median=sorted(waits)[50])


def _post(url: str, schema: Any) -> int:
    data = json.dumps({"schema": json.dumps(schema)}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _record(number: int) -> Any:
    fields = [{"name": f"field{n}", "type": ["null", "double"], "default": None} for n in range(10)]
    return {"type": "record", "name": f"bench.Record{number}", "fields": fields}


def _fill(log: LocalLog) -> None:
    log.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
    with log.exclusive(TOPIC) as held:
        records = []
        for number in range(1, _SCHEMAS + 1):
            content = Content("AVRO", json.dumps(_record(number)))
            key, value = encode(SchemaStored(f"subject-{number}", 1, number, content))
            records.append(ProducerRecord(TOPIC, value, key, partition=0))
        held.append(records)


def _load(url: str) -> int:
    port = url.rpartition(":")[2]
    asked = [sys.executable, "-c", _CLIENT, port, str(_SCHEMAS), str(_SECONDS)]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout)
