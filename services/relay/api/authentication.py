"""Who calls: the environment's root token, or one of the stored ones, and how often it may publish."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.relay.store.tokens import Token, hash_token

# A revocation counts after so long at the latest.
CACHE_SECONDS = 5.0
# Of answers, also those for tokens that are nobody's; the oldest goes first.
CACHE_MAX = 1000
ROOT = Token("root", writes=True, publishes_per_second=None)


@dataclass
class _Bucket:
    """What may be published at once at `at`; below 0: a batch was larger than a second's worth."""

    left: float
    at: float


class Authenticator:
    """Answers are kept for CACHE_SECONDS. A token's limit holds in each process by itself: with several relays behind one
    address it is as many times as high.
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
        """Whose token it is; None: nobody's, or revoked more than CACHE_SECONDS ago."""
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
        """0 when `publishes` messages may be accepted now (they are counted); else when to come again, in seconds.

        A second's worth may come at once. A batch larger than that is taken when a whole second's worth is there, and is
        paid for afterwards.
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
        """Count messages that were accepted without being asked for by number; they are paid for from now on."""
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
