// `client.flowControl`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, delivered, destination, refusal, until } from "./support.mjs";

const site = await destination();
const LIMITS = { parallelism: 5, rate: 10, period: "1m" };

const publish = async (key, path = "/", limits = LIMITS) =>
  (await client.publish({ url: `${site.url}${path}`, body: "hello", flowControl: { key, ...limits } })).messageId;

test("a key shows its limits and what runs under it", async () => {
  const messageId = await publish("shown", "/slow");
  await until(() => site.to("/slow").length === 1);
  const { ratePeriodStart, ...found } = await client.flowControl.get("shown");
  assert.equal(typeof ratePeriodStart, "number");
  assert.deepEqual(found, {
    ...found,
    flowControlKey: "shown",
    waitListSize: 0,
    parallelismMax: 5,
    parallelismCount: 1,
    rateMax: 10,
    rateCount: 1,
    ratePeriod: 60,
    isPaused: false,
    isPinnedParallelism: false,
    isPinnedRate: false,
  });
  const info = await client.flowControl.getGlobalParallelism();
  assert.equal(info.parallelismCount, 1);
  assert.ok(info.parallelismMax >= 1);
  await client.messages.delete(messageId);
  assert.equal((await refusal(() => client.flowControl.get("unknown"))).status, 404);
});

test("a key is paused and resumed", async () => {
  await delivered(await publish("paused"));
  await client.flowControl.pause("paused");
  assert.equal((await client.flowControl.get("paused")).isPaused, true);
  const held = await publish("paused", "/held");
  await until(async () => (await client.flowControl.get("paused")).waitListSize === 1);
  assert.equal(site.to("/held").length, 0);
  await client.flowControl.resume("paused");
  assert.equal((await client.flowControl.get("paused")).isPaused, false);
  await delivered(held);
});

test("a configuration is pinned and unpinned, and the rate reset", async () => {
  await delivered(await publish("pinned"));
  await client.flowControl.pin("pinned", { parallelism: 3, rate: 20, period: 120 });
  await delivered(await publish("pinned"));
  const pinned = await client.flowControl.get("pinned");
  assert.deepEqual([pinned.isPinnedParallelism, pinned.isPinnedRate], [true, true]);
  assert.deepEqual([pinned.parallelismMax, pinned.rateMax, pinned.ratePeriod, pinned.rateCount], [3, 20, 120, 1]);
  await client.flowControl.unpin("pinned", { parallelism: true, rate: true });
  const unpinned = await client.flowControl.get("pinned");
  assert.deepEqual([unpinned.isPinnedParallelism, unpinned.isPinnedRate], [false, false]);
  await client.flowControl.resetRate("pinned");
  assert.equal((await client.flowControl.get("pinned")).rateCount, 0);
});
