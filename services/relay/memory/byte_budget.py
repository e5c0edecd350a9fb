"""A byte budget for one use of memory: which requests get bytes, which wait, and which are refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from services.relay.memory.places import PART

# How long a request waits for others to end. Its client has a timeout of its own, usually 30 s or more.
WAIT_SECONDS = 10.0
# The limit on waiting requests. A request behind this many would hardly be served in time.
WAITING_MAX = 1000


class NoRoomError(Exception):
    """No memory became free within the wait: 503, retry later."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    key: Hashable
    size: int
    name: str
    granted: asyncio.Future[None]


class ByteBudget:
    """`bytes_max` bytes for one use. Each part held has a key, and may have a name: a token, or a destination.

    One name gets at most half, or, with `fair`, a quarter of what remains for it, so that a few names cannot take all.
    Waiting requests are served in order. The order skips those whose name has its part, and those larger than the whole
    share: such a request is admitted only when it is alone, as it would otherwise never be. At most `waiting_max`
    requests may wait, and one name may use a quarter of the free waiting places. With `first_grows` the oldest holder
    gets more bytes at once, as two growing holders would otherwise deadlock.
    """

    def __init__(
        self, bytes_max: int, *, waiting_max: int = WAITING_MAX, fair: bool = False, first_grows: bool = False
    ) -> None:
        self._bytes_max = bytes_max
        self._waiting_max = waiting_max
        self._fair = fair
        self._first_grows = first_grows
        # How often a part was released.
        self.given = 0
        self._used = 0
        self._taken = 0  # the part of _used that has a name
        # `_held` starts with the oldest holder, and `_waiting` with the longest wait. A key waits once at a time.
        self._held: dict[Hashable, tuple[int, str]] = {}
        self._of_name: dict[str, int] = {}
        self._waiting: dict[Hashable, _Waiting] = {}
        self._waiting_of: Counter[str] = Counter()

    @property
    def left(self) -> int:
        """The bytes left. Below 0 when more is held than the budget allows."""
        return self._bytes_max - self._used

    @property
    def crowded(self) -> bool:
        """Whether parts that were counted without a wait have half of the budget. Parts taken after a wait, and waiting
        requests, do not count: destinations can keep those up for as long as they like.
        """
        return 2 * (self._used - self._taken) >= self._bytes_max

    def hold(self, key: Hashable, size: int, name: str = "") -> None:
        """Count bytes that are in memory already or must be. A second call for a key replaces its size."""
        if name or key in self._held:
            self._count(key, size, name)
        else:
            # This runs twice for each call.
            self._held[key] = (size, "")
            self._used += size
        if self._waiting:
            self._serve()

    def _count(self, key: Hashable, size: int, name: str) -> None:
        if (found := self._held.get(key)) is not None:
            self._uncount(*found)
        self._held[key] = (size, name)
        self._used += size
        if name:
            self._taken += size
            self._of_name[name] = self._of_name.get(name, 0) + size

    def grow(self, key: Hashable, size: int) -> bool:
        """Hold `size` more bytes for a key that holds some, if they are available at once."""
        found = self._held.get(key)
        if found is None or size > self.left:
            return False
        self._count(key, found[0] + size, found[1])
        return True

    def give(self, key: Hashable) -> None:
        """Give back what a key holds. No effect when it holds nothing."""
        if (found := self._held.pop(key, None)) is None:
            return
        self.given += 1
        if found[1]:
            self._uncount(*found)
        else:
            self._used -= found[0]
        if self._waiting:
            self._serve()

    async def take(self, key: Hashable, size: int, name: str, seconds: float = WAIT_SECONDS) -> None:
        """Hold `size` bytes, waiting up to `seconds` for them. For a key that holds some already, `size` is the new
        total, and the old part stays held during the wait. Raises `NoRoomError`.
        """
        if not self._waiting and self._fits(key, size, name):
            self._count(key, size, name)
            return
        self._admit(name)
        waiting = _Waiting(key, size, name, asyncio.get_running_loop().create_future())
        self._waiting[key] = waiting
        self._waiting_of[name] += 1
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await waiting.granted
        except BaseException as error:
            self._withdraw(waiting)
            if isinstance(error, TimeoutError):
                raise NoRoomError from None
            raise

    def _admit(self, name: str) -> None:
        may_wait = self._waiting_max - len(self._waiting)
        if may_wait <= 0 or (name and self._waiting_of[name] * PART >= may_wait):
            raise NoRoomError

    def _withdraw(self, waiting: _Waiting) -> None:
        if waiting.key in self._waiting:
            self._leave(waiting)
            self._serve()
        else:
            self.give(waiting.key)

    def _leave(self, waiting: _Waiting) -> None:
        del self._waiting[waiting.key]
        self._waiting_of[waiting.name] -= 1
        if not self._waiting_of[waiting.name]:
            del self._waiting_of[waiting.name]

    def _serve(self) -> None:
        """Admit the waiting requests that fit now: in order within each name, and none past one that only lacks free
        bytes.
        """
        if self._first_grows and (first := self._waiting.get(next(iter(self._held), None))) is not None:
            self._let_in(first)
        for waiting in list(self._waiting.values()):
            if waiting.granted.done() or self._fits(waiting.key, waiting.size, waiting.name):
                self._let_in(waiting)
            elif waiting.size <= self._bytes_max and not self._has_its_part(waiting.key, waiting.size, waiting.name):
                break

    def _let_in(self, waiting: _Waiting) -> None:
        self._leave(waiting)
        if not waiting.granted.done():  # cancelled at this moment
            self._count(waiting.key, waiting.size, waiting.name)
            waiting.granted.set_result(None)

    def _fits(self, key: Hashable, size: int, name: str) -> bool:
        own = self._own(key)
        if own and self._first_grows and key == next(iter(self._held)):
            return True
        return (self._used == own or size - own <= self.left) and not self._has_its_part(key, size, name)

    def _has_its_part(self, key: Hashable, size: int, name: str) -> bool:
        own = self._own(key)
        others = self._of_name.get(name, 0) - own
        most = (self.left + own - size) // PART if self._fair else self._bytes_max // 2 - size
        return others > 0 and others > most

    def _own(self, key: Hashable) -> int:
        return self._held.get(key, (0, ""))[0]

    def _uncount(self, size: int, name: str) -> None:
        self._used -= size
        if name:
            self._taken -= size
            left = self._of_name[name] - size
            if left:
                self._of_name[name] = left
            else:
                del self._of_name[name]
