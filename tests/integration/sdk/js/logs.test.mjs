// `client.logs` and its older name `client.events`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, delivered, destination } from "./support.mjs";

const site = await destination();

const publish = async (options) => {
  const { messageId } = await client.publish({ url: `${site.url}/`, body: "x", ...options });
  await delivered(messageId);
  return messageId;
};
const found = async (filter) => [...new Set((await client.logs({ filter })).logs.map((log) => log.messageId))].sort();

test("labels are shown and any of several finds the message", async () => {
  const ab = await publish({ label: ["a", "b"] });
  const bc = await publish({ label: ["b", "c"] });
  const c = await publish({ label: "c" });
  const { logs } = await client.logs({ filter: { messageId: ab } });
  assert.deepEqual(logs.map(({ label, labels }) => [label, labels]), logs.map(() => ["a", ["a", "b"]]));
  assert.deepEqual(await found({ label: ["a", "b"] }), [ab, bc].sort());
  assert.deepEqual(await found({ label: "c" }), [bc, c].sort());
});

test("address, host and path find a message", async () => {
  const waiting = async (url) => (await client.publish({ url, delay: "1h" })).messageId;
  const first = await waiting("https://example.com/first?a=b");
  const second = await waiting("https://example.org/second");
  assert.deepEqual(await found({ url: ["https://example.com/first?a=b", "https://example.com/other"] }), [first]);
  assert.deepEqual(await found({ path: ["/first", "/second"] }), [first, second].sort());
  assert.deepEqual(await found({ host: "example.org" }), [second]);
  assert.deepEqual(await found({ host: "example.com", path: "/second" }), []);
});

test("group, queue, key, state, date and ids find a message", async () => {
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [{ url: `${site.url}/group` }] });
  const [{ messageId: grouped }] = await client.publish({ urlGroup: "group" });
  await delivered(grouped);
  const { messageId: queued } = await client.queue({ queueName: "queue" }).enqueue({ url: `${site.url}/queued` });
  await delivered(queued);
  const keyed = await publish({ flowControl: { key: "key", parallelism: 1 } });
  assert.deepEqual(await found({ urlGroup: "group" }), [grouped]);
  assert.equal((await client.logs({ filter: { urlGroup: "group" } })).logs[0].urlGroup, "group");
  assert.deepEqual(await found({ queueName: "queue" }), [queued]);
  assert.deepEqual(await found({ flowControlKey: "key" }), [keyed]);
  assert.deepEqual(await found({ state: "DELIVERED", flowControlKey: "key" }), [keyed]);
  assert.deepEqual(await found({ state: "FAILED" }), []);
  assert.deepEqual(await found({ queueName: "queue", fromDate: new Date(Date.now() - 60_000), toDate: Date.now() + 1000 }), [queued]);
  assert.deepEqual(await found({ queueName: "queue", toDate: Date.now() - 60_000 }), []);
  assert.deepEqual(await found({ queueName: "queue", callerIp: "127.0.0.1" }), [queued]);
  const byIds = await client.logs({ messageIds: [queued, keyed] });
  assert.deepEqual([...new Set(byIds.logs.map((log) => log.messageId))].sort(), [queued, keyed].sort());
});

test("pages follow each other to the end, newest first", async () => {
  const everything = await client.logs();
  const paged = [];
  let cursor;
  do {
    const page = await client.logs({ count: 5, cursor });
    assert.ok(page.logs.length <= 5);
    paged.push(...page.logs);
    cursor = page.cursor;
  } while (cursor && paged.length <= everything.logs.length);
  assert.deepEqual(paged, everything.logs);
  const times = paged.map((log) => log.time);
  assert.deepEqual(times, [...times].sort((one, other) => other - one));
});

test("the end of a list has no cursor, not an empty one", async () => {
  const result = await client.logs({ filter: { label: "nothing has it" } });
  assert.deepEqual(result.logs, []);
  assert.equal(result.cursor, undefined);
});

test("events are the same under their older name, and count may stand among the filters", async () => {
  const { events } = await client.events({ filter: { count: 1 } });
  assert.equal(events.length, 1);
});
