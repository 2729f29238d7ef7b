// Does as programs by @kafkajs/confluent-schema-registry do, and prints what it saw: `client.mjs URL VALUE-AS-HEX`.
import kafkajs from "@kafkajs/confluent-schema-registry";

const { SchemaRegistry, SchemaType, COMPATIBILITY } = kafkajs;
const [host, value] = process.argv.slice(2);
const { REGISTRY_USER: username, REGISTRY_PASSWORD: password } = process.env;
const registry = new SchemaRegistry({ host, ...(username ? { auth: { username, password } } : {}) });
const id = await registry.getLatestSchemaId("drivers-value");
const own = JSON.stringify({ type: "record", name: "Node", namespace: "drivers", fields: [{ name: "n", type: "long" }] });
const register = () =>
  registry.register(
    { type: SchemaType.AVRO, schema: own },
    { subject: "node-value", compatibility: COMPATIBILITY.FULL_TRANSITIVE },
  );
const first = await register();
const seen = {
  latest: id,
  decoded: await registry.decode(Buffer.from(value, "hex")),
  encoded: (await registry.encode(id, { name: "é, node", number: 7, share: null })).toString("hex"),
  registered: first.id,
  again: (await register()).id,
  looked_up: await registry.getRegistryId("node-value", 1),
};
console.log(JSON.stringify(seen));
