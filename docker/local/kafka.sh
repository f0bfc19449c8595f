#!/bin/bash
# Replaces the published apache/kafka image. It reads the same environment variables; its jars are in
# /opt/kafka/libs.
set -euo pipefail
properties=/tmp/server.properties
env | sed -n 's/^KAFKA_//p' | while IFS= read -r line; do
  name=${line%%=*} value=${line#*=}
  name=${name//_/.}
  echo "${name,,}=$value"
done >"$properties"
java=(java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=/local/log4j2.yaml -cp "/opt/kafka/libs/*")
test -e /var/lib/kafka/data/meta.properties \
  || "${java[@]}" kafka.tools.StorageTool format "--cluster-id=$CLUSTER_ID" -c "$properties"
exec "${java[@]}" kafka.Kafka "$properties"
