// Connects as programs by @clickhouse/client do, reads the table `typed`, writes a row into it, and prints what it saw.
import { createClient } from "@clickhouse/client";

const [server, compress] = process.argv.slice(2);
const connect = (user) =>
  createClient({
    url: `http://${server}/tailrace`,
    username: user,
    password: process.env[`TOKEN_${user.toUpperCase()}`],
    compression: { request: compress === "true", response: compress === "true" },
    clickhouse_settings: { output_format_json_quote_64bit_integers: 1 },
  });

async function code(client, query) {
  try {
    await client.command({ query });
    return 0;
  } catch (error) {
    return Number(error.code);
  }
}

const ops = connect("ops");
const query = "SELECT * FROM typed WHERE id >= {least:UInt64} AND id < 2000 OR id > 9000 ORDER BY id";
const read = async (format, settings = {}) =>
  (await ops.query({ query, format, query_params: { least: 1 }, clickhouse_settings: settings })).json();
const text = { output_format_json_quote_decimals: 1 };
const seen = {
  database: (await (await ops.query({ query: "SELECT currentDatabase() AS name", format: "JSONEachRow" })).json())[0].name,
  rows: await read("JSONEachRow", text),
  document: (await read("JSON", text)).data,
  unknown_table: await code(ops, "SELECT * FROM nowhere"),
  refused: await code(ops, "DROP TABLE typed"),
  alive: (await ops.ping()).success,
};
const streamed = await ops.query({ query: "SELECT number FROM numbers(100000)", format: "JSONCompactEachRow" });
seen.streamed = 0;
for await (const rows of streamed.stream()) seen.streamed += rows.length;
await ops.close();

const services = connect("services");
await services.insert({
  table: "typed",
  columns: ["id", "name", "price", "at", "kind", "ok"],
  values: [{ id: 2002, name: "it's \\ node", price: "7.2500", at: "2024-05-01 12:30:00.125", kind: "a", ok: true }],
  format: "JSONEachRow",
});
await services.close();
console.log(JSON.stringify(seen));
