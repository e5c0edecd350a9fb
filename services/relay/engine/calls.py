"""The calls that this process holds, by their claims. Any other claim leased to this process is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from services.relay.memory.memory import CALL_BYTES, Memory
from services.relay.message import Claim


class Call:
    """One held claim. `sent`: its request may have left the process. `settled`: its ending is with the writer."""

    __slots__ = ("_lapsed", "claim", "sent", "settled", "task")

    def __init__(self, claim: Claim, lapsed: Callable[[datetime], bool]) -> None:
        self.claim = claim
        self._lapsed = lapsed
        self.sent = False
        self.settled = False
        self.task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.task is not None and self.task.done()

    def sending(self) -> None:
        """Record that the request may be sent: from now on the outcome is unknown until the destination answers.

        Breaks the call off if the lease has lapsed since the claim, for example during the wait for a connection:
        another process may be calling the message by now. If no process has it, the claim is recovered as a lost one.
        `cancel` would not do: it takes effect only after the first bytes.
        """
        if self._lapsed(self.claim[1]):
            raise asyncio.CancelledError("the relay's lease has lapsed")
        self.sent = True


class _Round:
    """A claim statement in progress: when it began, and the messages that were cancelled since."""

    __slots__ = ("began", "cancelled")

    def __init__(self, began: float) -> None:
        self.began = began
        self.cancelled: set[str] = set()


class Calls:
    """The number of calls is bounded by the claims. A claim is held from the moment its row is read until its task has
    ended, together with the memory for the message and its answer.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        memory: Memory | None = None,
        lapsed: Callable[[datetime], bool] = lambda _: False,
    ) -> None:
        """`lapsed`: whether another process may own a claim of this process by now, by the time of the claim."""
        self._monotonic = monotonic
        self._lapsed = lapsed
        self._memory = memory or Memory()
        self._held: dict[Claim, Call] = {}
        # The newest claim of each message.
        self._newest: dict[str, Call] = {}
        # Sent calls that ended without an ending: cancelled, or lost by a fault in the relay.
        self._orphans: set[Claim] = set()
        self._rounds: set[_Round] = set()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._held

    @property
    def claims(self) -> list[Claim]:
        return list(self._held)

    @property
    def orphans(self) -> frozenset[Claim]:
        return frozenset(self._orphans)

    def forget(self, orphans: Collection[Claim]) -> None:
        """Drop orphans that were recovered, or that no longer belong to this process."""
        self._orphans -= set(orphans)

    @property
    def bytes_left(self) -> int:
        """The memory left for bodies of further calls. Below 0 when more is held than the budget allows."""
        return self._memory.calls.left

    def hold(self, claim: Claim, work: Callable[[Call], Coroutine[Any, Any, None]], *, body_bytes: int = 0) -> None:
        """Start `work` for a claim that was just read. An earlier claim of the same message is lost, and its call is
        broken off. A claim that another process gave back while its call is still in flight here continues unchanged.
        A message that was cancelled while its row was in transit is not called.
        """
        if claim in self._held or any(claim[0] in one.cancelled for one in self._rounds):
            return
        if (earlier := self._newest.get(claim[0])) is not None:
            self.abort_claim(earlier.claim)
        self._held[claim] = self._newest[claim[0]] = call = Call(claim, self._lapsed)
        self._memory.calls.hold(claim, CALL_BYTES + body_bytes)
        call.task = asyncio.create_task(work(call))
        call.task.add_done_callback(partial(self._ended, call))

    def abort(self, message_id: str) -> None:
        """Break off the call of a cancelled message, if this process holds it or its claim is in transit."""
        for one in self._rounds:
            one.cancelled.add(message_id)
        if (call := self._newest.get(message_id)) is not None:
            self.abort_claim(call.claim)

    def abort_claim(self, claim: Claim) -> None:
        """Break off exactly this call, if this process holds it, and not a later one of the same message."""
        call = self._held.get(claim)
        if call is not None and call.task is not None:
            call.task.cancel()

    async def abort_all(self, seconds: float) -> int:
        """Break off all calls and wait at most `seconds` for their ends. Returns how many there were."""
        tasks = [call.task for call in self._held.values() if call.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return len(tasks)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Mark a claim statement as in progress: claims made during the block do not count as lost yet."""
        round_ = _Round(self._monotonic())
        self._rounds.add(round_)
        try:
            yield
        finally:
            self._rounds.discard(round_)

    def claiming_since(self) -> float:
        """The time, by `monotonic`, since when claimed rows may be in transit: the start of the oldest round in
        progress, or now.
        """
        return min((one.began for one in self._rounds), default=self._monotonic())

    def _ended(self, call: Call, _task: asyncio.Task[None]) -> None:
        claim = call.claim
        del self._held[claim]
        self._memory.calls.give(claim)
        self._memory.answers.give(claim)
        if self._newest.get(claim[0]) is call:
            del self._newest[claim[0]]
        if call.sent and not call.settled:
            self._orphans.add(claim)
