"""Three real brokers come up as one cluster. What happens when some go: tests/chaos/test_three_brokers.py."""

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tieline_lab import kafka
from tieline_lab.kafka_cluster import KafkaCluster
from tieline_lab.process import port_open

pytestmark = pytest.mark.kafka


@pytest.mark.skipif(kafka.why_not() is not None, reason=str(kafka.why_not()))
def test_three_brokers_start_as_one_cluster_and_each_has_every_record(tmp_path):
    with KafkaCluster(tmp_path) as cluster:
        for server in cluster.nodes.values():
            alone = AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
            assert set(alone.list_topics(timeout=10).brokers) == {1, 2, 3}
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic("things", 1)])["things"].result(10)
        found = admin.describe_topics(TopicCollection(["things"]), request_timeout=10)["things"].result(10)
        (partition,) = found.partitions
        assert {node.id for node in partition.replicas} == {node.id for node in partition.isr} == {1, 2, 3}
    assert not any(port_open(server.port) for server in cluster.nodes.values())
