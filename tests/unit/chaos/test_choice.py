"""The load is repeatable, and the ledger can judge it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.chaos.choice import LONG_SECONDS, Choice, choose


def choices(seed: int = 1) -> Iterator[Choice]:
    chance = Random(seed)
    return (choose(chance, f"key-{n}", "http://localhost:1/hook", 1.0) for n in range(500))


def test_a_seed_gives_the_same_load_and_another_seed_another() -> None:
    assert list(choices()) == list(choices())
    assert list(choices()) != list(choices(2))


def test_every_call_is_counted_by_the_key_of_its_submission() -> None:
    for choice in choices():
        keys = {choice.content["metadata"]["key"], choice.content["input"]["x_provider"]["call_id"], choice.sent.key}
        assert len(keys) == 1


def test_a_call_with_a_limit_is_never_cancelled() -> None:
    limited = [choice for choice in choices() if choice.sent.target == "chaos-limited"]
    assert limited
    assert not any(choice.sent.expires or "expires_in" in choice.content for choice in limited)


def test_only_submissions_that_expire_have_calls_longer_than_their_time() -> None:
    for choice in choices():
        assert choice.sent.expires == ("expires_in" in choice.content)
        latency = choice.content["input"]["x_provider"]["latency_seconds"]
        assert (latency == LONG_SECONDS) == choice.sent.expires
