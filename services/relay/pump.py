"""The heart: claims due messages in batches and holds their calls on one event loop; `ending_writer` writes their ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from structlog.stdlib import BoundLogger

from services.relay.courier import Courier
from services.relay.ending import Ending, ending_of, unjudged
from services.relay.ending_writer import EndingWriter
from services.relay.memory import CALL_BYTES, Memory
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from services.relay.waking import Waking
from services.relay.wire.outcome import Answer
from tidings.log import fault

# One round trip for so many: larger ones gain little.
CLAIM_MAX = 250
# Calls that still look for a connection. With more of them at once a fast destination gets new connections instead of
# those that others just gave back, and each costs more than the call.
OPENING_MAX = 300
# A message published by this process wakes the pump at once; this is for what the others left, and for retries.
IDLE_SECONDS = 0.5
# Within this a call whose message was cancelled by another process is broken off.
CANCEL_CHECK_SECONDS = 0.5
FAULT_PAUSE_SECONDS = 1.0
# Counting a long queue takes the database a while, and nobody scrapes more often.
GAUGE_SECONDS = 10.0


class Pump:
    """`run` until cancelled; `claim_once` and `sweep_once` are its steps."""

    def __init__(
        self,
        messages: Messages,
        processes: Processes,
        courier: Courier,
        writer: EndingWriter,
        settings: RelaySettings,
        metrics: RelayMetrics,
        log: BoundLogger,
        *,
        waking: Waking,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory or Memory()
        self._messages = messages
        self._processes = processes
        self._courier = courier
        self._writer = writer
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._waking = waking
        self._keyed_first = False
        self._calls: dict[str, asyncio.Task[None]] = {}
        metrics.in_flight.set_function(lambda: len(self._calls))

    def abort(self, message_id: str) -> None:
        """Break off the call of a cancelled message, if it is here."""
        if (task := self._calls.get(message_id)) is not None:
            task.cancel()

    async def claim_once(self) -> int:
        """Take a batch and start its calls; how many. Messages with and without a flow key take turns in being first, so
        that a long queue of the ones does not starve the others.
        """
        self._keyed_first = not self._keyed_first
        claims = (self._messages.claim_keyed, self._messages.claim)
        room = left = self._room()
        for claim in claims if self._keyed_first else reversed(claims):
            claimed = await claim(left, self._memory.calls.left) if left > 0 else []
            for message in claimed:
                self._start(message)
            left -= len(claimed)
        return max(0, room) - max(0, left)

    async def sweep_once(self) -> int:
        """Take back what dead processes held; how many."""
        expired = await self._messages.expire(CLAIM_MAX)
        failed = await self._messages.take_over(CLAIM_MAX)
        for message in failed:
            self._end(message, Answer(0, (), b"", error="fate unknown: the relay died during the call", fate="unknown"))
        if expired or failed:
            self._metrics.expiries.inc(expired + len(failed))
            self._metrics.unknown.inc(expired + len(failed))
            self._log.warning("lease_expired", retried=expired, failed=len(failed))
            self._waking.wake()
        return expired + len(failed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._processes.renew(self._settings.lease_seconds)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever("claim", self._claim_loop))
            group.create_task(self._forever("finish", self._finish_loop))
            group.create_task(self._forever("heartbeat", self._heartbeat_loop))
            group.create_task(self._forever("cancel_check", self._cancel_loop))
            group.create_task(self._forever("sweep", self._sweep_loop))
            group.create_task(self._forever("gauge", self._gauge_loop))

    async def drain(self) -> None:
        """Wait for the calls in flight, up to the drain time; give the rest to the other processes."""
        deadline = time.monotonic() + self._settings.drain_seconds
        finishing = asyncio.create_task(self._forever("finish", self._finish_loop))
        beating = asyncio.create_task(self._forever("heartbeat", self._heartbeat_loop))
        while (self._calls or self._writer.unwritten) and time.monotonic() < deadline:  # noqa: ASYNC110  once, at the end
            await asyncio.sleep(0.05)
        left = list(self._calls.values())
        for task in [*left, finishing, beating]:
            task.cancel()
        await asyncio.gather(*left, finishing, beating, return_exceptions=True)
        if left:
            self._log.warning("drain_incomplete", calls=len(left))
        await self._processes.release()

    def _room(self) -> int:
        """How many more calls may begin now."""
        if self._writer.full:
            return 0
        held = len(self._calls) + self._writer.unwritten
        places = self._memory.calls.left // CALL_BYTES
        return min(CLAIM_MAX, OPENING_MAX - self._courier.opening, self._settings.concurrency_max - held, places)

    async def _claim_loop(self) -> None:
        while True:
            self._waking.clear()
            if await self.claim_once() == 0:
                await self._idle()
            elif self._room() <= 0:
                # Let the calls that were just started get on, instead of asking the database for nothing.
                await asyncio.sleep(0.002)

    async def _idle(self) -> None:
        if self._room() <= 0:
            pause = 0.005
        else:
            due = await self._messages.next_due_seconds()
            pause = IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(due, 0.005))
        await self._waking.wait(pause)

    async def _finish_loop(self) -> None:
        while True:
            await self._writer.run_once()

    async def _heartbeat_loop(self) -> None:
        while True:
            await self._processes.renew(self._settings.lease_seconds)
            # After a stall longer than the lease, others hold what was ours.
            for message_id in await self._messages.lost(list(self._calls)) if self._calls else ():
                self.abort(message_id)
            await asyncio.sleep(self._settings.lease_seconds / 3)

    async def _cancel_loop(self) -> None:
        while True:
            await asyncio.sleep(CANCEL_CHECK_SECONDS)
            for message_id in await self._processes.cancellations() if self._calls else ():
                self.abort(message_id)

    async def _sweep_loop(self) -> None:
        while True:
            await self.sweep_once()
            await asyncio.sleep(min(2.0, self._settings.lease_seconds / 3))

    async def _gauge_loop(self) -> None:
        while True:
            depth = await self._messages.depth()
            self._metrics.waiting.set(depth["waiting"])
            self._metrics.active.set(depth["active"])
            self._metrics.oldest.set(depth["oldest"])
            self._metrics.cooling.set(depth["cooling"])
            await asyncio.sleep(GAUGE_SECONDS)

    async def _forever(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop again after a fault: the database may be away for a while, the calls in flight go on."""
        while True:
            try:
                await loop()
            except Exception as error:  # noqa: BLE001  no fault may end a loop that others' calls depend on
                self._log.error("loop_failed", loop=name, error=fault(error))
                await asyncio.sleep(FAULT_PAUSE_SECONDS)

    def _start(self, message: Claimed) -> None:
        if message.fault is not None:
            self._end(message, Answer(0, (), b"", error=message.fault, fate="not sent"))
        else:
            self._hold(message, self._call(message))

    def _end(self, message: Claimed, answer: Answer) -> None:
        """Fail what is not to be called (again)."""
        self._hold(message, self._writer.put(ending_of(message, answer, datetime.now(UTC), final=True)))

    def _hold(self, message: Claimed, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._calls[message.id] = task
        self._memory.calls.hold(message.id, CALL_BYTES + len(message.body))
        message_id = message.id  # the callback must not hold the body
        task.add_done_callback(lambda _: self._ended(message_id))

    def _ended(self, message_id: str) -> None:
        self._calls.pop(message_id, None)
        self._memory.calls.give(message_id)
        self._memory.answers.give(message_id)

    async def _call(self, message: Claimed) -> None:
        started = time.monotonic()
        answer = await self._courier.deliver(message, int(time.time()))
        if answer.fate == "unknown":
            self._metrics.unknown.inc()
        self._metrics.seconds.observe(time.monotonic() - started)
        await self._writer.put(self._ending(message, answer))

    def _ending(self, message: Claimed, answer: Answer) -> Ending:
        try:
            return ending_of(message, answer, datetime.now(UTC))
        except Exception as error:  # noqa: BLE001  whatever our fault is, a message must not stay under way for ever
            self._log.error("answer_unjudged", error=fault(error), message_id=message.id)
            return unjudged(message, answer, datetime.now(UTC))
