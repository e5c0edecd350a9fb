"""Writes the ends of attempts in batches, and keeps at it: an answer that is not written yet exists only here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from structlog.stdlib import BoundLogger

from services.relay.bodies import Bodies
from services.relay.ending import LOGGED_BYTES_MAX, Ending, ending_of
from services.relay.memory import Memory, Share
from services.relay.metrics import RelayMetrics
from services.relay.store.chunks import MissingPieceError
from services.relay.store.messages import Messages, UnstorableError
from services.relay.wire.outcome import Answer, Failed, Retry, Spooled, state_of
from tidings.log import fault

# One transaction for so many at the most.
FINISH_MAX = 500
FINISH_BYTES_MAX = 16 * 1024 * 1024
# Answers that wait to be written. Past this the database is what is slow, and claiming more would only fill memory.
UNWRITTEN_MAX = 5_000
FAULT_PAUSE_SECONDS = 1.0


class EndingWriter:
    """`put` an ending; `run_once` writes all that are there. `wake` is told in how many seconds something may be due."""

    def __init__(
        self,
        messages: Messages,
        bodies: Bodies,
        metrics: RelayMetrics,
        log: BoundLogger,
        *,
        wake: Callable[[float], None],
        held: Share | None = None,
    ) -> None:
        """`held`: the room for answers in memory."""
        self._messages = messages
        self._bodies = bodies
        self._metrics = metrics
        self._log = log
        self._wake = wake
        # Bounded by the calls in flight: each puts one in, and counts as in flight until it is written.
        self._endings: asyncio.Queue[Ending] = asyncio.Queue()
        self._unwritten: set[str] = set()
        self._held = held or Memory().answers

    @property
    def unwritten(self) -> int:
        return len(self._unwritten)

    @property
    def full(self) -> bool:
        """No further call should begin before some of this is written."""
        return len(self._unwritten) >= UNWRITTEN_MAX or self._held.crowded

    async def put(self, ending: Ending) -> None:
        """Take an ending. Large bodies in it are stored first, piece by piece."""
        self._held.hold((ending.message.id, "ending"), _size_bytes(ending))
        if ending.composing:
            try:
                ending = await self._composed(ending)
            except BaseException:
                self._held.give((ending.message.id, "ending"))
                raise
            self._held.hold((ending.message.id, "ending"), _size_bytes(ending))
        self._unwritten.add(ending.message.id)
        self._endings.put_nowait(ending)

    async def run_once(self) -> int:
        """Wait for an ending, and write it with the others that are there; how many."""
        endings = await self._batch()
        await self._write(endings)
        await self._release(endings)
        for ending in endings:
            self._unwritten.discard(ending.message.id)
            self._held.give((ending.message.id, "ending"))
            self._metrics.attempts.labels(state_of(ending.verdict)).inc()
            if isinstance(ending.verdict, Retry):
                self._wake(ending.verdict.delay_seconds)
        # Callbacks, or what waited for a limit or for its queue, may be claimable now.
        self._wake(0.0)
        return len(endings)

    async def _batch(self) -> list[Ending]:
        endings = [await self._endings.get()]
        size = _size_bytes(endings[0])
        while len(endings) < FINISH_MAX and size < FINISH_BYTES_MAX and not self._endings.empty():
            endings.append(self._endings.get_nowait())
            size += _size_bytes(endings[-1])
        return endings

    async def _write(self, endings: list[Ending]) -> None:
        left = list(endings)
        try:
            while left:
                await self._write_some(left)
        except asyncio.CancelledError:
            # The drain goes on with them. Should they be committed already, a second time changes nothing.
            for ending in left:
                self._endings.put_nowait(ending)
            raise

    async def _write_some(self, left: list[Ending]) -> None:
        """Write all of `left`, or one by one when one of them is at fault; what is written is taken out."""
        try:
            await self._messages.finish(left)
        except UnstorableError:
            while left:
                await self._repeated(lambda: self._write_one(left[0]))
                del left[0]
        except Exception as error:  # noqa: BLE001  try until the database is back
            self._log.error("finish_failed", error=fault(error), count=len(left))
            await asyncio.sleep(FAULT_PAUSE_SECONDS)
        else:
            left.clear()

    async def _write_one(self, ending: Ending) -> None:
        try:
            await self._messages.finish([ending])
        except UnstorableError as error:
            self._log.error("answer_unstorable", error=fault(error), message_id=ending.message.id)
            answer = Answer(ending.answer.status, (), b"", error="the answer could not be stored")
            failed = ending_of(ending.message, answer, datetime.now(UTC), final=True)
            await self._messages.finish([await self._composed(failed) if failed.composing else failed])

    async def _repeated(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001  try until the database is back
                self._log.error("finish_failed", error=fault(error), count=1)
                await asyncio.sleep(FAULT_PAUSE_SECONDS)
            else:
                return

    async def _composed(self, ending: Ending) -> Ending:
        """With large bodies stored. As long as the database is away, so long this waits."""
        while True:
            try:
                callbacks = [await self._bodies.compose(draft) for draft in ending.callbacks]
                return replace(ending, callbacks=callbacks, answer=await self._kept(ending))
            except MissingPieceError as error:
                answer = replace(ending.answer, spooled=None, error=str(error), truncated=True)
                bare = replace(ending.message, body_key=None, body_size=0)
                follow = ending_of(bare, answer, datetime.now(UTC), final=isinstance(ending.verdict, Failed))
                ending = replace(ending, callbacks=follow.callbacks)
            except Exception as error:  # noqa: BLE001
                self._log.error("callback_unwritten", error=fault(error), message_id=ending.message.id)
                await asyncio.sleep(FAULT_PAUSE_SECONDS)

    async def _kept(self, ending: Ending) -> Answer:
        """As much of the answer as is still needed: all of it goes into a dead letter, but is stored when it is large."""
        answer = ending.answer
        if isinstance(ending.verdict, Failed) and not ending.burying:
            return answer
        shown = replace(answer, body=answer.body[:LOGGED_BYTES_MAX])
        if not ending.burying:
            return shown
        stored = await self._bodies.store(answer.body)
        return replace(shown, spooled=Spooled(stored.key, stored.size, stored.size))

    async def _release(self, endings: list[Ending]) -> None:
        """Remove the large bodies that these were the last to need; those that this misses the janitor finds."""
        if keys := [key for ending in endings for key in ending.stored_keys]:
            try:
                await self._bodies.release(*keys)
            except Exception as error:  # noqa: BLE001  the endings are committed, which is what counts
                self._log.error("release_failed", error=fault(error), count=len(keys))


def _size_bytes(ending: Ending) -> int:
    bodies = sum(draft.inline_bytes for draft in ending.callbacks)
    return len(ending.message.body) + len(ending.answer.body) + bodies
