"""The heart: claims due messages in batches, holds their calls on one event loop, writes their ends in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from structlog.stdlib import BoundLogger

from services.relay.bodies import Bodies
from services.relay.courier import Courier
from services.relay.ending import Ending, ending_of, unjudged
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store.chunks import MissingPieceError
from services.relay.store.messages import Messages, UnstorableError
from services.relay.store.processes import Processes
from services.relay.wire.outcome import Answer, Failed, Retry, state_of

# One round trip for so many: larger ones gain little, and one transaction must not hold many large bodies.
CLAIM_MAX = 250
FINISH_MAX = 500
# Calls that still look for a connection. With more of them at once a fast destination gets new connections instead of
# those that others just gave back, and each costs more than the call.
OPENING_MAX = 300
# Answers that wait to be written. Past this the database is what is slow, and claiming more would only fill memory.
UNWRITTEN_MAX = 5_000
UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024
# A message published by this process wakes the pump at once; this is for what the others left, and for retries.
IDLE_SECONDS = 0.5
# Within this a call whose message was cancelled by another process is broken off.
CANCEL_CHECK_SECONDS = 0.5
FAULT_PAUSE_SECONDS = 1.0
# Counting a long queue takes the database a while, and nobody scrapes more often.
GAUGE_SECONDS = 10.0


class Pump:
    """`run` until cancelled; `claim_once`, `finish_once` and `sweep_once` are its steps."""

    def __init__(
        self,
        messages: Messages,
        processes: Processes,
        courier: Courier,
        bodies: Bodies,
        settings: RelaySettings,
        metrics: RelayMetrics,
        log: BoundLogger,
    ) -> None:
        self._messages = messages
        self._processes = processes
        self._courier = courier
        self._bodies = bodies
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._calls: dict[str, asyncio.Task[None]] = {}
        # Bounded by the calls in flight: a call puts one in, and counts as in flight until it is written.
        self._endings: asyncio.Queue[Ending] = asyncio.Queue()
        self._unwritten: dict[str, int] = {}
        self._unwritten_bytes = 0
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
        room = self._room()
        claimed = await self._messages.claim(room) if room > 0 else []
        for message in claimed:
            self._start(message)
        room -= len(claimed)
        keyed = await self._messages.claim_keyed(room) if room > 0 else []
        for message in keyed:
            self._start(message)
        return len(claimed) + len(keyed)

    async def finish_once(self) -> int:
        """Wait for an ending, and write it with the others that are there; how many."""
        endings = await self._batch()
        await self._write(endings)
        await self._release(endings)
        for ending in endings:
            self._unwritten_bytes -= self._unwritten.pop(ending.message.id, 0)
            self._metrics.attempts.labels(state_of(ending.verdict)).inc()
            if isinstance(ending.verdict, Retry):
                self.wake(ending.verdict.delay_seconds)
        # Callbacks, or what waited for a limit or for its queue, may be claimable now.
        self.wake()
        return len(endings)

    async def sweep_once(self) -> int:
        """Take back what dead processes held; how many."""
        expired = await self._messages.expire(CLAIM_MAX)
        failed = await self._messages.take_over(CLAIM_MAX)
        for message in failed:
            self._end(
                message,
                Answer(0, (), b"", error="fate unknown: the relay died during the call", fate="unknown"),
                final=True,
            )
        if expired or failed:
            self._metrics.expiries.inc(expired + len(failed))
            self._metrics.unknown.inc(expired + len(failed))
            self._log.warning("lease_expired", retried=expired, failed=len(failed))
            self.wake()
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
        while (self._calls or self._unwritten) and time.monotonic() < deadline:  # noqa: ASYNC110  once, at the end
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
        if len(self._unwritten) >= UNWRITTEN_MAX or self._unwritten_bytes >= UNWRITTEN_BYTES_MAX:
            return 0
        held = len(self._calls) + len(self._unwritten)
        return min(CLAIM_MAX, OPENING_MAX - self._courier.opening, self._settings.concurrency_max - held)

    async def _batch(self) -> list[Ending]:
        endings = [await self._endings.get()]
        size = len(endings[0].answer.body)
        while len(endings) < FINISH_MAX and size < self._settings.body_bytes_max and not self._endings.empty():
            endings.append(self._endings.get_nowait())
            size += len(endings[-1].answer.body)
        return endings

    async def _write(self, endings: list[Ending]) -> None:
        while True:
            try:
                await self._messages.finish(endings)
            except asyncio.CancelledError:
                # The drain goes on with them. Should they be committed already, a second time changes nothing.
                for ending in endings:
                    self._endings.put_nowait(ending)
                raise
            except UnstorableError as error:
                if len(endings) > 1:
                    # One of them is at fault; the others must not wait for it.
                    for ending in endings:
                        await self._write([ending])
                    return
                self._log.error("answer_unstorable", error=_short(error), message_id=endings[0].message.id)
                answer = Answer(endings[0].answer.status, (), b"", error="the answer could not be stored")
                endings = [ending_of(endings[0].message, answer, datetime.now(UTC), final=True)]
            except Exception as error:  # noqa: BLE001  the answers exist only here: try until the database is back
                self._log.error("finish_failed", error=_short(error), count=len(endings))
                await asyncio.sleep(FAULT_PAUSE_SECONDS)
            else:
                return

    async def _release(self, endings: list[Ending]) -> None:
        """Remove the large bodies that these were the last to need; those that this misses the janitor finds."""
        if keys := [key for ending in endings for key in ending.stored_keys]:
            try:
                await self._bodies.release(*keys)
            except Exception as error:  # noqa: BLE001  the endings are committed, which is what counts
                self._log.error("release_failed", error=_short(error), count=len(keys))

    async def _claim_loop(self) -> None:
        while True:
            self._wake.clear()
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
        try:
            await asyncio.wait_for(self._wake.wait(), pause)
        except TimeoutError:
            return

    async def _finish_loop(self) -> None:
        while True:
            await self.finish_once()

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
                self._log.error("loop_failed", loop=name, error=_short(error))
                await asyncio.sleep(FAULT_PAUSE_SECONDS)

    def _start(self, message: Claimed) -> None:
        if message.fault is not None:
            self._end(message, Answer(0, (), b"", error=message.fault, fate="not sent"), final=True)
            return
        task = asyncio.create_task(self._call(message))
        self._calls[message.id] = task
        task.add_done_callback(lambda _: self._calls.pop(message.id, None))

    async def _call(self, message: Claimed) -> None:
        started = time.monotonic()
        answer = await self._courier.deliver(message, int(time.time()))
        if answer.fate == "unknown":
            self._metrics.unknown.inc()
        self._metrics.seconds.observe(time.monotonic() - started)
        ending = self._ending(message, answer)
        self._put(await self._composed(ending) if ending.composing else ending)

    def _ending(self, message: Claimed, answer: Answer) -> Ending:
        try:
            return ending_of(message, answer, datetime.now(UTC))
        except Exception as error:  # noqa: BLE001  whatever our fault is, a message must not stay under way for ever
            self._log.error("answer_unjudged", error=_short(error), message_id=message.id)
            return unjudged(message, answer, datetime.now(UTC))

    def _end(self, message: Claimed, answer: Answer, *, final: bool = False) -> None:
        """The end of what was never called, and so has no large answer; `sourceBody` may be large all the same."""
        ending = ending_of(message, answer, datetime.now(UTC), final=final)
        if not ending.composing:
            self._put(ending)
            return
        task = asyncio.create_task(self._compose_late(ending))
        self._calls[message.id] = task
        task.add_done_callback(lambda _: self._calls.pop(message.id, None))

    async def _compose_late(self, ending: Ending) -> None:
        self._put(await self._composed(ending))

    def _put(self, ending: Ending) -> None:
        size = len(ending.answer.body) + sum(len(draft.body) for draft in ending.callbacks)
        self._unwritten_bytes += size - self._unwritten.get(ending.message.id, 0)
        self._unwritten[ending.message.id] = size
        self._endings.put_nowait(ending)

    async def _composed(self, ending: Ending) -> Ending:
        """With large callbacks stored. As long as the database is away, so long this waits: the answer exists only here."""
        while True:
            try:
                return replace(ending, callbacks=[await self._bodies.compose(draft) for draft in ending.callbacks])
            except MissingPieceError as error:
                answer = replace(ending.answer, spooled=None, error=str(error), truncated=True)
                bare = replace(ending.message, body_key=None, body_size=0)
                follow = ending_of(bare, answer, datetime.now(UTC), final=isinstance(ending.verdict, Failed))
                return replace(ending, callbacks=follow.callbacks)
            except Exception as error:  # noqa: BLE001
                self._log.error("callback_unwritten", error=_short(error), message_id=ending.message.id)
                await asyncio.sleep(FAULT_PAUSE_SECONDS)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
