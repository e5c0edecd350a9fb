// The npm client's sugar for model and e-mail providers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { anthropic, custom, decodeBase64, resend, upstash } from "@upstash/qstash";
import { client, delivered, destination, refusal, until } from "./support.mjs";

const site = await destination();
const callback = `${site.url}/callback`;
const body = { model: "m", messages: [{ role: "user", content: "hello" }] };

/** A provider at our destination instead of at its public address. */
function moved(provider) {
  provider.baseUrl = site.url;
  return provider;
}

test("a custom provider is asked by publish, enqueue and batch, and its answer called back", async () => {
  const api = () => ({ name: "llm", provider: custom({ baseUrl: `${site.url}/v1/chat/completions`, token: "key" }) });
  site.answer = ({ path }) => ({ body: path === "/v1/chat/completions" ? '{"choices":[]}' : "{}" });
  const ids = [
    (await client.publishJSON({ api: api(), body: { ...body }, callback })).messageId,
    (await client.queue({ queueName: "llm" }).enqueueJSON({ api: api(), body: { ...body }, callback })).messageId,
    (await client.batchJSON([{ api: api(), body: { ...body }, callback }]))[0].messageId,
  ];
  for (const id of ids) await delivered(id);
  for (const { headers, body: got } of site.to("/v1/chat/completions")) {
    assert.equal(headers.authorization, "Bearer key");
    assert.deepEqual(JSON.parse(got), body);
  }
  const calls = await until(() => site.to("/callback").length === 3 && site.to("/callback"));
  const contents = calls.map((call) => JSON.parse(call.body));
  assert.deepEqual(contents.map((content) => content.sourceMessageId).sort(), [...ids].sort());
  assert.deepEqual(contents.map((content) => decodeBase64(content.body)), Array(3).fill('{"choices":[]}'));
});

test("other providers' own headers arrive", async () => {
  const asked = { api: { name: "llm", provider: moved(anthropic({ token: "key" })) }, body: { ...body }, callback };
  await delivered((await client.publishJSON(asked)).messageId);
  const [message] = site.to("/v1/messages");
  assert.deepEqual([message.headers["x-api-key"], message.headers["anthropic-version"]], ["key", "2023-06-01"]);
  const mail = { api: { name: "email", provider: moved(resend({ token: "mail-key", batch: true })) }, body: [{ to: "a@b" }] };
  await delivered((await client.publishJSON(mail)).messageId);
  const [sent] = site.to("/emails/batch");
  assert.deepEqual([sent.headers.authorization, JSON.parse(sent.body)], ["Bearer mail-key", [{ to: "a@b" }]]);
});

test("the vendor's own hosted models are refused, with a reason", async () => {
  const asked = () => client.publishJSON({ api: { name: "llm", provider: upstash() }, body: { ...body }, callback });
  const error = await refusal(asked);
  assert.ok([400, 404].includes(error.status));
  assert.equal(typeof JSON.parse(error.message).error, "string");
});
