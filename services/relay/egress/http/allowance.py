"""How much of an answer's body may be in memory before its reader must take it."""

from __future__ import annotations

from collections.abc import Callable

# Every answer may have this much. Beyond it, memory is requested once. Thousands of answers may begin at the same time,
# and most are smaller than this.
FREE_BYTES_MAX = 16 * 1024


class Allowance:
    """`bytes_max`, if the answer is not expected to exceed it and `grow()` reserves that much."""

    __slots__ = ("_bytes_max", "_grow", "_requested")

    def __init__(self, bytes_max: int, grow: Callable[[], bool] = lambda: True) -> None:
        self._bytes_max = bytes_max
        self._grow = grow
        self._requested = False

    def announced(self, length: bytes) -> None:
        """Note the length that the head declares. A body that must be handed over in any case is handed over with its
        first bytes.
        """
        if length.isdigit() and int(length) > self._bytes_max:
            self._bytes_max = 0

    def exceeded(self, size: int) -> bool:
        """Whether a body of which `size` bytes have arrived must be handed over now."""
        if size > FREE_BYTES_MAX and not self._requested:
            self._requested = True
            if self._bytes_max and not self._grow():
                self._bytes_max = 0
        return size > self._bytes_max
