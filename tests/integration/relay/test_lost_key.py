"""A message whose encryption key was dropped too early fails alone, and is readable when the key is restored."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from cryptography.fernet import Fernet
from psycopg.rows import dict_row

from services.relay.store.encryption import Encryption
from services.relay.store.sealing import draft_of
from tests.destination import destination
from tests.integration.relay.conftest import Relay
from tests.process import Process, started
from tests.wait import until
from tidings.process.settings import EXIT_CONFIGURATION


def test_a_message_sealed_with_a_dropped_key_is_a_dead_letter_until_the_key_is_restored(
    new_relay: Callable[..., Relay],
) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    with destination() as server:
        first = new_relay(RELAY_ENCRYPTION_KEYS=old)
        lost = first.publish(
            f"{server.url}/lost", "body", Upstash_Delay="6s", Upstash_Forward_Authorization="Bearer secret"
        ).json()["messageId"]
        first.process.kill()
        # The signing keys are sealed too. Without them no relay starts, which the next test checks.
        with psycopg.connect(first.process.environment["RELAY_DATABASE_URL"]) as connection:
            connection.execute("DELETE FROM relay.signing_keys")
        second = new_relay(RELAY_ENCRYPTION_KEYS=new)
        passing = second.publish(f"{server.url}/passing", Upstash_Delay="3s").json()["messageId"]
        until(lambda: second.state(passing) == "delivered")
        url = second.process.environment["RELAY_DATABASE_URL"]
        with psycopg.connect(url, row_factory=dict_row) as connection:
            [letter] = until(lambda: connection.execute("SELECT * FROM relay.dead_letters").fetchall())
            [state] = connection.execute("SELECT state FROM relay.messages WHERE id = %s", (lost,)).fetchall()
        assert [call.path for call in server.received] == ["/passing"]
    assert state == {"state": "failed"}
    assert letter["message_id"] == lost
    assert letter["response_body"] == b"the message cannot be decrypted: its key is not in RELAY_ENCRYPTION_KEYS"
    draft = draft_of(Encryption(f"{new},{old}"), letter)
    assert (draft.url, draft.body) == (f"{server.url}/lost", b"body")
    assert draft.headers["Authorization"] == "Bearer secret"


def test_a_relay_that_cannot_read_the_signing_keys_reports_it_and_ends(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay()
    assert relay.process.stop() == 0
    changed = relay.process.environment | {"RELAY_ENCRYPTION_KEYS": Fernet.generate_key().decode()}
    other = Process("services.relay", changed, relay.process.log)
    with started(other):
        assert other.wait() == EXIT_CONFIGURATION
    assert "the signing keys cannot be decrypted" in relay.process.log.read_text()
    assert "Traceback" not in relay.process.log.read_text()
