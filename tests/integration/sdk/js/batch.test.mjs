// `client.batch` and `batchJSON`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "@upstash/qstash";
import { client, delivered, destination, until } from "./support.mjs";

const site = await destination();

test("every message arrives with the client's headers and its own", async () => {
  const withHeaders = new Client({ headers: { "test-header": "value", "test-header-2": "value-2" } });
  const answers = await withHeaders.batchJSON(
    [1, 2].map((n) => ({ url: `${site.url}/${n}x`, body: { n }, headers: { "Test-Header": `override-${n}` } })),
  );
  for (const { messageId } of answers) await delivered(messageId);
  for (const n of [1, 2]) {
    const [received] = site.to(`/${n}x`);
    assert.deepEqual(JSON.parse(received.body), { n });
    assert.equal(received.headers["content-type"], "application/json");
    assert.deepEqual([received.headers["test-header"], received.headers["test-header-2"]], [`override-${n}`, "value-2"]);
    assert.deepEqual(Object.keys(received.headers).filter((name) => name.includes("telemetry")), []);
  }
});

test("items go to queues, groups and addresses with options of their own", async () => {
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [{ url: `${site.url}/group`, name: "first" }] });
  const [grouped, queued, flowing] = await client.batch([
    { urlGroup: "group", body: "message", queueName: "queue" },
    { url: `${site.url}/queued`, queueName: "queue", method: "PUT" },
    { url: `${site.url}/flowing`, flowControl: { key: "key", ratePerSecond: 10 }, delay: "1h" },
  ]);
  assert.ok(Array.isArray(grouped));
  assert.equal(grouped[0].url, `${site.url}/group`);
  await delivered(grouped[0].messageId);
  await delivered(queued.messageId);
  assert.equal(site.to("/queued")[0].method, "PUT");
  assert.equal((await client.messages.get(queued.messageId)).queueName, "queue");
  assert.equal((await client.messages.get(grouped[0].messageId)).urlGroup, "group");
  const message = await client.messages.get(flowing.messageId);
  assert.deepEqual([message.flowControlKey, message.rate, message.period], ["key", 10, 1]);
  assert.equal(message.parallelism, undefined);
});

test("one item is an array too, and a faulty item does not keep the others back", async () => {
  const single = await client.batch([{ url: `${site.url}/single` }]);
  assert.equal(single.length, 1);
  const [faulty, fine] = await client.batch([{ url: "ftp://example.com" }, { url: `${site.url}/fine`, body: "x" }]);
  assert.equal(typeof faulty.error, "string");
  await delivered(fine.messageId);
  await until(() => site.to("/single").length === 1);
});
