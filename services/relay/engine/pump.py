"""Claims due messages in batches and runs their calls on one event loop. `ending_writer` writes the endings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from structlog.stdlib import BoundLogger

from services.relay.ending import Ending, ending_of, unjudged
from services.relay.engine.calls import Call, Calls
from services.relay.engine.courier import Courier
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.ending_writer import EndingWriter
from services.relay.engine.waking import Waking
from services.relay.memory.memory import CALL_BYTES
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.outcome.outcome import Answer
from services.relay.settings import RelaySettings
from services.relay.store.messages import Messages
from tidings.process.log import fault

# The most messages of one round trip. Larger batches gain little.
CLAIM_MAX = 250
# The limit on calls that will have a connection soon. Beyond it, calls to a fast destination open new connections
# instead of reusing those just given back, and opening costs more than the call. For slow destinations see
# `egress/http/opening.py`.
OPENING_MAX = 300
# The poll interval. It finds messages accepted by other processes, and retries. Messages of this process wake the pump
# at once.
IDLE_SECONDS = 0.5

# Receives an attempt, and a function that says whether it has ended by the time of the call.
Begun = Callable[[Claimed, Callable[[], bool]], None]
# During an upgrade: a process of the newer version is running, or will be.
_NEWER = Answer(
    0, (), b"", error="the message has an option of a newer version", fate="not attempted", later_seconds=30.0
)


class Pump:
    """`round` is the step of the claiming loop. After `stop` no call starts, also not for messages already claimed."""

    def __init__(
        self,
        messages: Messages,
        courier: Courier,
        writer: EndingWriter,
        calls: Calls,
        clock: DatabaseClock,
        settings: RelaySettings,
        metrics: RelayMetrics,
        log: BoundLogger,
        *,
        waking: Waking,
        begun: Begun,
    ) -> None:
        """`begun` receives the attempts whose messages ask for a start notice. It must neither wait nor raise."""
        self._messages = messages
        self._courier = courier
        self._writer = writer
        self._calls = calls
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._waking = waking
        self._begun = begun
        self._keyed_first = False
        self._stopped = False
        metrics.in_flight.set_function(lambda: len(calls))

    def stop(self) -> None:
        """Start no further call. A claim statement in progress is not cancelled, as it may be committed. `Leases` gives
        its messages back.
        """
        self._stopped = True
        self._waking.wake()

    async def round(self) -> None:
        """Claim due messages while there is capacity. If none is claimed, wait a little."""
        self._waking.clear()
        if await self.claim_once() == 0:
            await self._idle()
        elif self._room() <= 0:
            # Let the calls that just started proceed, instead of sending an empty query.
            await asyncio.sleep(0.002)

    @property
    def stuck(self) -> bool:
        """Nothing can be claimed, and no call is in flight whose end would free capacity."""
        return self._room() <= 0 and len(self._calls) == 0 and not self._stopped

    async def claim_once(self) -> int:
        """Claim a batch and start its calls. Returns how many. Messages with and without a flow key alternate in going
        first, so that a long queue of one kind does not starve the other.
        """
        self._keyed_first = not self._keyed_first
        claims = (self._messages.claim_keyed, self._messages.claim)
        room = left = self._room()
        for claim in claims if self._keyed_first else reversed(claims):
            left -= await self._claim(claim, left) if left > 0 else 0
        return max(0, room) - max(0, left)

    async def _claim(self, claim: Callable[[int, int], Awaitable[list[Claimed]]], batch_max: int) -> int:
        with self._calls.claiming():
            claimed = await claim(batch_max, self._calls.bytes_left)
            if not self._stopped:
                for message in claimed:
                    self._start(message)
        return len(claimed)

    def _room(self) -> int:
        """How many more calls may start now."""
        if self._writer.full or self._stopped:
            return 0
        # Endings that the database refuses do not count against the limit, up to the number of places.
        unwritten = self._writer.unwritten - min(self._writer.put_aside, self._settings.concurrency_max)
        held = len(self._calls) + unwritten
        places = self._calls.bytes_left // CALL_BYTES
        return min(CLAIM_MAX, OPENING_MAX - self._courier.opening, self._settings.concurrency_max - held, places)

    async def _idle(self) -> None:
        if self._room() <= 0:
            pause = 0.005
        else:
            due = await self._messages.next_due_seconds()
            pause = IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(due, 0.005))
        await self._waking.wait(pause)

    def _start(self, message: Claimed) -> None:
        if message.fault is not None:
            self.fail(message, Answer(0, (), b"", error=message.fault, fate="not sent"))
        elif message.newer:
            self._hold(message, lambda call: self._settle(message, _NEWER, call, final=False))
        else:
            self._hold(message, lambda call: self._call(message, call))

    def fail(self, message: Claimed, answer: Answer) -> None:
        """Fail a message that must not be called, or not again."""
        self._hold(message, lambda call: self._settle(message, answer, call, final=True))

    def _hold(self, message: Claimed, work: Callable[[Call], Coroutine[Any, Any, None]]) -> None:
        self._calls.hold(message.claim, work, body_bytes=len(message.body) + message.sealed_bytes)

    async def _call(self, message: Claimed, call: Call) -> None:
        started = time.monotonic()
        sending = call.sending if message.options.started_callback is None else partial(self._begin, message, call)
        try:
            answer = await self._courier.deliver(message, int(time.time()), sending=sending)
        except Exception as error:  # noqa: BLE001  no fault of ours may leave a message active for ever
            self._log.error("call_failed", error=fault(error), message_id=message.id)
            answer = Answer(0, (), b"", error="a fault of the relay", fate="unknown" if call.sent else "not sent")
        if answer.fate == "unknown":
            self._metrics.unknown.inc()
        self._metrics.seconds.observe(time.monotonic() - started)
        await self._settle(message, answer, call, final=False)

    def _begin(self, message: Claimed, call: Call) -> None:
        """Run the call. A request that found its connection closed is sent once more, within the same attempt."""
        first = not call.sent
        call.sending()
        if first:
            self._begun(message, lambda: call.over)

    async def _settle(self, message: Claimed, answer: Answer, call: Call, *, final: bool) -> None:
        try:
            await self._writer.put(self._ending(message, answer, final=final))
        except Exception as error:  # noqa: BLE001  as above
            self._log.error("ending_incomplete", error=fault(error), message_id=message.id)
            await self._writer.put(replace(unjudged(message, answer, self._ended_at(message)), callbacks=()))
        call.settled = True

    def _ending(self, message: Claimed, answer: Answer, *, final: bool) -> Ending:
        try:
            return ending_of(message, answer, self._ended_at(message), final=final)
        except Exception as error:  # noqa: BLE001  as above
            self._log.error("answer_unjudged", error=fault(error), message_id=message.id)
            return unjudged(message, answer, self._ended_at(message))

    def _ended_at(self, message: Claimed) -> datetime:
        """The time by the clock that stamped the start, but never before that start: this process knows that clock only
        to within some milliseconds.
        """
        now = self._clock.now()
        return max(message.started_at, now)
