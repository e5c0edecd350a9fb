"""How the loop that claims is told that something may be due, by those who know."""

from __future__ import annotations

import asyncio

# What is due later than this the claiming loop finds by itself, as it looks for the next due message.
AHEAD_SECONDS_MAX = 60.0


class Waking:
    """`wake` from anywhere on the event loop; one loop waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self, delay_seconds: float = 0.0) -> None:
        """Something is due now, or in `delay_seconds`."""
        if delay_seconds <= 0:
            self._event.set()
        elif delay_seconds < AHEAD_SECONDS_MAX:
            asyncio.get_running_loop().call_later(delay_seconds, self._event.set)

    def clear(self) -> None:
        """From now on a wake counts for the next `wait`."""
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until woken, for so long at the most."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
