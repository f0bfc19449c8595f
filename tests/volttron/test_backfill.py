"""What a worker missed on a real platform comes from its real historian, once, with the ids of the bus."""

from __future__ import annotations

import collections
import contextlib
from urllib.parse import urlparse

import pytest

from tieline.api import BACKFILL_HEADER, ID_HEADER, header
from tieline.config.plan import check_plan
from tieline.converters.codec import AvroCodec
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.worker.factory import open_broker
from tieline.testing.proxy import TcpProxy
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.messages.message import ParseLimits, identity_headers, parse_message
from tieline_lab.volttron import VolttronPlatform, why_not

pytestmark = pytest.mark.volttron

MISSED = 9
"""How many readings of all devices the platform publishes at least while the worker does not listen."""


@pytest.fixture(scope="module")
def platform(request, tmp_path_factory):
    """A platform with a driver and a historian, which outlives each worker of this module."""
    if reason := why_not():
        pytest.skip(reason)
    with VolttronPlatform(tmp_path_factory.mktemp("backfill"), request.param) as platform:
        platform.start_historian()
        yield platform


@pytest.fixture
def proxy(platform):
    address = urlparse(platform.address)
    with TcpProxy(address.hostname, address.port) as proxy:
        yield proxy


@pytest.fixture
def worker(platform, proxy, tmp_path):
    keys = platform.keys("tieline")
    bus = {
        "name": "bus", "connector.class": "volttron_bus", "topic": "bus", "bus.prefixes": "devices",
        "volttron.address": f"tcp://127.0.0.1:{proxy.port}", "volttron.identity": "tieline",
        "platform.name": "lab", "volttron.secretkey": keys["secretkey"],
        "volttron.serverkey": keys["serverkey"], "backfill.historian": "platform.historian",
        "reconnect.backoff.max.ms": "200",
    }  # fmt: skip
    return WorkerProcess(tmp_path, {}, [bus])


class Observer:
    """Sees every message of the driver, and gives it the id that its record must have."""

    def __init__(self, bus):
        self._bus = bus
        self.ids: list[str] = []

    def see(self, count):
        for _ in range(count):
            message = self._bus.receive(10)
            assert message is not None, "the driver publishes nothing"
            self._note(message)

    def see_waiting(self):
        while message := self._bus.receive(0):
            self._note(message)

    def _note(self, message):
        envelope = [b"", b"VIP1", b"", b"", b"pubsub", b"publish"]
        frames = [*envelope, message.topic.encode(), message.raw]
        parsed = parse_message(frames, 0, ParseLimits())
        record_id = dict(identity_headers("lab", parsed))[ID_HEADER]
        assert record_id is not None
        self.ids.append(record_id.decode())


@pytest.fixture
def observer(platform):
    with platform.connect("observer") as bus:
        bus.subscribe("devices/campus")
        yield Observer(bus)


def topic(worker):
    """Each record's id and mark, in the topic of a worker that does not run."""
    found: list[tuple[str, bytes | None]] = []
    plan = check_plan("test", {"data.dir": str(worker.folder / "data")}, [])
    with contextlib.closing(open_broker(plan)) as broker:
        store = TopicSchemaStore(broker)

        def visit(record):
            codec = AvroCodec.of(store.schema(int.from_bytes(record.value[1:5], "big")))
            assert codec.decode(record.value, 5)["kind"] == "ALL"
            record_id = header(record, ID_HEADER)
            assert record_id is not None
            found.append((record_id.decode(), header(record, BACKFILL_HEADER)))

        broker.read("bus", visit)
    return found


def counters(ledger):
    return ledger["bus"]["counters"]


def filled(gaps, recovered):
    """Whether so many gaps are closed, and at least that many readings recovered."""

    def condition(ledger):
        found = counters(ledger)
        return (
            found.get("backfill.gaps.complete", 0) >= gaps and found.get("backfill.recovered", 0) >= recovered
        )

    return condition


def listen(worker, observer, devices):
    """Start a worker and let it receive some readings; return the index of the first that it must have."""
    worker.start()
    worker.wait_for("subscribed")
    observer.see_waiting()  # those may have come before the subscription
    first = len(observer.ids)
    observer.see(2 * devices)
    worker.wait_for_ledger(lambda ledger: ledger["bus"]["delivered"] >= 2 * devices)
    return first


def fill(worker, observer, devices):
    """Let the worker fill its gaps and stop; return its last counters and the records of the topic."""
    observer.see(2 * devices)
    ledger = worker.wait_for_ledger(filled(devices, MISSED - 2 * devices))
    observer.see_waiting()
    assert worker.stop() == 0
    return counters(ledger), topic(worker)


@pytest.mark.parametrize("platform", ["2", "10"], indirect=True)
def test_a_worker_that_was_stopped_has_every_reading_once(platform, worker, observer):
    devices = len(platform.settings.topics())
    first = listen(worker, observer, devices)
    worker.stop()
    observer.see_waiting()
    observer.see(MISSED)
    worker.start()
    found, records = fill(worker, observer, devices)
    counts = collections.Counter(record_id for record_id, _ in records)
    expected = observer.ids[first : -2 * devices]  # the last ones may be on their way
    assert {record_id: counts[record_id] for record_id in expected} == dict.fromkeys(expected, 1)
    assert set(counts.values()) == {1}
    marks = collections.Counter(mark for _, mark in records)
    assert set(marks) == {None, b"verified"}
    assert found["backfill.recovered"] == marks[b"verified"]
    assert not [name for name in found if "incomplete" in name or "invalid" in name]


@pytest.mark.parametrize("platform", ["2"], indirect=True)
def test_a_worker_that_was_killed_has_every_reading_and_repeats_only_the_last_before_the_kill(
    platform, worker, observer
):
    devices = len(platform.settings.topics())
    first = listen(worker, observer, devices)
    worker.kill()
    observer.see_waiting()
    killed = len(observer.ids)
    observer.see(MISSED)
    worker.start()
    _, records = fill(worker, observer, devices)
    counts = collections.Counter(record_id for record_id, _ in records)
    assert set(observer.ids[first : -2 * devices]) <= counts.keys()
    assert {counts[record_id] for record_id in observer.ids[killed : -2 * devices]} == {1}


@pytest.mark.parametrize("platform", ["2"], indirect=True)
def test_a_connection_that_was_cut_has_every_reading_once(platform, worker, proxy, observer):
    devices = len(platform.settings.topics())
    first = listen(worker, observer, devices)
    proxy.refuse()
    observer.see_waiting()
    observer.see(MISSED)
    proxy.accept()
    worker.wait_for("subscribed", count=2)
    _, records = fill(worker, observer, devices)
    counts = collections.Counter(record_id for record_id, _ in records)
    expected = observer.ids[first : -2 * devices]
    assert {record_id: counts[record_id] for record_id in expected} == dict.fromkeys(expected, 1)
    assert set(counts.values()) == {1}
