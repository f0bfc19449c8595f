// Reads tieline's topics from JavaScript: prints each record as a line of JSON.
//
//     npm install
//     node read.mjs localhost:9092 http://localhost:8081 TOPIC COUNT

import confluent from "@kafkajs/confluent-schema-registry";
import kafkajs from "kafkajs";
import lz4 from "lz4js";

const { SchemaRegistry } = confluent;
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;

// tieline compresses with LZ4, for which kafkajs needs a library.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const [brokers, url, topic, count] = process.argv.slice(2);
const registry = new SchemaRegistry({ host: url });
const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: "read-elsewhere-javascript" });
let remaining = Number(count);

await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
const done = new Promise((resolve) => {
  consumer.run({
    autoCommit: false,
    eachMessage: async ({ message }) => {
      if (remaining <= 0) return;
      console.log(JSON.stringify(await registry.decode(message.value)));
      remaining -= 1;
      if (remaining === 0) resolve();
    },
  });
});
await done;
await consumer.disconnect();
