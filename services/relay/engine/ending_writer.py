"""Writes the ends of attempts in batches, and retries until they are written: an unwritten answer exists only here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from services.relay.ending import Ending
from services.relay.engine.ending_bodies import EndingBodies, reduced
from services.relay.memory.byte_budget import ByteBudget
from services.relay.memory.memory import Memory
from services.relay.message import Claim
from services.relay.metrics import RelayMetrics
from services.relay.outcome.outcome import Retry, state_of
from services.relay.store.faults import is_trouble
from services.relay.store.messages import Messages, UnstorableError
from tidings.process.log import fault
from tidings.process.telemetry import Telemetry

# The most endings of one transaction.
FINISH_MAX = 500
FINISH_BYTES_MAX = 16 * 1024 * 1024
# The limit on unwritten endings. Beyond it the database is the bottleneck, and further claims would only fill memory.
UNWRITTEN_MAX = 5_000
# The tries of a batch before its endings are written one by one: after refusals, which are not connection errors, and
# after connection errors, as one ending may break the connection or outlast the statement timeout.
REFUSALS_MAX = 2
CONNECTION_ERRORS_MAX = 5
# With single endings: after this many connection errors in a row the database counts as away.
CONNECTION_ERRORS_SINGLE_MAX = 2
# An ending that cannot be written at all is retried after this many pauses.
ASIDE_PAUSES = 5


class _Unwritten:
    """One unwritten ending: its arrival by the monotonic clock, and the size of its bodies. It is their key in the
    share.
    """

    __slots__ = ("body_bytes", "since")

    def __init__(self, body_bytes: int) -> None:
        self.body_bytes = body_bytes
        self.since = 0.0


class EndingWriter:
    """`put` takes an ending; `run_once` writes all that have arrived. `wake` receives the seconds until a message may
    be due.
    """

    def __init__(
        self,
        messages: Messages,
        bodies: EndingBodies,
        telemetry: Telemetry[RelayMetrics],
        *,
        wake: Callable[[float], None],
        held: ByteBudget | None = None,
    ) -> None:
        """`held` is the share of memory for answers."""
        self._messages = messages
        self._bodies = bodies
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._wake = wake
        self._now = bodies.now
        self._pause_seconds = bodies.pause_seconds
        # Bounded by the calls in flight: each call puts one ending, and counts as in flight until that is written.
        self._endings: asyncio.Queue[Ending] = asyncio.Queue()
        self._unwritten: dict[Claim, _Unwritten] = {}
        self._held = held or Memory().answers
        # Endings refused before. Each is written alone, so that a refusal affects no other.
        self._suspects: set[Claim] = set()

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._unwritten

    @property
    def unwritten(self) -> int:
        return len(self._unwritten)

    @property
    def put_aside(self) -> int:
        """How many of the unwritten endings the database has refused."""
        return len(self._suspects)

    @property
    def claims(self) -> list[Claim]:
        """The claims whose endings are not written yet."""
        return list(self._unwritten)

    def unwritten_since(self) -> float | None:
        """The arrival of the oldest waiting ending, by the monotonic clock. None: no ending waits
        but those put aside.
        """
        return next((one.since for claim, one in self._unwritten.items() if claim not in self._suspects), None)

    @property
    def full(self) -> bool:
        """Whether no further call should start before some endings are written."""
        return len(self._unwritten) >= UNWRITTEN_MAX or self._held.crowded

    async def put(self, ending: Ending) -> None:
        """Take the ending of a claim, once. Large bodies in it are stored first, piece by piece."""
        claim = ending.message.claim
        if claim in self._unwritten:
            return
        one = _Unwritten(ending.body_bytes)
        # This is in addition to the memory held for the claim itself, which is the answer as received.
        self._held.hold(one, one.body_bytes)
        if ending.composing:
            try:
                ending = await self._bodies.stored(ending)
            except BaseException:
                self._held.give(one)
                raise
            one.body_bytes = ending.body_bytes
            self._held.hold(one, one.body_bytes)
        one.since = time.monotonic()
        self._unwritten[claim] = one
        self._endings.put_nowait(ending)

    async def run_once(self) -> int:
        """Wait for an ending, then write all that have arrived. Returns how many."""
        batch = await self._batch()
        left, alone = batch, []
        if self._suspects:
            left = [ending for ending in batch if ending.message.claim not in self._suspects]
            alone = [ending for ending in batch if ending.message.claim in self._suspects]
        count = len(batch)
        try:
            if left and not await self._write_together(left):
                alone += left
                left = []
            await self._write_alone(alone)
        finally:
            # This task was cancelled, or the database is away. If the endings are committed already, a second write
            # changes nothing.
            for ending in (*left, *alone):
                self._endings.put_nowait(ending)
        # Callbacks, and messages that waited for a limit or for their queue, may be claimable now.
        self._wake(0.0)
        return count

    async def _batch(self) -> list[Ending]:
        ending = await self._endings.get()
        endings, size = [ending], self._unwritten[ending.message.claim].body_bytes
        while len(endings) < FINISH_MAX and size < FINISH_BYTES_MAX and not self._endings.empty():
            ending = self._endings.get_nowait()
            endings.append(ending)
            size += self._unwritten[ending.message.claim].body_bytes
        return endings

    async def _write_together(self, left: list[Ending]) -> bool:
        """Write all of `left` in one transaction, and empty it. False: the database probably refuses one of them."""
        refusals = connection_errors = 0
        while refusals < REFUSALS_MAX and connection_errors < CONNECTION_ERRORS_MAX:
            try:
                kept = await self._messages.finish(left)
            except UnstorableError:
                return False
            except Exception as error:  # noqa: BLE001  unwritten answers exist only here
                self._log.error("finish_failed", error=fault(error), count=len(left))
                connection_errors += is_trouble(error)
                refusals += not is_trouble(error)
                await asyncio.sleep(self._pause_seconds)
            else:
                written = list(left)
                left.clear()
                await self._account_for(written, kept)
                return True
        return False

    async def _write_alone(self, left: list[Ending]) -> None:
        """Write each of `left` in its own transaction, and remove it from `left`. A refused ending is written as a dead
        letter with a reduced answer. If the database refuses that too, the ending is put aside for a while, so that the
        others need not wait.
        """
        connection_errors = 0
        while left and connection_errors < CONNECTION_ERRORS_SINGLE_MAX:
            ending = left[0]
            try:
                kept = await self._one(ending)
            except Exception as error:  # noqa: BLE001
                self._log.error("finish_failed", error=fault(error), count=1, message_id=ending.message.id)
                connection_errors = connection_errors + 1 if is_trouble(error) else 0
                self._put_aside(left.pop(0))
            else:
                connection_errors = 0
                left.pop(0)
                # If the ending was written in its reduced form, all bodies stored for it are released.
                await self._account_for([ending], kept)

    async def _one(self, ending: Ending) -> list[Ending]:
        """The endings that were written: this one, or none when the message no longer belonged to this process."""
        try:
            return await self._messages.finish([ending])
        except Exception as error:
            if is_trouble(error):
                raise
            self._log.error("answer_unstorable", error=fault(error), message_id=ending.message.id)
            return await self._messages.finish([reduced(ending, self._now())])

    def _put_aside(self, ending: Ending) -> None:
        self._suspects.add(ending.message.claim)
        asyncio.get_running_loop().call_later(ASIDE_PAUSES * self._pause_seconds, self._endings.put_nowait, ending)

    async def _account_for(self, endings: Sequence[Ending], kept: Sequence[Ending]) -> None:
        """Account for committed endings. `kept` took effect; the other messages no longer belonged to this process."""
        for ending in endings:
            claim = ending.message.claim
            self._suspects.discard(claim)
            if (one := self._unwritten.pop(claim, None)) is not None:
                self._held.give(one)
        for state, count in Counter(state_of(ending.verdict) for ending in kept if not ending.put_off).items():
            self._metrics.attempts.labels(state).inc(count)
        if retries := [ending.verdict for ending in kept if isinstance(ending.verdict, Retry)]:
            self._metrics.put_offs.inc(sum(not retry.counted for retry in retries))
            for seconds in {retry.delay_seconds for retry in retries}:
                self._wake(seconds)
        await self._bodies.release(endings)
