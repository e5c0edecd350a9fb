// `client.schedules`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "@upstash/qstash";
import { client, destination, refusal, until } from "./support.mjs";

const site = await destination();

test("a schedule shows every option and no telemetry", async () => {
  const { scheduleId } = await client.schedules.create({
    destination: "https://oz.example.com/",
    body: JSON.stringify({ hello: "world" }),
    headers: { "test-header": "test-value", "Upstash-Forward-bypass-tunnel-reminder": "client-test" },
    method: "GET",
    callback: "https://example.com",
    failureCallback: "https://example.com/failure",
    delay: 10,
    retries: 5,
    retryDelay: "1000 * retried",
    queueName: "scheduleQueue",
    label: ["a", "b"],
    flowControl: { key: "flow-key", parallelism: 10, rate: 5, period: "1d" },
    cron: "*/10 * * * * ",
  });
  const found = await client.schedules.get(scheduleId);
  assert.deepEqual(found, {
    ...found,
    scheduleId,
    cron: "*/10 * * * *",
    destination: "https://oz.example.com/",
    method: "GET",
    header: {
      "Bypass-Tunnel-Reminder": ["client-test"],
      "Content-Type": ["application/json"],
      "Test-Header": ["test-value"],
    },
    body: '{"hello":"world"}',
    retries: 5,
    retryDelayExpression: "1000 * retried",
    delay: 10,
    callback: "https://example.com",
    failureCallback: "https://example.com/failure",
    queueName: "scheduleQueue",
    label: "a",
    labels: ["a", "b"],
    isPaused: false,
    flowControlKey: "flow-key",
    parallelism: 10,
    rate: 5,
    ratePerSecond: 5,
    period: 86_400,
  });
  await client.schedules.delete(scheduleId);
  assert.deepEqual(await client.schedules.list(), []);
  assert.equal((await refusal(() => client.schedules.get(scheduleId))).status, 404);
});

test("an id given twice is one schedule, replaced", async () => {
  const [scheduleId, cron] = ["my-schedule", "*/5 * * * *"];
  await client.schedules.create({ destination: "https://www.initial.example", cron, scheduleId, body: "my-payload" });
  await client.schedules.create({ destination: "https://www.updated.example", cron, scheduleId });
  const schedules = await client.schedules.list();
  assert.equal(schedules.length, 1);
  assert.deepEqual([schedules[0].scheduleId, schedules[0].destination], [scheduleId, "https://www.updated.example"]);
  assert.equal(schedules[0].body, undefined);
  await client.schedules.delete(scheduleId);
});

test("a schedule is paused and resumed, and sends with the client's own headers", async () => {
  const withHeaders = new Client({ headers: { "global-header": "global", "test-header": "overridden" } });
  const { scheduleId } = await withHeaders.schedules.create({
    destination: `${site.url}/work`,
    cron: "* * * * * *",
    headers: { "test-header": "own" },
  });
  await client.schedules.pause({ schedule: scheduleId });
  assert.equal((await client.schedules.get(scheduleId)).isPaused, true);
  await client.schedules.resume({ schedule: scheduleId });
  assert.equal((await client.schedules.get(scheduleId)).isPaused, false);
  const [received] = await until(() => site.to("/work").length > 0 && site.to("/work"));
  assert.deepEqual([received.headers["global-header"], received.headers["test-header"]], ["global", "own"]);
  assert.equal(received.headers["upstash-schedule-id"], scheduleId);
  await until(async () => {
    const { lastScheduleStates = {} } = await client.schedules.get(scheduleId);
    return Object.values(lastScheduleStates).includes("SUCCESS");
  });
  await client.schedules.delete(scheduleId);
});
