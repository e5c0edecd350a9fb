"""Identifies the caller: by the environment's root token or a stored one. It also limits how often
a token may publish.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.relay.store.tokens import Token, hash_token

# The longest time for which a revoked token is still accepted.
CACHE_SECONDS = 5.0
# The number of cached answers, including those for unknown tokens. The oldest is evicted first.
CACHE_MAX = 1000
ROOT = Token("root", writes=True, publishes_per_second=None)


@dataclass
class _Bucket:
    """How many messages may be published at `at`. Below 0: a batch exceeded the amount of one second."""

    left: float
    at: float


class Authenticator:
    """Answers are cached for CACHE_SECONDS. Each process applies a token's limit separately, so that several relays
    behind one address multiply it.
    """

    def __init__(
        self, root_token: str, find: Callable[[str], Awaitable[Token | None]], clock: Callable[[], float]
    ) -> None:
        """`find` is `Tokens.find`; `clock` is monotonic, in seconds."""
        self._root_token = root_token.encode()
        self._find = find
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Token | None]] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def authenticate(self, token: str) -> Token | None:
        """The stored token with this text. None: it is unknown, or was revoked more than CACHE_SECONDS ago."""
        if hmac.compare_digest(token.encode(errors="surrogateescape"), self._root_token):
            return ROOT
        if not token:
            return None
        key, now = hash_token(token), self._clock()
        cached = self._cache.get(key)
        if cached is not None and now < cached[0]:
            return cached[1]
        found = await self._find(token)
        self._cache[key] = (now + CACHE_SECONDS, found)
        self._cache.move_to_end(key)
        _shrink(self._cache)
        return found

    def wait_seconds(self, token: Token, publishes: int = 1) -> float:
        """Return 0 if `publishes` messages may be accepted now, and count them; otherwise the seconds until a retry.

        The messages of a second may come at once. A larger batch is accepted when the amount of a whole second is
        available, and the excess delays later requests.
        """
        limit = token.publishes_per_second
        if limit is None:
            return 0.0
        bucket = self._bucket(token.name, limit)
        needed = float(min(publishes, limit))
        if bucket.left < needed:
            return (needed - bucket.left) / limit
        bucket.left -= publishes
        return 0.0

    def charge(self, token: Token, publishes: int) -> None:
        """Count accepted messages whose number was not announced. They delay later requests."""
        if token.publishes_per_second is not None:
            self._bucket(token.name, token.publishes_per_second).left -= publishes

    def _bucket(self, name: str, limit: int) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(float(limit), now))
        self._buckets.move_to_end(name)
        _shrink(self._buckets)
        bucket.left = min(float(limit), bucket.left + (now - bucket.at) * limit)
        bucket.at = now
        return bucket


def _shrink(kept: OrderedDict[bytes, tuple[float, Token | None]] | OrderedDict[str, _Bucket]) -> None:
    while len(kept) > CACHE_MAX:
        kept.popitem(last=False)
