// `client.queue`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, delivered, destination, refusal, until } from "./support.mjs";

const site = await destination();

test("queues are created, listed, changed and deleted", async () => {
  const [first, second] = ["upstash-queue1", "upstash-queue2"].map((queueName) => client.queue({ queueName }));
  await first.upsert({ parallelism: 2 });
  await second.upsert({});
  const { createdAt, updatedAt, ...found } = await first.get();
  assert.deepEqual(found, { ...found, name: "upstash-queue1", parallelism: 2, lag: 0, paused: false });
  assert.deepEqual([typeof createdAt, typeof updatedAt], ["number", "number"]);
  assert.deepEqual((await client.queue().list()).map(({ name }) => name).sort(), ["upstash-queue1", "upstash-queue2"]);
  await first.upsert({ parallelism: 3, paused: true });
  assert.deepEqual([(await first.get()).parallelism, (await first.get()).paused], [3, true]);
  await first.delete();
  await second.delete();
  assert.deepEqual(await client.queue().list(), []);
  assert.equal((await refusal(() => first.get())).status, 404);
});

test("what is enqueued is delivered in order, once the queue is resumed", async () => {
  const queue = client.queue({ queueName: "ordered" });
  await queue.upsert({ paused: true });
  const ids = [];
  for (const n of [0, 1, 2]) {
    const headers = { "test-header": "test-value" };
    ids.push((await queue.enqueueJSON({ url: `${site.url}/${n}x`, body: { n }, headers })).messageId);
  }
  assert.equal((await client.messages.get(ids[0])).queueName, "ordered");
  assert.equal((await queue.get()).lag, 3);
  await queue.resume();
  for (const id of ids) await delivered(id);
  assert.deepEqual(site.received.map(({ path }) => path), ["/0x", "/1x", "/2x"]);
  assert.equal(site.received[0].headers["test-header"], "test-value");
  await queue.pause();
  assert.equal((await queue.get()).paused, true);
  await until(async () => (await queue.get()).lag === 0);
});

test("enqueueing to a group answers with a list", async () => {
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [{ url: `${site.url}/a` }, { url: `${site.url}/b` }] });
  const answers = await client.queue({ queueName: "grouped" }).enqueue({ urlGroup: "group", body: "x" });
  assert.deepEqual(answers.map(({ url }) => url).sort(), [`${site.url}/a`, `${site.url}/b`]);
  for (const { messageId } of answers) await delivered(messageId);
});
