"""The wake-up of the claiming loop: other parts signal that a message may be due."""

from __future__ import annotations

import asyncio

# The claiming loop finds messages that are due later than this by itself, as it queries the next due time.
AHEAD_SECONDS_MAX = 60.0


class Wakeup:
    """`wake` may be called from anywhere on the event loop. One loop waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self, delay_seconds: float = 0.0) -> None:
        """Signal that a message is due now, or in `delay_seconds`."""
        if delay_seconds <= 0:
            self._event.set()
        elif delay_seconds < AHEAD_SECONDS_MAX:
            asyncio.get_running_loop().call_later(delay_seconds, self._event.set)

    def clear(self) -> None:
        """Discard earlier wake-ups: only later ones end the next `wait`."""
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
