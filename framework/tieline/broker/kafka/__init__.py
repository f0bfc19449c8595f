"""Apache Kafka, through confluent-kafka, which only the schema registry's client imports, too."""
