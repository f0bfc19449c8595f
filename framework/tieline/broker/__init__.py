"""One port, two homes: Apache Kafka and the local log. See :mod:`tieline.broker.port`."""
