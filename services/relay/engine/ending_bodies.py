"""The large bodies of endings: stored before an ending is written, and removed once nothing refers to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from structlog.stdlib import BoundLogger

from services.relay.ending import LOGGED_BYTES_MAX, Ending, ending_of
from services.relay.engine.bodies import Bodies, stored_keys
from services.relay.message import Claimed
from services.relay.outcome.outcome import Answer, Failed, Spooled
from services.relay.store.chunks import MissingPieceError
from services.relay.store.faults import is_trouble
from tidings.process.log import fault

# The tries to store a body after errors that are not connection errors: the first may be a passing one.
REFUSALS_MAX = 2
FAULT_PAUSE_SECONDS = 1.0


class EndingBodies:
    """Stores callbacks that are too large for a row, and large answers for their dead letters."""

    def __init__(
        self,
        bodies: Bodies,
        log: BoundLogger,
        *,
        now: Callable[[], datetime],
        pause_seconds: float = FAULT_PAUSE_SECONDS,
    ) -> None:
        """`now` is aware and stamps the log. `pause_seconds` is the time between tries, here and of the writer."""
        self._bodies = bodies
        self._log = log
        self.now = now
        self.pause_seconds = pause_seconds

    async def stored(self, ending: Ending) -> Ending:
        """`ending` with its large bodies stored piece by piece. This waits as long as the database is away. If a body
        is refused, the message ends with a reduced answer.
        """
        refusals = 0
        while True:
            try:
                return await self._store(ending)
            except asyncio.CancelledError:
                # The message no longer belongs to this process, so no ending will release the stored answer.
                self._bodies.discard(ending.stored_keys)
                raise
            except MissingPieceError as error:
                answer = replace(ending.answer, spooled=None, error=str(error), truncated=True)
                final = isinstance(ending.verdict, Failed)
                follow = ending_of(_without_body(ending.message), answer, self.now(), final=final)
                ending = replace(ending, callbacks=follow.callbacks)
            except Exception as error:  # noqa: BLE001
                self._log.error("callback_not_stored", error=fault(error), message_id=ending.message.id)
                refusals += not is_trouble(error)
                if refusals >= REFUSALS_MAX:
                    spooled = ending.answer.spooled
                    return replace(reduced(ending, self.now()), unused_keys=() if spooled is None else (spooled.key,))
                await asyncio.sleep(self.pause_seconds)

    async def _store(self, ending: Ending) -> Ending:
        callbacks = await self._bodies.compose_all(ending.callbacks)
        try:
            return replace(ending, callbacks=callbacks, answer=await self._kept(ending))
        except BaseException:
            self._bodies.discard(stored_keys(callbacks))
            raise

    async def _kept(self, ending: Ending) -> Answer:
        """The part of the answer that is still needed. A dead letter needs all of it, stored when it is large."""
        answer = ending.answer
        if isinstance(ending.verdict, Failed) and not ending.burying:
            return answer
        shown = replace(answer, body=answer.body[:LOGGED_BYTES_MAX])
        if not ending.burying:
            return shown
        stored = await self._bodies.store(answer.body)
        return replace(shown, spooled=Spooled(stored.key, stored.size, stored.size))

    async def release(self, endings: Sequence[Ending]) -> None:
        """Remove large bodies that nothing refers to after these endings. The janitor removes those
        that this misses.
        """
        if keys := [key for ending in endings for key in ending.stored_keys]:
            try:
                await self._bodies.release(*keys)
            except Exception as error:  # noqa: BLE001  the endings are committed already
                self._log.error("release_failed", error=fault(error), count=len(keys))


def reduced(ending: Ending, now: datetime) -> Ending:
    """A reduced form of an ending that the database refuses, in which nothing needs to be stored. If the message's body
    makes a callback too large for its row, the body is left out. If the rest does, the callbacks are left out.
    """
    answer = Answer(ending.answer.status, (), b"", error="the answer could not be stored")
    found = ending_of(ending.message, answer, now, final=True)
    if found.composing:
        found = ending_of(_without_body(ending.message), answer, now, final=True)
    return replace(found, callbacks=()) if found.composing else found


def _without_body(message: Claimed) -> Claimed:
    return replace(message, body=b"", body_key=None, body_size=0)
