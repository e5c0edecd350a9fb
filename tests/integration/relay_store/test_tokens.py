"""Tokens and signing keys on a real database."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from services.relay.store.encryption import Encryption
from services.relay.store.sealing import UnreadableError
from services.relay.store.signing_keys import KeyPair, SigningKeys
from services.relay.store.tokens import TokenExistsError
from tests.integration.relay_store.conftest import Run, Stores


def test_a_token_is_found_until_it_is_revoked_and_not_stored_in_plain_text(run: Run) -> None:
    async def story(stores: Stores) -> None:
        token = await stores.tokens.create("ci", writes=False, publishes_per_second=5)
        found = await stores.tokens.find(token)
        assert found is not None
        assert (found.name, found.writes, found.publishes_per_second) == ("ci", False, 5)
        assert await stores.tokens.find(f"{token}x") is None
        [row] = await stores.rows("SELECT t::text AS everything FROM relay.tokens AS t")
        assert token not in row["everything"]
        with pytest.raises(TokenExistsError):
            await stores.tokens.create("ci", writes=True)
        assert await stores.tokens.revoke("ci")
        assert not await stores.tokens.revoke("ci")
        assert await stores.tokens.find(token) is None
        [listed] = await stores.tokens.all()
        assert listed.revoked_at is not None

    run(story)


def test_signing_keys_are_created_once_and_rotated_for_all_processes(run: Run) -> None:
    async def story(stores: Stores) -> None:
        one = SigningKeys(stores.database, stores.encryption, KeyPair("sig_a", "sig_b"))
        other = SigningKeys(stores.database, stores.encryption, KeyPair("sig_other", "sig_other"))
        assert await one.refresh() == KeyPair("sig_a", "sig_b")
        assert await other.refresh() == KeyPair("sig_a", "sig_b")
        rotated = await other.rotate()
        assert rotated.current == "sig_b"
        assert rotated.next.startswith("sig_")
        assert rotated.next not in {"sig_a", "sig_b"}
        assert one.pair == KeyPair("sig_a", "sig_b")
        await one.refresh()
        assert one.pair == rotated
        [row] = await stores.rows("SELECT sealed FROM relay.signing_keys")
        assert rotated.next.encode() not in row["sealed"]
        stranger = SigningKeys(stores.database, Encryption(Fernet.generate_key().decode()), KeyPair("sig_a", "sig_b"))
        with pytest.raises(UnreadableError):
            await stranger.refresh()

    run(story)
