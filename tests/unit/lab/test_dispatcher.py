"""The commands that the lab sends by itself, and what it reads from the topics beside the worker."""

import collections

import pytest

from tieline.api import SourceRecord
from tieline.cli.command_context import WorkerCommandContext
from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.facts import PolicyContext, Reading
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.command.policy.file import parse
from tieline_lab.cache import FILES
from tieline_lab.dispatcher import COMMANDS, WAY_BACK, Dispatcher, Orders
from tieline_lab.driver import POINTS
from tieline_lab.exchange import Exchange
from tieline_lab.worker import create_topics

DEVICES = ["campus/building/device1", "campus/building/device2", "campus/building/device3"]
NOW = 1_767_225_600_000_000


@pytest.fixture
def topics(tmp_path):
    worker = tmp_path / "worker.yaml"
    worker.write_text(f"data.dir: {tmp_path / 'data'}\n")
    create_topics(worker)
    with WorkerCommandContext().topics(worker) as topics:
        yield topics


def create_orders(seconds, devices=DEVICES):
    orders = Orders(devices)
    return [order for second in range(seconds) for order in orders.create_next(NOW + second * 1_000_000)]


@pytest.mark.parametrize("devices", [DEVICES, DEVICES[:1], [f"d/{n}" for n in range(200)]])
def test_each_second_has_a_valid_command_and_six_seconds_have_each_other_kind(devices):
    orders = create_orders(60, devices)
    by_id = collections.Counter(order.command["command_id"] for order in orders)
    assert len(orders) == 120
    assert len(by_id) == 110
    assert [times for times in by_id.values() if times > 1] == [2] * 10
    states = collections.Counter(order.expected_state for order in orders)
    assert states == {"SUCCEEDED": 90, "EXPIRED": 10, "REJECTED": 20}
    assert sum(order.command["dry_run"] for order in orders) == 10
    assert sum(order.command["hold_ms"] is not None for order in orders) == 10


def test_the_labs_policy_allows_exactly_the_commands_that_are_expected_to_succeed():
    """It does so for every value that the point may have: the first one, or any that is sent."""
    policy = parse((FILES / "lab-policy.yaml").read_text().replace("$person", "ann"), "lab-policy.yaml")
    orders = [order for order in create_orders(420) if order.expected_state != "EXPIRED"]
    values = {point.name: [point.first] for point in POINTS}
    for order in orders:
        (write,) = order.command["writes"]
        if order.expected_state == "SUCCEEDED":
            values[write["point"].rpartition("/")[2]].append(write["value"])
    for order in orders:
        command = from_value(order.command, Defaults())
        (write,) = command.writes
        before = values[write.point.rpartition("/")[2]]
        for value in {*before} if isinstance(before[0], str) else (min(before), max(before)):
            refusal = policy.rejection(command, PolicyContext(NOW, readings={write.point: Reading(value)}))
            assert (refusal is None) is (order.expected_state == "SUCCEEDED"), (order, value, refusal)


def test_no_other_command_writes_the_point_of_a_hold():
    held = {order.command["writes"][0]["point"] for order in create_orders(60) if order.command["hold_ms"]}
    others = {
        order.command["writes"][0]["point"] for order in create_orders(60) if not order.command["hold_ms"]
    }
    assert held
    assert not held & others


def test_every_sent_command_is_read_from_the_topics(topics):
    dispatcher, exchange = Dispatcher(topics, DEVICES), Exchange(topics)
    topics.send([SourceRecord(COMMANDS, {"new_value": 1, "device_point": "d/p"}), SourceRecord(COMMANDS, 7)])
    dispatcher.send_due()
    dispatcher.send_due()  # not due yet
    exchange.follow()
    assert len(exchange.commands) == 2
    assert {command["command_id"] for command in exchange.commands} == set(dispatcher.expected_states)
    assert exchange.unended == set(dispatcher.expected_states)
    again = Exchange(topics)
    again.read_to_end()
    assert again.commands == exchange.commands
    (back,) = topics.reader(WAY_BACK, 0).poll(5.0)
    assert back.value["topic"] == "analysis/lab/demand"
    assert dispatcher.published.total() == 1
