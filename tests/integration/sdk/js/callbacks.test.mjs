// Callbacks asked for by the npm client, verified with its `Receiver`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Receiver, decodeBase64 } from "@upstash/qstash";
import { buried, byPath, client, destination, until } from "./support.mjs";

const site = await destination();
const receiver = new Receiver();

async function content(received, url) {
  const body = received.body.toString();
  assert.ok(await receiver.verify({ signature: received.headers["upstash-signature"], body, url }));
  return JSON.parse(body);
}

test("the answer is called back", async () => {
  site.answer = (received) => (received.path === "/work" ? { status: 201, body: "größer" } : byPath(received));
  const { messageId } = await client.publish({
    url: `${site.url}/work`,
    body: "question",
    callback: `${site.url}/callback`,
    headers: { "Upstash-Callback-Forward-My-Header": "mine", "Upstash-Callback-Method": "PUT" },
  });
  const [received] = await until(() => site.to("/callback").length > 0 && site.to("/callback"));
  const found = await content(received, `${site.url}/callback`);
  assert.deepEqual([received.method, received.headers["my-header"]], ["PUT", "mine"]);
  assert.deepEqual([found.status, found.retried, found.maxRetries, found.sourceMessageId], [201, 0, 3, messageId]);
  assert.equal(decodeBase64(found.body), "größer");
  assert.equal(decodeBase64(found.sourceBody), "question");
});

test("a failure is called back at the end, with its dead letter", async () => {
  const { messageId } = await client.publish({
    url: `${site.url}/404`,
    retries: 1,
    retryDelay: "10",
    failureCallback: `${site.url}/failure`,
    headers: { "Upstash-Failure-Callback-Forward-My-Header": "mine" },
  });
  const [received] = await until(() => site.to("/failure").length > 0 && site.to("/failure"));
  const found = await content(received, `${site.url}/failure`);
  assert.equal(received.headers["my-header"], "mine");
  assert.deepEqual([found.status, found.retried, decodeBase64(found.body)], [404, 1, "404 Not Found"]);
  assert.equal(found.dlqId, (await buried(messageId)).dlqId);
  assert.equal(site.to("/404").length, 2);
});
