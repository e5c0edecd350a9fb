"""The relay when its database executes a statement and the answer is lost, or when the database is down."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import requests

from tests.destination import Reply, destination
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay
from tests.integration.relay.edges import Edge, calls, edge, log, publish, ready
from tests.wait import until

MESSAGES = 1500
LOSSES = 8
# A part of each statement's text that no other statement has.
CLAIM = b"SET state = 'active', started_at"
CLAIM_KEYED = b"relay.claim_keyed(p.owner"
FINISH = b"retried = v.retried, started_at = NULL"
TAKE_OVER = b"SET unknown = unknown + 1, lease_owner"
RENEW = b"INSERT INTO relay.processes"


@pytest.fixture
def faulty(postgres: PostgresServer) -> Iterator[Edge]:
    with edge(postgres) as made:
        yield made


@pytest.mark.parametrize(
    "statement", [CLAIM, CLAIM_KEYED, FINISH, b"COMMIT"], ids=["claim", "claim_keyed", "finish", "commit"]
)
def test_no_message_is_lost_or_called_twice_when_answers_are_lost(
    new_relay: Callable[..., Relay], faulty: Edge, statement: bytes
) -> None:
    relay = new_relay(**faulty.settings, RELAY_LEASE_SECONDS="3")
    paths = [f"/{n}" for n in range(MESSAGES)]
    keyed = {"Upstash_Flow_Control_Key": "k", "Upstash_Flow_Control_Value": "parallelism=100"}
    with destination() as server, ThreadPoolExecutor(1) as publisher:
        faulty.proxy.lose_answers(statement)
        headers = {"Tidings_On_Unknown": "fail"} | (keyed if statement == CLAIM_KEYED else {})
        publishing = publisher.submit(lambda: publish(relay, server, paths, **headers))
        until(lambda: faulty.proxy.lost >= LOSSES, 120)
        faulty.proxy.heal()
        assert len(set(publishing.result(120))) == MESSAGES
        until(lambda: faulty.states() == {"delivered": MESSAGES}, 120)
    assert calls(server) == dict.fromkeys(paths, 1)
    assert faulty.dead_letters() == 0


def test_messages_of_a_dead_relay_end_once_when_the_answers_to_their_recovery_are_lost(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    first = new_relay(**faulty.direct, RELAY_LEASE_SECONDS="2")
    paths = [f"/{n}" for n in range(100)]
    with destination(lambda _: Reply(delay_seconds=120)) as server:
        publish(first, server, paths, Tidings_On_Unknown="fail")
        until(lambda: len(server.received) == len(paths))
        assert first.process.kill() == -signal.SIGKILL
        faulty.proxy.lose_answers(TAKE_OVER)
        new_relay(**faulty.settings, RELAY_LEASE_SECONDS="2")
        until(lambda: faulty.proxy.lost >= 3, 60)
        faulty.proxy.heal()
        until(lambda: faulty.states() == {"failed": len(paths)}, 60)
        assert faulty.dead_letters() == len(paths)
        assert calls(server) == dict.fromkeys(paths, 1)


@pytest.mark.parametrize("fault", ["refuse", "swallow"])
@pytest.mark.parametrize("on_unknown", ["retry", "fail"])
def test_calls_in_flight_are_made_once_when_the_database_is_down_for_three_leases(
    new_relay: Callable[..., Relay], faulty: Edge, fault: str, on_unknown: str
) -> None:
    relays = [new_relay(**faulty.settings, RELAY_LEASE_SECONDS="4") for _ in range(2)]
    paths = [f"/{n}" for n in range(200)]
    with destination(lambda received: Reply(delay_seconds=0 if received.path == "/after" else 60)) as server:
        for relay, half in zip(relays, (paths[:100], paths[100:]), strict=True):
            publish(relay, server, half, Tidings_On_Unknown=on_unknown)
        until(lambda: len(server.received) == len(paths), 60)
        getattr(faulty.proxy, fault)()
        server.released.wait(12.5)
        # The calls end while their ends cannot be written.
        server.released.set()
        until(lambda: not all(ready(relay)() for relay in relays), 30)
        faulty.proxy.heal()
        until(lambda: faulty.states() == {"delivered": len(paths)}, 90)
        publish(relays[0], server, ["/after"])
        until(lambda: server.to("/after"), 30)
        until(lambda: all(ready(relay)() for relay in relays), 60)
    assert calls(server) == dict.fromkeys([*paths, "/after"], 1)
    assert faulty.dead_letters() == 0
    assert all(relay.process.stop() == 0 for relay in relays)


def test_a_relay_whose_first_renewal_fails_works_afterwards(new_relay: Callable[..., Relay], faulty: Edge) -> None:
    new_relay(**faulty.direct).process.stop()
    faulty.proxy.lose_answers(RENEW)
    relay = new_relay(**faulty.settings, ready=False)
    until(lambda: faulty.proxy.lost >= 1)
    faulty.proxy.heal()
    until(lambda: "listening" in log(relay))
    with destination() as server:
        publish(relay, server, ["/1"])
        until(lambda: server.to("/1"), 60)


def test_an_ending_that_the_database_refuses_affects_only_its_message(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    relay = new_relay(**faulty.direct)
    faulty.execute("""
        CREATE FUNCTION relay.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.url LIKE '%unwritable%' OR (NEW.url LIKE '%unloggable%' AND NEW.state = 'DELIVERED') THEN
            RAISE EXCEPTION 'not this one';
          END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON relay.events FOR EACH ROW
          WHEN (NEW.state IN ('DELIVERED', 'ERROR', 'FAILED')) EXECUTE FUNCTION relay.refuse();
    """)
    paths = [f"/{n}" for n in range(300)]
    with destination() as server:
        publish(relay, server, ["/unwritable", "/unloggable", *paths])
        until(lambda: faulty.states() == {"delivered": len(paths), "failed": 1, "active": 1}, 90)
        [(body,)] = faulty.rows("SELECT response_body FROM relay.dead_letters WHERE url LIKE '%unloggable'")
        assert bytes(body) == b"the answer could not be stored"
        # An ending that cannot be written is kept, and is written as soon as it can be.
        faulty.execute("DROP TRIGGER refuse ON relay.events")
        until(lambda: faulty.states() == {"delivered": len(paths) + 1, "failed": 1}, 60)
    assert set(calls(server).values()) == {1}


def test_slow_requests_do_not_take_the_connections_of_lease_claims_and_endings(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    relay = new_relay(**faulty.direct, RELAY_LEASE_SECONDS="2")
    reader = partial(requests.get, f"{relay.url}/v2/dlq", headers=dict(relay.session.headers), timeout=120)
    with destination() as server, ThreadPoolExecutor(40) as readers:
        publish(relay, server, ["/0"], Upstash_Delay="3s")
        with faulty.locked("relay.dead_letters"):
            reading = [readers.submit(reader) for _ in range(40)]
            until(lambda: faulty.states() == {"delivered": 1}, 60)
            assert requests.get(f"{relay.url}/readyz", timeout=30).status_code == 200
            assert not any(one.done() for one in reading[:5])


def test_a_relay_that_can_store_no_answer_and_so_claims_no_message_is_not_ready(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    # The share for answers is 2 MiB. One of these answers, which waits to be stored, and its message's body take half
    # of it.
    relay = new_relay(**faulty.direct, RELAY_MEMORY_BYTES_MAX=str(64 * 1024 * 1024))
    answer = b"a" * 1_040_000
    with destination(lambda call: Reply(200, answer if call.path == "/work" else b"{}")) as server:
        with faulty.locked("relay.chunks"):
            relay.publish(f"{server.url}/work", b"b" * 60_000, Upstash_Callback=f"{server.url}/callback")
            until(lambda: not ready(relay)(), 60)
            faults = requests.get(f"{relay.url}/readyz", timeout=10).json()["faults"]
            assert set(faults) == {"claims"}
        until(ready(relay), 60)
        until(lambda: server.to("/callback"), 60)
