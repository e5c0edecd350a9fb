"""API keys and their tenants: lookups, and the time for which they are cached."""

from __future__ import annotations

import pytest

from services.api.authentication import CACHE_MAX, CACHE_SECONDS, Authentication
from services.api.problem import ProblemError
from tidings.contract.keys import hash_api_key


class Keys:
    """A table with one key that counts its lookups, and a clock."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.now = 0.0

    def look_up(self, key_sha256: bytes) -> str | None:
        self.asked.append(key_sha256)
        return "alice" if key_sha256 == hash_api_key("good") else None

    def authentication(self) -> Authentication:
        return Authentication(self.look_up, internal_token="x", clock=lambda: self.now)


def test_invalid_keys_do_not_evict_a_valid_one() -> None:
    keys = Keys()
    authentication = keys.authentication()
    assert authentication.tenant_of("Bearer good") == "alice"
    for number in range(CACHE_MAX + 1):
        with pytest.raises(ProblemError):
            authentication.tenant_of(f"Bearer bad-{number}")
    asked = len(keys.asked)
    assert authentication.known_tenant_of("Bearer good") == authentication.tenant_of("Bearer good") == "alice"
    assert len(keys.asked) == asked


@pytest.mark.parametrize("key", ["good", "bad"])
def test_a_key_is_looked_up_once_per_cache_time(key: str) -> None:
    keys = Keys()
    authentication = keys.authentication()
    for now, asked in ((0.0, 1), (CACHE_SECONDS - 0.1, 1), (CACHE_SECONDS + 0.1, 2)):
        keys.now = now
        if key == "good":
            assert authentication.tenant_of("Bearer good") == "alice"
        else:
            with pytest.raises(ProblemError):
                authentication.tenant_of("Bearer bad")
        assert len(keys.asked) == asked
