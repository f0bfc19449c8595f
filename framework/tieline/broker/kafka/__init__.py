"""Apache Kafka, through confluent-kafka; which beside this only the schema registry's client imports."""
