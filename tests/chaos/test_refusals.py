"""A broker rejects records because of its settings: a source waits, and continues when they have changed."""

import json
import os
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

pytestmark = pytest.mark.kafka
MESSAGES = 100


def set_topic(bootstrap, topic, name, value):
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    (future,) = admin.incremental_alter_configs([resource]).values()
    future.result(30)


@pytest.mark.parametrize(
    ("name", "narrow", "wide", "code"),
    [
        ("message.timestamp.after.max.ms", "60000", "3600000", "INVALID_TIMESTAMP"),
        ("max.message.bytes", "300", "1048588", "MSG_SIZE_TOO_LARGE"),
    ],
)
def test_a_source_waits_while_a_broker_rejects_its_records_and_each_arrives_once_afterwards(
    kafka_bootstrap, tmp_path, name, narrow, wide, code
):
    topic = f"refused-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": kafka_bootstrap, "value.converter": "json"}
    broker = open_broker(check_plan("test", {**settings, "data.dir": str(tmp_path / "data")}, []))
    broker.create_topic(topic, partitions=1, config={name: narrow})
    ahead = datetime.now(timezone.utc) + timedelta(minutes=20)
    with FakeRouter() as bus:
        source = {
            "name": "bus",
            "connector.class": "volttron_bus",
            "volttron.address": bus.address,
            "volttron.identity": "tieline",
            "platform.name": "lab",
            "topic": topic,
            "errors.retry.delay.max.ms": "500",
        }
        with WorkerProcess(tmp_path, settings, [source]) as worker:
            bus.wait_for_subscriber("tieline")
            for n in range(MESSAGES):
                time_stamp = (ahead + timedelta(milliseconds=n)).isoformat()
                body = [{"n": n, "filler": os.urandom(300).hex()}, {}]
                bus.publish("devices/campus/b/d/all", {"TimeStamp": time_stamp}, body)
            waiting = worker.wait_for_ledger(
                lambda ledger: (
                    ledger["bus"]["counters"].get("retries", 0) >= 3
                    and ledger["bus"]["counters"].get("spooled", 0) == MESSAGES
                )
            )
            assert (waiting["bus"]["state"], waiting["bus"]["delivered"]) == ("RUNNING", 0)
            alarms = [e for e in worker.events if e["event"].startswith("unavailable, waiting")]
            assert [alarm["level"] for alarm in alarms if code in alarm["event"]] == ["error"]
            set_topic(kafka_bootstrap, topic, name, wide)
            done = worker.wait_for_ledger(lambda ledger: ledger["bus"]["delivered"] == MESSAGES)
            assert (done["bus"]["state"], done["bus"]["in_flight"]) == ("RUNNING", 0)
            assert worker.stop() == 0
    found: list[int] = []
    broker.read(topic, lambda record: found.append(json.loads(record.value or b"")["points"]["n"]))
    broker.close()
    assert found == list(range(MESSAGES))
