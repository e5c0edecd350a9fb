"""The pause after a failure: exponential backoff with jitter, as a pure function."""

from __future__ import annotations

# 0.2, 0.4, 0.8 … 15 s at most, and at least half of that. An outage of minutes costs four attempts a minute, and its
# end is noticed within 15 s.
FIRST_SECONDS = 0.2
MAX_SECONDS = 15.0


def backoff_seconds(failures: int, jitter: float, retry_after_seconds: float | None = None) -> float:
    """Return the pause after the `failures`-th failure in a row (1 is the first); `jitter` is in [0, 1).

    A time that the server requests is respected, up to a minute.
    """
    ceiling = min(MAX_SECONDS, FIRST_SECONDS * 2.0 ** min(failures - 1, 20))
    own = ceiling * (0.5 + jitter / 2)
    return max(own, min(retry_after_seconds or 0.0, 60.0))
