// `client.publish` and `client.messages`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, QstashError } from "@upstash/qstash";
import { client, delivered, destination, refusal, until } from "./support.mjs";

const site = await destination();

test("JSON arrives with its headers, and not the client's telemetry", async () => {
  const { messageId } = await client.publishJSON({
    url: `${site.url}/json?a=b`,
    body: { hello: "wörld" },
    headers: { "test-header": "test-value", "Upstash-Forward-bypass-tunnel-reminder": "client-test" },
  });
  await delivered(messageId);
  const [received] = site.to("/json");
  assert.equal(received.path, "/json?a=b");
  assert.deepEqual(JSON.parse(received.body), { hello: "wörld" });
  assert.equal(received.headers["content-type"], "application/json");
  assert.equal(received.headers["test-header"], "test-value");
  assert.equal(received.headers["bypass-tunnel-reminder"], "client-test");
  assert.equal(received.headers["upstash-message-id"], messageId);
  assert.deepEqual(Object.keys(received.headers).filter((name) => name.includes("telemetry")), []);
  const message = await client.messages.get(messageId);
  assert.deepEqual(message.header, {
    "Bypass-Tunnel-Reminder": ["client-test"],
    "Content-Type": ["application/json"],
    "Test-Header": ["test-value"],
  });
  assert.equal(message.body, JSON.stringify({ hello: "wörld" }));
});

test("every option is shown", async () => {
  const { messageId } = await client.publish({
    url: "https://example.com/",
    body: "text",
    method: "GET",
    delay: 60,
    retries: 5,
    retryDelay: "1000 * retried",
    timeout: 90,
    callback: "https://example.com?foo=bar",
    failureCallback: "https://example.com?bar=baz",
    label: ["one", "two"],
    flowControl: { key: "flow-key", parallelism: 10, rate: 5, period: "1d" },
  });
  const message = await client.messages.get(messageId);
  assert.equal(message.method, "GET");
  assert.equal(message.maxRetries, 5);
  assert.equal(message.retryDelayExpression, "1000 * retried");
  assert.equal(message.callback, "https://example.com?foo=bar");
  assert.equal(message.failureCallback, "https://example.com?bar=baz");
  assert.equal(message.label, "one");
  assert.deepEqual(message.labels, ["one", "two"]);
  assert.equal(message.flowControlKey, "flow-key");
  assert.deepEqual([message.parallelism, message.rate, message.ratePerSecond, message.period], [10, 5, 5, 86_400]);
  assert.ok(message.notBefore > Date.now() + 30_000);
  assert.equal(message.urlGroup, undefined);
});

test("a moment is kept to the second", async () => {
  const notBefore = Math.floor(Date.now() / 1000) + 3600;
  const { messageId } = await client.publish({ url: "https://example.com/", notBefore });
  assert.ok(Math.abs((await client.messages.get(messageId)).notBefore - notBefore * 1000) < 2000);
});

test("the client's own headers are sent with every message, unless it overrides them", async () => {
  const withHeaders = new Client({ headers: { "test-header": "value", "TEST-CASE": "upper", "test-case": "lower" } });
  const { messageId } = await withHeaders.publish({ url: `${site.url}/own`, headers: { "Test-Header": "override" } });
  await delivered(messageId);
  const [received] = site.to("/own");
  assert.equal(received.headers["test-header"], "override");
  assert.equal(received.headers["test-case"], "upper, lower");
});

test("one message is cancelled", async () => {
  const { messageId } = await client.publish({ url: "https://example.com/", delay: "10d" });
  assert.deepEqual(await client.messages.cancel(messageId), { cancelled: 1 });
  await until(async () => (await client.logs({ filter: { messageId, state: "CANCELED" } })).logs.length === 1);
  await client.messages.delete((await client.publish({ url: "https://example.com/", delay: "10d" })).messageId);
  assert.equal((await refusal(() => client.messages.cancel("msg_unknown"))).status, 404);
});

test("many are cancelled by id, and by each filter", async () => {
  const publish = async (options) => (await client.publish({ url: "https://example.com/", delay: "10d", ...options })).messageId;
  const count = async (request) => (await client.messages.cancel(request)).cancelled;
  await client.messages.cancel({ all: true });
  const ids = [await publish({}), await publish({})];
  assert.equal(await count(ids), 2);
  for (const label of ["a", "b", ["a", "c"]]) await publish({ label });
  assert.equal(await count({ filter: { label: ["b", "c"] } }), 2);
  assert.equal(await count({ filter: { label: "a" } }), 1);
  for (const key of ["k1", "k2", "k3"]) await publish({ flowControl: { key, parallelism: 1 } });
  assert.equal(await count({ filter: { flowControlKey: ["k1", "k2"] } }), 2);
  assert.equal(await count({ filter: { flowControlKey: "k3" } }), 1);
  for (const path of ["/p1", "/p2", "/p3"]) await publish({ url: `https://example.com${path}` });
  await publish({ url: "https://example.org/p1" });
  assert.equal(await count({ filter: { host: "example.org" } }), 1);
  assert.equal(await count({ filter: { path: ["/p1", "/p2"] } }), 2);
  assert.equal(await count({ filter: { url: "https://example.com/p3" } }), 1);
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [{ url: "https://example.com/g" }] });
  await client.publish({ urlGroup: "group", delay: "10d" });
  assert.equal(await count({ filter: { urlGroup: "group" } }), 1);
  await client.queue({ queueName: "queue" }).upsert({ paused: true });
  await client.queue({ queueName: "queue" }).enqueue({ url: "https://example.com/" });
  assert.equal(await count({ filter: { queueName: "queue" } }), 1);
  await publish({ label: "mine" });
  assert.equal(await count({ filter: { label: "mine", host: "example.org" } }), 0);
  assert.equal(await count({ filter: { fromDate: Date.now() + 60_000 } }), 0);
  assert.equal(await count({ filter: { callerIp: "127.0.0.1" } }), 1);
  assert.equal(await count({ all: true }), 0);
});

test("a count limits a cancellation", async () => {
  const label = "limited";
  await client.batchJSON([1, 2].map((n) => ({ url: "https://example.com/", body: { n }, delay: "10d", label })));
  assert.equal((await client.messages.cancel({ filter: { label }, count: 1 })).cancelled, 1);
  assert.equal((await client.messages.cancel({ all: true, count: 1 })).cancelled, 1);
  assert.equal((await client.messages.cancel({ all: true })).cancelled, 0);
});

test("a cancellation by filter takes all in one call, though the client always sends a count of 100", async () => {
  const label = "many";
  await client.batchJSON(Array.from({ length: 120 }, (_, n) => ({ url: "https://example.com/", body: { n }, delay: "10d", label })));
  assert.equal((await client.messages.cancel({ filter: { label } })).cancelled, 120);
});

test("the same id is deduplicated", async () => {
  const request = { url: `${site.url}/once`, deduplicationId: "once" };
  const first = await client.publish(request);
  const second = await client.publish(request);
  assert.ok(!first.deduplicated);
  assert.deepEqual([second.messageId, second.deduplicated], [first.messageId, true]);
  await delivered(first.messageId);
  const content = { url: `${site.url}/content`, body: "x", contentBasedDeduplication: true };
  assert.equal((await client.publish(content)).messageId, (await client.publish(content)).messageId);
});

test("a redacted body is hidden from answers only", async () => {
  const { messageId } = await client.publish({
    url: `${site.url}/redacted`,
    body: "the secret",
    headers: { "x-secret": "the secret" },
    redact: { body: true, header: ["X-Secret"] },
  });
  await delivered(messageId);
  const [received] = site.to("/redacted");
  assert.equal(received.body.toString(), "the secret");
  assert.equal(received.headers["x-secret"], "the secret");
  const message = await client.messages.get(messageId);
  assert.match(message.body, /^REDACTED:[0-9a-f]{64}$/);
  assert.match(message.header["X-Secret"][0], /^REDACTED:[0-9a-f]{64}$/);
});

test("a refusal is an error with its status and a reason in JSON", async () => {
  const faulty = await refusal(() => client.publish({ url: "ftp://example.com" }));
  assert.ok(faulty instanceof QstashError);
  assert.equal(faulty.status, 400);
  assert.equal(typeof JSON.parse(faulty.message).error, "string");
  const stranger = await refusal(() => new Client({ token: "wrong" }).publish({ url: "https://example.com" }));
  assert.equal(stranger.status, 401);
  const unknown = await refusal(() => client.messages.get("msg_unknown"));
  assert.equal(unknown.status, 404);
});
