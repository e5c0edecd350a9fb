"""Who calls: the environment's root token, or one of the stored ones, and how often it may publish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.relay.store.tokens import Token


class Authenticator:
    def __init__(
        self, root_token: str, find: Callable[[str], Awaitable[Token | None]], clock: Callable[[], float]
    ) -> None:
        """`find` is `Tokens.find`; `clock` is monotonic, in seconds."""
        raise NotImplementedError

    async def authenticate(self, token: str) -> Token | None:
        """Whose token it is; None: nobody's, or revoked more than CACHE_SECONDS ago."""
        raise NotImplementedError

    def wait_seconds(self, token: Token, publishes: int = 1) -> float:
        """0 when `publishes` messages may be accepted now (they are counted); else when to come again, in seconds."""
        raise NotImplementedError
