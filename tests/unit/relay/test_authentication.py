"""Authentication with a fake store and clock."""

from __future__ import annotations

import asyncio

from services.relay.api.authentication import CACHE_MAX, CACHE_SECONDS, Authenticator
from services.relay.store.tokens import Token

READER = Token("reader", writes=False, publishes_per_second=None)
LIMITED = Token("limited", writes=True, publishes_per_second=10)


class Store:
    """Tokens by their secret; counts the lookups."""

    def __init__(self) -> None:
        self.tokens = {"reader-token": READER}
        self.asked = 0

    async def find(self, token: str) -> Token | None:
        self.asked += 1
        return self.tokens.get(token)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_the_root_token_needs_no_database() -> None:
    store = Store()
    root = asyncio.run(Authenticator("root-token", store.find, Clock()).authenticate("root-token"))
    assert root is not None
    assert root.writes
    assert store.asked == 0


def test_a_revocation_takes_effect_within_the_cache_time() -> None:
    store, clock = Store(), Clock()
    authenticator = Authenticator("root-token", store.find, clock)

    async def story() -> None:
        assert await authenticator.authenticate("reader-token") == READER
        store.tokens.clear()
        clock.seconds += CACHE_SECONDS - 0.1
        assert await authenticator.authenticate("reader-token") == READER
        clock.seconds += 0.2
        assert await authenticator.authenticate("reader-token") is None
        assert store.asked == 2
        assert await authenticator.authenticate("") is None
        assert await authenticator.authenticate("\udcff") is None

    asyncio.run(story())


def test_the_cache_is_bounded_and_forgets_the_oldest_first() -> None:
    store = Store()
    authenticator = Authenticator("root-token", store.find, Clock())

    async def story() -> None:
        for n in range(CACHE_MAX + 1):
            await authenticator.authenticate(f"guess-{n}")
        asked = store.asked
        await authenticator.authenticate(f"guess-{CACHE_MAX}")
        assert store.asked == asked
        await authenticator.authenticate("guess-0")
        assert store.asked == asked + 1

    asyncio.run(story())


def test_a_limit_allows_a_second_of_publishes_at_once_and_then_its_rate() -> None:
    clock = Clock()
    authenticator = Authenticator("root-token", Store().find, clock)
    assert [authenticator.wait_seconds(LIMITED) for _ in range(10)] == [0.0] * 10
    assert 0.09 < authenticator.wait_seconds(LIMITED) <= 0.1
    clock.seconds += 0.11
    assert authenticator.wait_seconds(LIMITED) == 0.0
    assert authenticator.wait_seconds(LIMITED) > 0
    assert authenticator.wait_seconds(READER, 1_000_000) == 0.0


def test_messages_that_are_counted_after_their_publish_are_charged_then() -> None:
    clock = Clock()
    authenticator = Authenticator("root-token", Store().find, clock)
    assert authenticator.wait_seconds(LIMITED) == 0.0
    authenticator.charge(LIMITED, 29)
    authenticator.charge(READER, 29)
    clock.seconds += 2.0
    assert authenticator.wait_seconds(LIMITED) > 0
    clock.seconds += 0.2
    assert authenticator.wait_seconds(LIMITED) == 0.0


def test_a_batch_larger_than_a_seconds_limit_is_charged_afterwards() -> None:
    clock = Clock()
    authenticator = Authenticator("root-token", Store().find, clock)
    assert authenticator.wait_seconds(LIMITED, 30) == 0.0
    clock.seconds += 2.0
    assert authenticator.wait_seconds(LIMITED) > 0
    clock.seconds += 0.2
    assert authenticator.wait_seconds(LIMITED) == 0.0
