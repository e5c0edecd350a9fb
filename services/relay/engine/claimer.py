"""Claims due messages in batches and starts their attempts on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.relay.engine.attempt_runner import AttemptRunner
from services.relay.engine.calls import Call, Calls
from services.relay.engine.capacity import Capacity
from services.relay.engine.wakeup import Wakeup
from services.relay.message import Claimed
from services.relay.outcome.outcome import Answer
from services.relay.store.messages import Messages

# The poll interval. It finds messages accepted by other processes, and retries. Messages of this process wake the
# claimer at once.
IDLE_SECONDS = 0.5
# During an upgrade: a process of the newer version is running, or will be.
_NEWER = Answer(
    0, (), b"", error="the message has an option of a newer version", fate="not attempted", later_seconds=30.0
)


class Claimer:
    """`round` is the step of the claiming loop. After `stop` no call starts, also not for messages already claimed."""

    def __init__(
        self, messages: Messages, runner: AttemptRunner, calls: Calls, capacity: Capacity, wakeup: Wakeup
    ) -> None:
        self._messages = messages
        self._runner = runner
        self._calls = calls
        self._capacity = capacity
        self._wakeup = wakeup
        self._keyed_first = False
        self._stopped = False

    def stop(self) -> None:
        """Start no further call. A claim statement in progress is not cancelled, as it may be committed. `Recovery`
        gives its messages back.
        """
        self._stopped = True
        self._wakeup.wake()

    async def round(self) -> None:
        """Claim due messages while there is capacity. If none is claimed, wait a little."""
        self._wakeup.clear()
        if await self.claim_once() == 0:
            await self._idle()
        elif self._left() <= 0:
            # Let the calls that just started proceed, instead of sending an empty query.
            await asyncio.sleep(0.002)

    @property
    def stuck(self) -> bool:
        """Nothing can be claimed, and no call is in flight whose end would free capacity."""
        return self._left() <= 0 and len(self._calls) == 0 and not self._stopped

    async def claim_once(self) -> int:
        """Claim a batch and start its calls. Returns how many. Messages with and without a flow key alternate in going
        first, so that a long queue of one kind does not starve the other.
        """
        self._keyed_first = not self._keyed_first
        claims = (self._messages.claim_keyed, self._messages.claim)
        capacity = left = self._left()
        for claim in claims if self._keyed_first else reversed(claims):
            left -= await self._claim(claim, left) if left > 0 else 0
        return max(0, capacity) - max(0, left)

    async def _claim(self, claim: Callable[[int, int], Awaitable[list[Claimed]]], batch_max: int) -> int:
        with self._calls.claiming():
            claimed = await claim(batch_max, self._calls.bytes_left)
            if not self._stopped:
                for message in claimed:
                    self._start(message)
        return len(claimed)

    def _left(self) -> int:
        """How many more calls may start now."""
        return 0 if self._stopped else self._capacity.left()

    def wake(self) -> None:
        """Messages may have become claimable."""
        self._wakeup.wake()

    async def _idle(self) -> None:
        if self._left() <= 0:
            pause = 0.005
        else:
            due = await self._messages.next_due_seconds()
            pause = IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(due, 0.005))
        await self._wakeup.wait(pause)

    def _start(self, message: Claimed) -> None:
        if message.fault is not None:
            self.fail(message, Answer(0, (), b"", error=message.fault, fate="not sent"))
        elif message.newer:
            self._hold(message, lambda call: self._runner.settle(message, _NEWER, call, final=False))
        else:
            self._hold(message, lambda call: self._runner.call(message, call))

    def fail(self, message: Claimed, answer: Answer) -> None:
        """Fail a message that must not be called, or not again."""
        self._hold(message, lambda call: self._runner.settle(message, answer, call, final=True))

    def _hold(self, message: Claimed, work: Callable[[Call], Coroutine[Any, Any, None]]) -> None:
        self._calls.hold(message.claim, work, body_bytes=len(message.body) + message.sealed_bytes)
