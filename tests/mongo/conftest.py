"""Records as a volttron_bus source makes them, sinks that are let go, a database of the test's own."""

import contextlib
import socket
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from tieline.api import RetriableError, Schema, SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.sink import MongoSinkTask
from tieline_lab.mongo import why_not
from tieline_lab.process import Process, free_port

START = 1_767_225_600_000_000  # 2026-01-01, in microseconds
READING = Schema.named("volttron.DeviceReading")


def make_reading(number, *, device="campus/b1/ahu1", topic="volttron.devices", headers=None, **changes):
    """The ``number``-th reading of a device, a second after the one before it."""
    time = START + number * 1_000_000 + 123
    value = {
        "platform": "lab",
        "topic": f"devices/{device}/all",
        "device": device,
        "kind": "ALL",
        "sender": "platform.driver",
        "headers": {"TimeStamp": "2026-01-01T00:00:00.000123+00:00"},
        "time": time,
        "time_source": "TIMESTAMP",
        "received": time + 5_000,
        "points": {"temp": 20.5 + number, "fan": True, "mode": "auto", "count": number, "none": None},
        "metadata": {"temp": {"units": "C", "type": "float", "tz": "UTC"}},
        **changes,
    }
    default_headers = identity(value["topic"], time, digest_of=repr(value["points"]).encode())
    return SinkRecord(
        topic, 0, number, value, device, headers or default_headers, time // 1000, value_schema=READING
    )


@pytest.fixture
def reading():
    """Makes a reading."""
    return make_reading


@pytest.fixture
def database(mongo_uri):
    """A database of this test's own."""
    with MongoClient[dict[str, Any]](mongo_uri, tz_aware=True) as client:
        name = f"tieline_test_{uuid.uuid4().hex[:12]}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def start_sink():
    """Starts a sink: ``.task``, ``.context``."""
    tasks = []

    def start(uri, database, **settings):
        context = RecordingSinkContext()
        properties = {"collection": "readings", **{k.replace("__", "."): v for k, v in settings.items()}}
        config = MongoSinkConfig.parse({"connection.uri": uri, "database": database, **properties})
        task = MongoSinkTask(context, config)
        tasks.append(task)
        task.start()
        return SimpleNamespace(task=task, context=context, put=task.put, counters=context.counters)

    yield start
    for task in tasks:
        task.stop()


@pytest.fixture
def sink(start_sink, mongo_uri, database):
    """Starts a sink into the test's database, with these settings beside (``__`` for a dot)."""

    def start(**settings):
        return start_sink(mongo_uri, database.name, **settings)

    return start


@contextmanager
def started(work, *options):
    """A server with these options on the data in ``work``; gives its host and port."""
    port = free_port()

    def answers():
        with MongoClient[dict[str, Any]](
            f"mongodb://127.0.0.1:{port}", serverSelectionTimeoutMS=500
        ) as client:
            try:
                return client.admin.command("hello")["ok"]
            except PyMongoError:
                return False

    program = Path(sys.executable).with_name("secantusd-py")
    storage = ["--storage-path", str(work / "data"), "--sync-on-commit"]
    command: list[str | Path] = [program, "--host", "127.0.0.1", "--port", str(port), *storage, *options]
    with Process("SecantusDB", command, work / "another.log", ready=answers):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def another():
    """Starts a server: ``with another(work, *options) as address``."""
    if reason := why_not():
        pytest.skip(reason)
    return started


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, another):
    """The address of a server that fails on request."""
    with another(tmp_path_factory.mktemp("faulty"), "--enable-test-commands") as address:
        # A real server announces a step-down to its clients; this one has to be polled.
        yield f"mongodb://{address}/?serverMonitoringMode=poll&heartbeatFrequencyMS=500"


@pytest.fixture
def fail(faulty):
    """Makes the next ``times`` inserts fail so."""
    with MongoClient[dict[str, Any]](faulty) as client:

        def fail(times, **how):
            data = {"failCommands": ["insert"], **how}
            client.admin.command(
                {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data}
            )

        yield fail
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


class SlowLink:
    """A TCP link to a server that carries so many bytes a second each way, all connections together."""

    def __init__(self, address, bytes_per_second):
        host, port = address.split(":")
        self._server = host, int(port)
        self._pace = bytes_per_second
        self._free = {"up": 0.0, "down": 0.0}
        self._lock = threading.Lock()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.address = f"127.0.0.1:{self._sockets[0].getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._sockets[0].accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for source, sink, way in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._carry, args=(source, sink, way), daemon=True).start()

    def _carry(self, source, sink, way):
        with contextlib.suppress(OSError):
            while data := source.recv(2048):
                with self._lock:  # this piece's place on the link
                    now = time.monotonic()
                    arrives = max(now, self._free[way]) + len(data) / self._pace
                    self._free[way] = arrives
                time.sleep(max(0.0, arrives - now))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        for connection in self._sockets:
            connection.close()


@pytest.fixture
def slow_link(mongo_uri):
    """Makes a slow link to the server: its URI."""
    links = []

    def make(bytes_per_second):
        host, port = parse_uri(mongo_uri)["nodelist"][0]
        links.append(SlowLink(f"{host}:{port}", bytes_per_second))
        return f"mongodb://{links[-1].address}/?directConnection=true"

    yield make
    for link in links:
        link.close()


@pytest.fixture
def offer():
    """Offers a batch until it is written, as the runtime does; gives each error on the way."""

    def offer(sink, batch, wait=0.2):
        errors = []
        while batch:
            try:
                sink.put(batch)
                break
            except RetriableError as error:
                errors.append(error)
                batch = [r for r in batch if r.offset >= error.reached.get(r.consumed_from, 0)]
                time.sleep(min(wait, error.after or wait))
        return errors

    return offer
