"""The heart: claims due messages in batches, holds their calls on one event loop, writes their ends in batches."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from structlog.stdlib import BoundLogger

from services.relay.courier import Courier
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store import Ending, Store, dead_letter_id
from services.relay.wire.callback import callbacks
from services.relay.wire.outcome import Answer, Failed, Retry, judge, state_of

# One round trip for so many: larger ones gain little, and one transaction must not hold many large bodies.
CLAIM_MAX = 200
FINISH_MAX = 100
# A message published by this process wakes the pump at once; this is for what the others left, and for retries.
IDLE_SECONDS = 0.5
# Within this a call whose message was cancelled by another process is broken off.
CANCEL_CHECK_SECONDS = 0.5
FAULT_PAUSE_SECONDS = 1.0


class Pump:
    """`run` until cancelled; `claim_once`, `finish_once` and `sweep_once` are its steps."""

    def __init__(
        self, store: Store, courier: Courier, settings: RelaySettings, metrics: RelayMetrics, log: BoundLogger
    ) -> None:
        self._store = store
        self._courier = courier
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._calls: dict[str, asyncio.Task[None]] = {}
        # Bounded by the calls in flight: a call puts one in, and counts as in flight until it is written.
        self._endings: asyncio.Queue[Ending] = asyncio.Queue()
        self._unwritten: set[str] = set()
        self._wake = asyncio.Event()
        metrics.in_flight.set_function(lambda: len(self._calls))

    def wake(self, delay_seconds: float = 0.0) -> None:
        """Something is due now, or in `delay_seconds`."""
        if delay_seconds <= 0:
            self._wake.set()
        elif delay_seconds < 60:
            asyncio.get_running_loop().call_later(delay_seconds, self._wake.set)

    def abort(self, message_id: str) -> None:
        """Break off the call of a cancelled message, if it is here."""
        if (task := self._calls.get(message_id)) is not None:
            task.cancel()

    async def claim_once(self) -> int:
        """Take a batch and start its calls; how many."""
        room = self._settings.concurrency_max - len(self._calls) - len(self._unwritten)
        if room <= 0:
            return 0
        claimed = await self._store.claim(min(CLAIM_MAX, room), self._settings.lease_seconds)
        for message in claimed:
            self._start(message)
        return len(claimed)

    async def finish_once(self) -> int:
        """Wait for an ending, and write it with the others that are there; how many."""
        endings = [await self._endings.get()]
        size = len(endings[0].answer.body)
        while len(endings) < FINISH_MAX and size < self._settings.body_bytes_max and not self._endings.empty():
            endings.append(self._endings.get_nowait())
            size += len(endings[-1].answer.body)
        while True:
            try:
                await self._store.finish(endings)
                break
            except asyncio.CancelledError:
                # The drain goes on with them. Should they be committed already, a second time changes nothing.
                for ending in endings:
                    self._endings.put_nowait(ending)
                raise
            except Exception as error:  # noqa: BLE001  the answers exist only here: try until the database is back
                self._log.error("finish_failed", error=_short(error), count=len(endings))
                await asyncio.sleep(FAULT_PAUSE_SECONDS)
        for ending in endings:
            self._unwritten.discard(ending.message.id)
            self._metrics.attempts.labels(state_of(ending.verdict)).inc()
            if isinstance(ending.verdict, Retry):
                self.wake(ending.verdict.delay_seconds)
        if any(ending.callbacks for ending in endings):
            self.wake()
        return len(endings)

    async def sweep_once(self) -> int:
        """Take back what dead processes held; how many."""
        expired = await self._store.expire(CLAIM_MAX)
        failed = await self._store.take_over(CLAIM_MAX, self._settings.lease_seconds)
        for message in failed:
            self._end(message, Answer(0, (), b"", error="fate unknown: the relay died during the call"), final=True)
        if expired or failed:
            self._metrics.expiries.inc(expired + len(failed))
            self._metrics.unknown.inc(expired + len(failed))
            self._log.warning("lease_expired", retried=expired, failed=len(failed))
            self.wake()
        return expired + len(failed)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever("claim", self._claim_loop))
            group.create_task(self._forever("finish", self._finish_loop))
            group.create_task(self._forever("heartbeat", self._heartbeat_loop))
            group.create_task(self._forever("cancel_check", self._cancel_loop))
            group.create_task(self._forever("sweep", self._sweep_loop))

    async def drain(self) -> None:
        """Wait for the calls in flight, up to the drain time; give the rest to the other processes."""
        deadline = time.monotonic() + self._settings.drain_seconds
        finishing = asyncio.create_task(self._forever("finish", self._finish_loop))
        beating = asyncio.create_task(self._forever("heartbeat", self._heartbeat_loop))
        while (self._calls or self._unwritten) and time.monotonic() < deadline:  # noqa: ASYNC110  once, at the end
            await asyncio.sleep(0.05)
        left = list(self._calls.values())
        for task in [*left, finishing, beating]:
            task.cancel()
        await asyncio.gather(*left, finishing, beating, return_exceptions=True)
        if left:
            self._log.warning("drain_incomplete", calls=len(left))
        await self._store.release()

    async def _claim_loop(self) -> None:
        while True:
            self._wake.clear()
            if await self.claim_once() == 0:
                due = await self._store.next_due_seconds()
                pause = IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(due, 0.005))
                try:
                    await asyncio.wait_for(self._wake.wait(), pause)
                except TimeoutError:
                    continue

    async def _finish_loop(self) -> None:
        while True:
            await self.finish_once()

    async def _heartbeat_loop(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            if held := [*self._calls, *self._unwritten]:
                await self._store.heartbeat(held, self._settings.lease_seconds)

    async def _cancel_loop(self) -> None:
        while True:
            await asyncio.sleep(CANCEL_CHECK_SECONDS)
            if self._calls:
                for message_id in await self._store.lost(list(self._calls)):
                    self.abort(message_id)

    async def _sweep_loop(self) -> None:
        letters_seconds = self._settings.dead_letter_days * 86_400
        while True:
            await self.sweep_once()
            await self._store.prune(5_000, keep_seconds=self._settings.keep_seconds, letters_seconds=letters_seconds)
            waiting, active, oldest = await self._store.depth()
            self._metrics.waiting.set(waiting)
            self._metrics.active.set(active)
            self._metrics.oldest.set(oldest)
            await asyncio.sleep(min(2.0, self._settings.lease_seconds / 3))

    async def _forever(self, name: str, loop: object) -> None:
        """Run a loop again after a fault: the database may be away for a while, the calls in flight go on."""
        while True:
            try:
                await loop()  # type: ignore[operator]
            except Exception as error:  # noqa: BLE001  no fault may end a loop that others' calls depend on
                self._log.error("loop_failed", loop=name, error=_short(error))
                await asyncio.sleep(FAULT_PAUSE_SECONDS)

    def _start(self, message: Claimed) -> None:
        task = asyncio.create_task(self._call(message))
        self._calls[message.id] = task
        task.add_done_callback(lambda _: self._calls.pop(message.id, None))

    async def _call(self, message: Claimed) -> None:
        started = time.monotonic()
        answer = await self._courier.deliver(message, int(time.time()))
        self._metrics.seconds.observe(time.monotonic() - started)
        self._end(message, answer)

    def _end(self, message: Claimed, answer: Answer, *, final: bool = False) -> None:
        now = datetime.now(UTC)
        verdict = Failed() if final else judge(message, answer, now)
        dlq_id = dead_letter_id(now, message.id)
        follow = callbacks(message, answer, verdict, ended_at=now, dlq_id=dlq_id)
        self._unwritten.add(message.id)
        self._endings.put_nowait(Ending(message, answer, verdict, follow, dlq_id))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
