"""Which broker a worker's settings mean, and what opening it needs."""

import sys
from contextlib import closing
from dataclasses import replace

import pytest

from tieline.api import DataDirInUseError
from tieline.broker.backend import Backend, client_problems
from tieline.config.plan import check_plan


def test_bootstrap_servers_mean_kafka_and_the_local_log_is_the_default(tmp_path):
    local = check_plan("worker", {"data.dir": str(tmp_path)}, []).backend
    assert local.name == f"the local log in {tmp_path}"
    kafka = check_plan("worker", {"bootstrap.servers": "a:1,b:2", "ssl.ca.location": "~/ca"}, []).backend
    assert kafka.name == "Kafka at a:1,b:2"
    assert kafka.clients["ssl.ca.location"].endswith("/ca")
    assert "~" not in kafka.clients["ssl.ca.location"]


def test_a_local_log_is_missing_until_it_was_opened_and_kafka_never_is(tmp_path):
    backend = Backend(tmp_path)
    assert backend.is_missing
    assert not replace(backend, bootstrap_servers="127.0.0.1:1").is_missing
    backend.open().close()
    assert not backend.is_missing


def test_a_local_log_has_one_owner_and_any_number_of_guests(tmp_path):
    backend = Backend(tmp_path)
    with closing(backend.open()), closing(backend.open(owner=False)) as guest:
        assert guest.create_topic("t")
        with pytest.raises(DataDirInUseError):
            backend.open()


def test_kafka_can_be_opened_while_its_brokers_are_unavailable(tmp_path):
    with closing(Backend(tmp_path, "127.0.0.1:1").open()):
        assert "confluent_kafka" in sys.modules


def test_problems_of_client_settings_name_the_key_with_its_prefix():
    problems = client_problems({}, producer={"acks": "0", "no.such.thing": "1"})
    assert {problem.key for problem in problems} == {
        "producer.override.acks",
        "producer.override.no.such.thing",
    }
