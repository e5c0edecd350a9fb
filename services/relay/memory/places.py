"""Places for transfers that may stall. They are shared so that no origin or token, and no small group of them, can take
all.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

# A key gets another place while it has less than a quarter of the free ones: a single key gets a fifth of all, five
# stalled keys have half of all, and a new key finds a place until there are nearly as many such keys as places.
PART = 4


class NoPlaceError(Exception):
    """No place became free in time, or too many requests wait for one already."""


class Place:
    """One place, held until `release`, which may be called again."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


class Places:
    """`places` in total, and `waiting_max` waiting requests, which are shared in the same way. Within a key the
    requests are served in order.
    """

    def __init__(self, places: int, waiting_max: int) -> None:
        self._free = places
        self._may_wait = waiting_max
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def ready(self, key: str) -> bool:
        """Whether a place is available at once."""
        return key not in self._waiting and self._allowed(key)

    @asynccontextmanager
    async def place(self, key: str, seconds: float | None) -> AsyncIterator[None]:
        """Hold a place during the block. Raises `NoPlaceError`."""
        place = await self.take(key, seconds)
        try:
            yield
        finally:
            place.release()

    async def take(self, key: str, seconds: float | None) -> Place:
        """Take a place, which must be released. Raises `NoPlaceError` after `seconds` at the latest. None: the caller
        has a limit.
        """
        if self.ready(key):
            self._grant(key)
        else:
            await self._wait(key, seconds)
        return Place(lambda: self._give_back(key))

    async def _wait(self, key: str, seconds: float | None) -> None:
        if len(self._waiting.get(key, ())) * PART >= self._may_wait:
            raise NoPlaceError("too many transfers wait already")
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(granted)
        self._may_wait -= 1
        try:
            async with asyncio.timeout(seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self._give_back(key)
            else:
                self._forget(key, granted)
            if isinstance(error, TimeoutError):
                raise NoPlaceError(f"too many transfers are in progress: none ended within {seconds:g} s") from None
            raise
        finally:
            self._may_wait += 1

    def _allowed(self, key: str) -> bool:
        return self._held[key] * PART < self._free

    def _grant(self, key: str) -> None:
        self._held[key] += 1
        self._free -= 1

    def _give_back(self, key: str) -> None:
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        # The keys take turns. Keys that were not served come first.
        for waiting in list(self._waiting):
            while self._allowed(waiting) and self._serve(waiting):
                pass

    def _serve(self, key: str) -> bool:
        """Serve the first waiting request of `key`. Returns whether there was one."""
        waiting = self._waiting.get(key, deque())
        while waiting:
            granted = waiting.popleft()
            if not granted.done():
                self._grant(key)
                granted.set_result(None)
                self._tidy(key)
                return True
        self._tidy(key)
        return False

    def _forget(self, key: str, granted: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key, deque())
        if granted in waiting:
            waiting.remove(granted)
        self._tidy(key)

    def _tidy(self, key: str) -> None:
        if not self._waiting.get(key):
            self._waiting.pop(key, None)
        else:
            self._waiting.move_to_end(key)
