"""Three real brokers start as one cluster. Their outages: tests/chaos/test_three_brokers.py."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tieline_lab import kafka
from tieline_lab.kafka_cluster import KafkaCluster
from tieline_lab.process import port_open

pytestmark = pytest.mark.kafka


def describe_topic(admin, topic):
    """Describe a topic; retry while the broker that answers does not know the new topic yet."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return admin.describe_topics(TopicCollection([topic]), request_timeout=10)[topic].result(10)
        except KafkaException as error:
            unknown = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            if not unknown or time.monotonic() > deadline:
                raise


@pytest.mark.skipif(kafka.why_not() is not None, reason=str(kafka.why_not()))
def test_three_brokers_start_as_one_cluster_and_each_has_every_record(tmp_path):
    with KafkaCluster(tmp_path) as cluster:
        for server in cluster.nodes.values():
            node_admin = AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
            assert set(node_admin.list_topics(timeout=10).brokers) == {1, 2, 3}
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic("things", 1)])["things"].result(10)
        (partition,) = describe_topic(admin, "things").partitions
        assert {node.id for node in partition.replicas} == {node.id for node in partition.isr} == {1, 2, 3}
    assert not any(port_open(server.port) for server in cluster.nodes.values())
