"""One broker interface, :mod:`tieline.broker.port`, with two backends: Apache Kafka and the local log."""
