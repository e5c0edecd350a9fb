// `client.dlq`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { buried, byPath, client, delivered, destination, refusal, until } from "./support.mjs";

const site = await destination();

async function fail(options = {}) {
  const { messageId } = await client.publish({ url: `${site.url}/404`, retries: 0, ...options });
  return buried(messageId);
}

const listed = async (options) => (await client.dlq.listMessages(options)).messages.map((letter) => letter.dlqId).sort();

test("a letter holds the message and the answer", async () => {
  const flowControl = { key: "key", parallelism: 10, ratePerSecond: 5, period: "1d" };
  const letter = await fail({ body: "text", label: ["a", "b"], retryDelay: "2000 * retried", flowControl });
  assert.deepEqual([letter.responseStatus, letter.responseBody, letter.body], [404, "404 Not Found", "text"]);
  assert.deepEqual([letter.flowControlKey, letter.parallelism, letter.rate, letter.ratePerSecond, letter.period], ["key", 10, 5, 5, 86_400]);
  assert.equal(letter.retryDelayExpression, "2000 * retried");
  assert.deepEqual([letter.label, letter.labels], ["a", ["a", "b"]]);
  assert.deepEqual(await client.dlq.delete(letter.dlqId), { deleted: 1 });
  assert.deepEqual(await listed(), []);
});

test("letters are listed by id, by filter and by page", async () => {
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [{ name: "my-endpoint", url: `${site.url}/500?a=b` }] });
  const [{ messageId }] = await client.publish({ urlGroup: "group", retries: 0 });
  const grouped = await buried(messageId);
  assert.deepEqual([grouped.urlGroup, grouped.endpointName], ["group", "my-endpoint"]);
  const first = await fail({ label: "first" });
  const second = await fail({ label: "second" });
  const all = [grouped.dlqId, first.dlqId, second.dlqId].sort();
  assert.deepEqual(await listed(), all);
  assert.deepEqual(await listed({ dlqIds: [first.dlqId, second.dlqId] }), [first.dlqId, second.dlqId].sort());
  assert.deepEqual(await listed({ filter: { urlGroup: "group" } }), [grouped.dlqId]);
  assert.deepEqual(await listed({ filter: { label: ["first", "other"] } }), [first.dlqId]);
  assert.deepEqual(await listed({ filter: { responseStatus: [404, 418] } }), [first.dlqId, second.dlqId].sort());
  assert.deepEqual(await listed({ filter: { url: `${site.url}/500?a=b` } }), [grouped.dlqId]);
  assert.deepEqual(await listed({ filter: { fromDate: new Date(Date.now() - 60_000), toDate: new Date() } }), all);
  assert.deepEqual(await listed({ filter: { toDate: new Date(0) } }), []);
  const page = await client.dlq.listMessages({ count: 2 });
  const rest = await client.dlq.listMessages({ count: 2, cursor: page.cursor });
  assert.deepEqual([page.messages.length, rest.messages.length], [2, 1]);
  assert.ok(!rest.cursor);
  assert.deepEqual([...page.messages, ...rest.messages].map((letter) => letter.dlqId).sort(), all);
});

test("letters are deleted by ids, by filter, and all of them by pages", async () => {
  const [first, second, third] = [await fail(), await fail(), await fail({ label: "deleted" })];
  assert.deepEqual((await client.dlq.delete([first.dlqId, second.dlqId])).deleted, 2);
  assert.deepEqual((await client.dlq.delete({ filter: { label: "deleted" } })).deleted, 1);
  assert.deepEqual(await listed({ dlqIds: [first.dlqId, second.dlqId, third.dlqId] }), []);
  assert.deepEqual((await client.dlq.deleteMany({ dlqIds: [first.dlqId] })).deleted, 0);
  for (let n = 0; n < 2; n += 1) await fail();
  let [cursor, pages] = [undefined, 0];
  do {
    const result = await client.dlq.delete({ all: true, count: 1, cursor });
    assert.ok(result.deleted <= 1);
    cursor = result.cursor;
    pages += 1;
  } while (cursor && pages < 20);
  assert.deepEqual(await listed(), []);
});

test("letters are sent again: one, several, by filter, all", async () => {
  const letters = [];
  for (const label of ["a", "b", "c", "d", "d", "e"]) letters.push(await fail({ label, body: label }));
  site.answer = () => ({ status: 200 });
  const answers = [
    await client.dlq.retry(letters[0].dlqId),
    await client.dlq.retry([letters[1].dlqId]),
    await client.dlq.retry({ dlqIds: [letters[2].dlqId] }),
    await client.dlq.retry({ filter: { label: "d" } }),
    await client.dlq.retry({ all: true }),
  ];
  assert.deepEqual(answers.map(({ responses }) => responses.length), [1, 1, 1, 2, 1]);
  assert.deepEqual(answers.map(({ cursor }) => cursor), Array(5).fill(undefined));
  for (const { messageId } of answers.flatMap(({ responses }) => responses)) await delivered(messageId);
  assert.deepEqual(await listed(), []);
  assert.equal(site.to("/404").filter(({ body }) => body.toString() === "d").length, 4);
  // As the vendor's own clean-up does after a retry.
  assert.equal((await client.dlq.deleteMany({ dlqIds: letters.map(({ dlqId }) => dlqId) })).deleted, 0);
  site.answer = byPath;
});

test("what does not exist is not sent again", async () => {
  const error = await refusal(() => client.dlq.retry("1725323658779-0"));
  assert.equal(error.status, 404);
  await until(async () => (await listed()).length === 0);
});
