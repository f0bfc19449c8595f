"""(k) The schema registry: 10,000 schemas in its topic; how soon it answers, and how many GETs a second.

The start is from the opened local log to the first answer over HTTP, all schemas read. The GETs are of
schemas by their ids, over eight kept connections, from a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

from bench.figure import figure, say
from bench.stand import Stand
from tieline.broker.local.log import LocalLog
from tieline.broker.port import ProducerRecord
from tieline.registry.records import Content, SchemaStored, encode
from tieline.registry.server import RegistryConfig, RegistryServer
from tieline.registry.topic import TOPIC, SchemaTopic

_SCHEMAS = 10_000
_SECONDS = 5.0

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


def run(stand: Stand) -> None:
    """One start, one load."""
    say(f"(k) a registry with {_SCHEMAS} schemas")
    log = LocalLog.open(stand.folder("registry"))
    try:
        _fill(log)
        began = time.monotonic()
        server = RegistryServer(SchemaTopic(log), RegistryConfig.parse({"listen": "127.0.0.1:0"}))
        server.start()
        try:
            with urllib.request.urlopen(f"{server.url}/subjects?limit=1", timeout=30) as answer:
                assert json.load(answer)
            figure("registry.start", time.monotonic() - began, "s", "<= 3", schemas=_SCHEMAS)
            figure("registry.get_by_id", _load(server.url) / _SECONDS, "1/s", ">= 2000", schemas=_SCHEMAS)
        finally:
            server.stop()
    finally:
        log.close()


def _fill(log: LocalLog) -> None:
    log.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
    with log.exclusive(TOPIC) as held:
        records = []
        for number in range(1, _SCHEMAS + 1):
            fields = [{"name": f"field{n}", "type": ["null", "double"], "default": None} for n in range(10)]
            text = json.dumps({"type": "record", "name": f"bench.Record{number}", "fields": fields})
            key, value = encode(SchemaStored(f"subject-{number}", 1, number, Content("AVRO", text)))
            records.append(ProducerRecord(TOPIC, value, key, partition=0))
        held.append(records)


def _load(url: str) -> int:
    port = url.rpartition(":")[2]
    asked = [sys.executable, "-c", _CLIENT, port, str(_SCHEMAS), str(_SECONDS)]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout)
