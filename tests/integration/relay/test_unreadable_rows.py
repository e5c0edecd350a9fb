"""A message that this version cannot read, or whose end the database refuses, does not delay others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cryptography.fernet import Fernet

from services.relay.store.encryption import Encryption
from tests.destination import destination
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay
from tests.integration.relay.edges import Edge, edge, log, publish
from tests.wait import until


@pytest.fixture
def faulty(postgres: PostgresServer) -> Iterator[Edge]:
    with edge(postgres) as made:
        yield made


@pytest.mark.parametrize(
    ("content", "state"),
    [({"headers": {}, "of_a_newer_version": True}, "waiting"), ({"headers": {}, "callback": {"no": 1}}, "failed")],
)
def test_a_row_that_cannot_be_read_does_not_break_the_claim(
    new_relay: Callable[..., Relay], faulty: Edge, content: dict[str, object], state: str
) -> None:
    """A message with an option of a newer version waits for a process that knows it. An unreadable one fails."""
    key = Fernet.generate_key().decode()
    relay = new_relay(**faulty.direct, RELAY_ENCRYPTION_KEYS=key)
    with destination() as server:
        [bad, *_] = publish(relay, server, ["/bad", *[f"/{n}" for n in range(20)]], Upstash_Delay="3s")
        sealed = Encryption(key).seal(content).decode()
        faulty.execute(f"UPDATE relay.messages SET sealed = convert_to('{sealed}', 'UTF8') WHERE id = '{bad}'")
        until(lambda: len(server.received) == 20, 30)
        until(lambda: faulty.rows(f"SELECT state FROM relay.messages WHERE id = '{bad}' AND lease_owner IS NULL")
              == [(state,)], 20)  # fmt: skip
    assert "loop_failed" not in log(relay)
    assert server.to("/bad") == []


def test_endings_that_the_database_refuses_use_no_places(new_relay: Callable[..., Relay], faulty: Edge) -> None:
    relay = new_relay(**faulty.direct, RELAY_CONCURRENCY_MAX="5")
    faulty.execute("""
        CREATE FUNCTION relay.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.url LIKE '%unwritable%' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON relay.events FOR EACH ROW
          WHEN (NEW.state IN ('DELIVERED', 'ERROR', 'FAILED')) EXECUTE FUNCTION relay.refuse()
        """)
    with destination() as server:
        publish(relay, server, [f"/unwritable{n}" for n in range(5)])
        until(lambda: len(server.received) == 5, 30)
        publish(relay, server, ["/healthy"])
        until(lambda: server.to("/healthy"), 60)
