"""Start notices (`Tidings-Started-Callback`) tell senders that an attempt starts: best effort, in memory, concurrent
with the attempts.

They are not stored and no attempt waits for them. If a notice is late or lost, its sender learns of the attempt at its
end. The reasons are in docs/decisions/0013-attempt-starts.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Literal, assert_never

import orjson

from services.relay.egress.address_policy import ForbiddenAddressError
from services.relay.egress.http.faults import NoAnswerError, NotSentError
from services.relay.egress.http.request import request
from services.relay.egress.routes import Routes
from services.relay.engine.start_queue import Start, StartBatch, StartQueue
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.protocol.callback import milliseconds
from tidings.contract.signature import sign_digest
from tidings.process.log import fault
from tidings.process.telemetry import Telemetry

# For one request, including its connection. A start is dropped at twice this age.
REQUEST_SECONDS = 5.0
# The pause after a failure, doubled with each further one. A start is thus tried about six times.
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.1, 2.0
# Only the status of the receiver's answer is used.
ANSWER_BYTES_MAX = 16 * 1024

Outcome = Literal["told", "refused", "failed"]


class StartNotices:
    """Call `notify` from the event loop. Each address has at most one request in flight. A start is sent at once when
    the address has none; starts that arrive meanwhile are sent together in the next one.
    """

    def __init__(self, routes: Routes, signing_key: Callable[[], str], telemetry: Telemetry[RelayMetrics]) -> None:
        """`close` closes `routes` too. Connections for notices are separate from those of attempts."""
        self._routes = routes
        self._signing_key = signing_key
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._queue = StartQueue()
        self._senders: dict[str, asyncio.Task[None]] = {}

    def notify(self, message: Claimed, over: Callable[[], bool]) -> None:
        """Record that an attempt starts now. `over` says later whether it has ended. Does no I/O and raises nothing."""
        callback = message.options.started_callback
        if callback is None:
            return
        start = Start(
            message.id,
            message.label,
            message.retried,
            milliseconds(message.started_at),
            callback.data,
            time.monotonic(),
            over,
        )
        put = self._queue.put(callback.url, start)
        self._metrics.start_notices.labels("dropped").inc(put.dropped)
        if put.evicted is not None:
            self._senders.pop(put.evicted).cancel()
        if put.refused:
            return
        if callback.url not in self._senders:
            self._senders[callback.url] = asyncio.create_task(self._send_all(callback.url))

    def close(self) -> None:
        """Drop the notices that were not sent."""
        for sender in self._senders.values():
            sender.cancel()
        self._routes.close()

    async def _send_all(self, url: str) -> None:
        """Send until no start of the address waits."""
        pause = PAUSE_SECONDS_MIN
        try:
            while (sent := self._next_batch(url)).batch:
                try:
                    outcome = await self._send(url, sent)
                except asyncio.CancelledError:  # another address took this one's place
                    self._give_up(sent)
                    raise
                self._settle(url, sent, outcome)
                if outcome == "failed":
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSE_SECONDS_MAX)
                else:
                    pause = PAUSE_SECONDS_MIN
        finally:
            if self._senders.get(url) is asyncio.current_task():
                del self._senders[url]

    def _next_batch(self, url: str) -> StartBatch:
        sent = self._queue.take(url, time.monotonic())
        self._metrics.start_notices.labels("dropped").inc(sent.late)
        self._metrics.start_notices.labels("over").inc(sent.over)
        return sent

    def _settle(self, url: str, sent: StartBatch, outcome: Outcome) -> None:
        match outcome:
            case "failed":
                self._queue.give_back(url, sent)
            case "told":
                self._queue.succeeded(url, sent, time.monotonic())
                self._metrics.start_notices.labels(outcome).inc(len(sent.batch))
            case "refused":
                self._queue.settle(sent)
                self._metrics.start_notices.labels(outcome).inc(len(sent.batch))
            case _:
                assert_never(outcome)

    def _give_up(self, sent: StartBatch) -> None:
        self._queue.settle(sent)
        self._metrics.start_notices.labels("dropped").inc(len(sent.batch))

    async def _send(self, url: str, sent: StartBatch) -> Outcome:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return outcome_of(await self._status(url, sent))
        except ForbiddenAddressError:
            return "refused"
        except (NotSentError, NoAnswerError, OSError) as error:  # OSError includes TimeoutError
            # The address belongs to the sender, and may contain a secret.
            self._log.debug("start_notices_failed", error=fault(error), count=len(sent.batch))
            return "failed"
        except Exception as error:  # noqa: BLE001  after a fault of ours too, waiting starts must not wait for ever
            self._log.error("start_notices_refused", error=fault(error), count=len(sent.batch))
            return "refused"

    async def _status(self, url: str, sent: StartBatch) -> int:
        """The status of the receiver's answer to the batch."""
        route, target = self._routes.to(url, public_only=False)
        if route.third_party:
            raise ForbiddenAddressError("start notices are signed, and a third party gets no signature")
        body = request_body(sent.batch)
        signature = sign_digest(self._signing_key(), url, hashlib.sha256(body).digest(), now=int(time.time()))
        headers = {
            **route.headers,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "Upstash-QStash",
            "Content-Type": "application/json",
            "Upstash-Signature": signature,
        }
        outgoing = request("POST", target, headers, body, len(body))
        with await route.pool.connection(route.origin, REQUEST_SECONDS) as connection:
            return (await connection.exchange(outgoing, ANSWER_BYTES_MAX)).status


def request_body(batch: tuple[Start, ...]) -> bytes:
    """The body of one request."""
    starts = [
        {
            "messageId": start.message_id,
            "label": start.label,
            "retried": start.retried,
            "startedAt": start.started_at_ms,
            "data": start.data,
        }
        for start in batch
    ]
    return orjson.dumps({"starts": starts})


def outcome_of(status: int) -> Outcome:
    if 200 <= status <= 299:
        return "told"
    # A retry would get the same answer from any other status.
    return "failed" if status in {408, 429} or status >= 500 else "refused"
