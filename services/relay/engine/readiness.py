"""Whether work is being done: the lease holds, claims are asked for, endings are written. No statement is needed.

A relay whose places are all taken by calls is at work, however long nothing ends: calls that take minutes are what it
is for, each has a timeout, and nobody is helped when requests go elsewhere. One that can claim nothing as answers wait
to be stored or written, while none of them is, is not: that is the database's fault, or its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# A claim takes milliseconds and is asked for twice a second; what is older than this is stuck, or fails.
STALE_SECONDS = 10.0


class Readiness:
    """Asked by `/readyz` as often as anybody likes. Times are by `monotonic`."""

    def __init__(
        self,
        lease_seconds: float,
        renewed: Callable[[], float],
        unwritten_since: Callable[[], float | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`renewed`: when the lease was; `unwritten_since`: when the oldest ending that is not written came, if there
        is one.
        """
        self._lease_seconds = lease_seconds
        self._renewed = renewed
        self._unwritten_since = unwritten_since
        self._monotonic = monotonic
        self._claimed = float("-inf")
        self._settled = 0

    def claimed(self, *, blocked: bool = False, settled: int = 0) -> None:
        """A round of claims is through. `blocked`: nothing could be asked for, as answers wait to be stored or written;
        `settled` counts those that were, or were given up.
        """
        if not blocked or settled != self._settled:
            self._claimed = self._monotonic()
        self._settled = settled

    def faults(self) -> Mapping[str, str]:
        """By what is at fault; empty: ready."""
        now = self._monotonic()
        unwritten = self._unwritten_since()
        found = {
            "lease": now - self._renewed() > self._lease_seconds and "not renewed in time",
            "claims": now - self._claimed > STALE_SECONDS and f"none for {STALE_SECONDS:g} s",
            "endings": unwritten is not None
            and now - unwritten > STALE_SECONDS
            and f"unwritten for {STALE_SECONDS:g} s",
        }
        return {name: text for name, text in found.items() if text}
