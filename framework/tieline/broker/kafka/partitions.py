"""Between Kafka's partitions and the interface's."""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import TopicPartition


def to_kafka(partitions: Collection[TopicPartition]) -> list[KafkaPartition]:
    """Return Kafka's partitions, without offsets."""
    return [KafkaPartition(*partition) for partition in partitions]


def from_kafka(partitions: Collection[KafkaPartition]) -> list[TopicPartition]:
    """Return the interface's partitions, sorted."""
    return sorted(TopicPartition(partition.topic, partition.partition) for partition in partitions)
