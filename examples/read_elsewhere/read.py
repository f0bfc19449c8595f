"""Reads tieline's topics with Confluent's own client: prints each record as a line of JSON.

pip install 'confluent-kafka[avro,schemaregistry]'
python read.py localhost:9092 http://localhost:8081 TOPIC COUNT
"""

import json
import sys

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry, topic, count = sys.argv[1:5]
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer(
    {
        "bootstrap.servers": brokers,
        "group.id": "read-elsewhere-python",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([topic])
remaining = int(count)
while remaining:
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        sys.exit(str(message.error()))
    reading = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
    print(json.dumps(reading, default=str), flush=True)
    remaining -= 1
consumer.close()
