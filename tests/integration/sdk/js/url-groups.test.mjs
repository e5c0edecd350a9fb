// `client.urlGroups`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, delivered, destination, refusal } from "./support.mjs";

const site = await destination();

test("a group is created, extended, listed, reduced and deleted", async () => {
  const first = { name: "one", url: "https://oz.example.com" };
  const second = { name: "two", url: "https://oz1.example.com" };
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [first] });
  assert.deepEqual((await client.urlGroups.get("group")).endpoints, [first]);
  await client.urlGroups.addEndpoints({ name: "group", endpoints: [second] });
  const [group, ...others] = await client.urlGroups.list();
  assert.deepEqual(others, []);
  assert.equal(group.name, "group");
  assert.deepEqual(group.endpoints.map(({ url }) => url).sort(), [first.url, second.url].sort());
  await client.urlGroups.removeEndpoints({ name: "group", endpoints: [{ name: "one" }] });
  assert.deepEqual((await client.urlGroups.get("group")).endpoints, [second]);
  await client.urlGroups.delete("group");
  assert.deepEqual(await client.urlGroups.list(), []);
  assert.equal((await refusal(() => client.urlGroups.get("group"))).status, 404);
});

test("a message goes to every endpoint of a group, delayed as asked", async () => {
  const urls = ["a", "b"].map((name) => `${site.url}/${name}?foo=bar`);
  await client.urlGroups.addEndpoints({ name: "my-proxy-url-group", endpoints: urls.map((url, n) => ({ name: `e${n}`, url })) });
  const answers = await client.publishJSON({ urlGroup: "my-proxy-url-group", body: { hello: "world" }, delay: 1 });
  assert.deepEqual(answers.map(({ url }) => url).sort(), urls);
  for (const { messageId } of answers) {
    const message = await client.messages.get(messageId);
    assert.deepEqual([message.urlGroup, message.topicName], ["my-proxy-url-group", "my-proxy-url-group"]);
    assert.match(message.endpointName, /^e[01]$/);
    await delivered(messageId);
  }
  assert.deepEqual(site.received.map(({ path }) => path).sort(), ["/a?foo=bar", "/b?foo=bar"]);
});
