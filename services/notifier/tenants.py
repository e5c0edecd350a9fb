"""Tenants whose channels made transactions of others fail. From the second failure on, all channels of the tenant are
excluded for a while. A tenant may invent any number of channels, so excluding one at a time would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock

# 60 s, 2 min … an hour. A tenant that deletes one topic is not excluded; after an hour without another failure the
# first is forgotten.
EXCLUDED_SECONDS = 60.0
EXCLUDED_SECONDS_MAX = 3600.0
FORGOTTEN_SECONDS = 3600.0
TENANTS_MAX = 1000


@dataclass(frozen=True)
class _Exclusion:
    seconds: float
    until: float


class Tenants:
    """`clock` returns monotonic seconds. Safe for any number of threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._faults: dict[str, _Exclusion] = {}

    def count_failure(self, tenants: Iterable[str]) -> dict[str, float]:
        """A transaction failed because of the channels of `tenants`.
        Return those that are excluded now, and for how many seconds.
        """
        with self._lock:
            now = self._clock()
            excluded = {}
            for tenant in tenants:
                before = self._faults.pop(tenant, None)
                if before is None or now - before.until > FORGOTTEN_SECONDS:
                    seconds = 0.0
                else:
                    seconds = min(EXCLUDED_SECONDS_MAX, max(EXCLUDED_SECONDS, before.seconds * 2))
                    excluded[tenant] = seconds
                self._faults[tenant] = _Exclusion(seconds, now + seconds)
            while len(self._faults) > TENANTS_MAX:
                del self._faults[next(iter(self._faults))]
        return excluded

    def excluded(self, tenant: str) -> bool:
        with self._lock:
            fault = self._faults.get(tenant)
            return fault is not None and self._clock() < fault.until
