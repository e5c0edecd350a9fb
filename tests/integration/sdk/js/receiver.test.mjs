// The npm client's `Receiver`, which is stricter about tokens than the Python one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Receiver } from "@upstash/qstash";
import { client, destination, refusal, until } from "./support.mjs";

const site = await destination();
const url = `${site.url}/hook?query=1`;

const deliver = async (body) => {
  const before = site.received.length;
  await client.publish({ url, body });
  await until(() => site.received.length > before);
  const { headers, body: got } = site.received[before];
  return { signature: headers["upstash-signature"], upstashRegion: headers["upstash-region"], body: got.toString() };
};

test("a delivery is verified", async () => {
  assert.equal(await new Receiver().verify({ ...(await deliver('{"ä":1}')), url }), true);
  assert.equal(await new Receiver().verify({ ...(await deliver("")), url }), true);
});

test("a receiver whose next key is ours verifies it too", async () => {
  const rotated = { currentSigningKey: "sig_newer", nextSigningKey: process.env.QSTASH_CURRENT_SIGNING_KEY };
  assert.equal(await new Receiver(rotated).verify({ ...(await deliver("x")), url }), true);
});

test("what was changed or signed by another is refused", async () => {
  const received = await deliver("x");
  const strange = new Receiver({ currentSigningKey: "sig_a", nextSigningKey: "sig_b" });
  assert.equal((await refusal(() => strange.verify(received))).name, "SignatureError");
  assert.match((await refusal(() => new Receiver().verify({ ...received, body: "y" }))).message, /body hash/);
  assert.match((await refusal(() => new Receiver().verify({ ...received, url: site.url }))).message, /invalid subject/);
});
