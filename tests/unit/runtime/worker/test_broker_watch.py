"""What no consumer notices: an unavailable broker, and a missing topic."""

import pytest

from tieline.broker.local.log import LocalLog
from tieline.config.settings import Subscription
from tieline.runtime.task.connections import Connections
from tieline.runtime.worker.broker_watch import BrokerWatch


@pytest.fixture
def log(tmp_path):
    opened = LocalLog.open(tmp_path)
    yield opened
    opened.close()


def connections():
    return Connections(lambda: 0.0, lambda: 0)


def test_a_missing_topic_is_named_with_the_fix_until_it_exists(log):
    log.create_topic("here")
    named, matching = connections(), connections()
    sinks = {
        "a": (Subscription(("here", "gone"), None), named),
        "b": (Subscription((), r"plant\..*"), matching),
    }
    watch = BrokerWatch(log, "the local log", connections(), sinks, 1.0)
    watch.check()
    (outage,) = named.all()
    assert outage["to"] == "the topic gone"
    assert "correct topics in the sink's file" in outage["because"]
    (outage,) = matching.all()
    assert outage["to"] == r"topics.regex plant\..*"
    log.create_topic("gone")
    log.create_topic("plant.a")
    watch.check()
    assert named.all() == matching.all() == []


def test_a_broker_that_does_not_answer_is_shown_and_no_topic_counts_as_missing(tmp_path):
    log = LocalLog.open(tmp_path)
    log.close()
    broker, sink = connections(), connections()
    BrokerWatch(log, "the broker", broker, {"a": (Subscription(("t",), None), sink)}, 1.0).check()
    assert [outage["to"] for outage in broker.all()] == ["the broker"]
    assert sink.all() == []
