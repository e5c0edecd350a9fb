"""Readiness: the lease holds, claims are requested, endings are written. No statement is needed to decide it.

A relay whose places are all taken by calls is ready, even if no call ends for long: calls that take minutes are normal,
each has a timeout, and sending requests elsewhere would not help. A relay that can claim nothing because answers wait
to be stored or written, while none of them progresses, is not ready. The fault is then the database's or its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# A claim takes milliseconds and runs twice a second. If none has succeeded for this long, claims hang or fail.
STALE_SECONDS = 10.0


class Readiness:
    """`/readyz` may call this at any rate. Times are by `monotonic`."""

    def __init__(
        self,
        lease_seconds: float,
        renewed: Callable[[], float],
        unwritten_since: Callable[[], float | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`renewed`: the time of the last renewal of the lease. `unwritten_since`: the arrival of the oldest unwritten
        ending, if there is one.
        """
        self._lease_seconds = lease_seconds
        self._renewed = renewed
        self._unwritten_since = unwritten_since
        self._monotonic = monotonic
        self._claimed = float("-inf")
        self._settled = 0

    def claimed(self, *, blocked: bool = False, settled: int = 0) -> None:
        """Record the end of a round of claims. `blocked`: no claim was possible, as answers wait to be stored or
        written. `settled` counts the answers that were stored, written or given up.
        """
        if not blocked or settled != self._settled:
            self._claimed = self._monotonic()
        self._settled = settled

    def faults(self) -> Mapping[str, str]:
        """The faults, by the part that has them. Empty: ready."""
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
