// What the scripts share: a destination that keeps what it got, waiting with a deadline, the client of the environment.
import { createServer } from "node:http";
import { after } from "node:test";
import { Client } from "@upstash/qstash";

export const client = new Client();

/** An HTTP server; `site.answer(request)` says `{status, body, delayMs}` and may be exchanged at any time. */
export async function destination() {
  const site = { received: [], answer: byPath };
  const server = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const received = { method: request.method, path: request.url, headers: request.headers, body: Buffer.concat(chunks) };
      site.received.push(received);
      const { status = 200, body = "{}", delayMs = 0 } = site.answer(received);
      setTimeout(() => response.writeHead(status, { "Content-Type": "application/json" }).end(body), delayMs).unref();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  site.url = `http://127.0.0.1:${server.address().port}`;
  site.to = (path) => site.received.filter((received) => received.path.split("?")[0] === path);
  return site;
}

/** `/404` answers that status; `/slow` takes a minute; everything else is 200. */
export function byPath({ path }) {
  const name = path.split("?")[0].slice(1);
  if (name === "slow") return { delayMs: 60_000 };
  if (name === "404") return { status: 404, body: "404 Not Found" };
  return { status: /^[1-5]\d\d$/.test(name) ? Number(name) : 200 };
}

/** The first answer of `condition` that is truthy. Throws with the last one after `seconds`. */
export async function until(condition, seconds = 20) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(answer)} after ${seconds} s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The one row of a message's delivery. */
export async function delivered(messageId) {
  const rows = await until(async () => {
    const { logs } = await client.logs({ filter: { messageId, state: "DELIVERED" } });
    return logs.length > 0 && logs;
  });
  if (rows.length !== 1) throw new Error(`${rows.length} deliveries of ${messageId}`);
  return rows[0];
}

/** A message's dead letter, as the list shows it. */
export async function buried(messageId) {
  const letters = await until(async () => {
    const { messages } = await client.dlq.listMessages({ filter: { messageId } });
    return messages.length > 0 && messages;
  });
  return letters[0];
}

/** The error of a call that must fail. */
export async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("it was not refused");
}
