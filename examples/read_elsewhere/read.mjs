// Reads tieline's topics from JavaScript: prints each record as a line of JSON.
//
//     npm install
//     node read.mjs localhost:9092 http://localhost:8081 TOPIC COUNT

import confluent from "@kafkajs/confluent-schema-registry";
import kafkajs from "kafkajs";
import lz4 from "lz4js";

const { SchemaRegistry } = confluent;
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;

// kafkajs leaves LZ4, in which tieline writes, to a library.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const [brokers, url, topic, count] = process.argv.slice(2);
const registry = new SchemaRegistry({ host: url });
const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: "read-elsewhere-javascript" });
let left = Number(count);

await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
const done = new Promise((resolve) => {
  consumer.run({
    autoCommit: false,
    eachMessage: async ({ message }) => {
      if (left <= 0) return;
      console.log(JSON.stringify(await registry.decode(message.value)));
      left -= 1;
      if (left === 0) resolve();
    },
  });
});
await done;
await consumer.disconnect();
