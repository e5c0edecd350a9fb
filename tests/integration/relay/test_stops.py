"""SIGTERM ends the process at any moment, and leaves no claim of a message that was never sent."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

from services.relay.engine.drain import END_SECONDS
from stack.ports import free_ports
from tests.destination import Reply, destination
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay, RelayProcess
from tests.integration.relay.edges import Edge, calls, edge, log, publish
from tests.process import started
from tests.wait import until

BACKLOG = 10_000
STOPS = 200
# Relays that start and stop concurrently.
AT_ONCE = 4
# For a busy machine.
MARGIN_SECONDS = 30.0
# A text that only the claim statement contains.
CLAIM = b"SET state = 'active', started_at"


@pytest.fixture
def faulty(postgres: PostgresServer) -> Iterator[Edge]:
    with edge(postgres) as made:
        yield made


def ended(relay: Relay, drain_seconds: float) -> int:
    """Stop the relay; return its exit status, which must arrive within the promised time."""
    began = time.monotonic()
    status = relay.process.stop()
    assert time.monotonic() - began < drain_seconds + END_SECONDS + MARGIN_SECONDS
    return status


def test_a_stop_during_a_backlog_leaves_no_claim_and_no_unknown_fate(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    paths = [f"/{n}" for n in range(BACKLOG)]

    def arrived(least: int) -> bool:
        return len(server.received) > least

    with destination() as server:
        first = new_relay(**faulty.direct, RELAY_DRAIN_SECONDS="30")
        publish(first, server, paths, Tidings_On_Unknown="fail", Upstash_Delay="1s")
        for _ in range(4):
            least = len(server.received) + 100
            relay = first if first.process.running() else new_relay(**faulty.direct, RELAY_DRAIN_SECONDS="30")
            until(partial(arrived, least), 60)
            assert ended(relay, 30) == 0
            assert faulty.states()["active"] == 0
            assert "drain_incomplete" not in log(relay)
        assert faulty.states()["waiting"] > 0, "the backlog was too short"
        assert faulty.dead_letters() == 0
        assert set(calls(server).values()) == {1}
        assert faulty.states()["delivered"] == len(server.received)


def test_calls_in_progress_at_a_stop_are_finished_and_no_other_begins(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    overdue = "SELECT count(*) FROM relay.messages WHERE state = 'waiting' AND due_at < now() - interval '2 s'"
    paths = [f"/{n}" for n in range(5)]
    with destination(lambda _: Reply(delay_seconds=3600)) as server, ThreadPoolExecutor() as pool:
        relay = new_relay(**faulty.direct, RELAY_DRAIN_SECONDS="120")
        publish(relay, server, paths)
        until(lambda: len(server.received) == len(paths), 60)
        stopping = pool.submit(relay.process.stop)

        def claims_no_more() -> bool:
            assert relay.publish(f"{server.url}/later").ok  # it still accepts messages, for the next process
            return bool(faulty.rows(overdue)[0][0])

        until(claims_no_more, 30, every=0.5)
        assert not stopping.done()
        called = set(calls(server))
        server.released.set()
        assert stopping.result(240) == 0
        assert set(calls(server)) == called
        assert {path: calls(server)[path] for path in paths} == dict.fromkeys(paths, 1)
        assert faulty.states()["active"] == 0
        assert faulty.states()["delivered"] == len(server.received)
        assert "drain_incomplete" not in log(relay)


def test_calls_without_a_connection_at_the_end_of_the_drain_wait_again_without_an_unknown_fate(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    """A listener whose backlog is full drops further attempts to connect."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            relay = new_relay(**faulty.direct)
            url = f"http://127.0.0.1:{full.getsockname()[1]}/"
            for _ in range(3):
                assert relay.publish(url, Tidings_On_Unknown="fail").ok
            until(lambda: faulty.states() == {"active": 3})
            assert ended(relay, 1) == 0
            assert faulty.states() == {"waiting": 3}
            [(unknown,)] = faulty.rows("SELECT sum(unknown) FROM relay.messages")
            assert unknown == 0


def test_claims_that_were_never_sent_are_returned_to_a_slow_database(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    """A round trip takes 0.6 s, and the return of claims takes several."""
    # The lease is so long that no other process recovers a lost claim before the end of the test.
    relay = new_relay(**faulty.settings, RELAY_LEASE_SECONDS="300", RELAY_DRAIN_SECONDS="10")
    with destination() as server:
        faulty.proxy.lose_answers(CLAIM)
        publish(relay, server, [f"/{n}" for n in range(300)], Tidings_On_Unknown="fail")
        until(lambda: faulty.states() == {"active": 300}, 60)
        faulty.proxy.heal()
        faulty.proxy.delay(0.3)
        assert ended(relay, 10) == 0
        assert faulty.states() == {"waiting": 300}
        assert server.received == []
        [(unknown,)] = faulty.rows("SELECT sum(unknown) FROM relay.messages")
        assert unknown == 0
        assert faulty.rows("SELECT count(*) FROM relay.processes WHERE lease_until > now()") == [(0,)]


def test_endings_that_a_slow_database_commits_after_the_drain_time_are_kept(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    relay = new_relay(**faulty.settings)
    with destination(lambda _: Reply(delay_seconds=60)) as server:
        publish(relay, server, [f"/{n}" for n in range(100)], Tidings_On_Unknown="fail")
        until(lambda: len(server.received) == 100, 60)
        faulty.proxy.delay(0.4)
        server.released.set()
        assert ended(relay, 1) == 0
        assert faulty.states() == {"delivered": 100}


def test_a_lease_is_not_released_when_no_claim_could_be_returned(new_relay: Callable[..., Relay], faulty: Edge) -> None:
    relay = new_relay(**faulty.settings, RELAY_LEASE_SECONDS="300")
    with destination() as server:
        faulty.proxy.lose_answers(CLAIM)
        publish(relay, server, ["/1"], Tidings_On_Unknown="fail")
        until(lambda: faulty.states() == {"active": 1}, 60)
        faulty.proxy.heal()
        with faulty.locked("relay.messages"):
            assert ended(relay, 1) == 0
        assert "claims_not_returned" in log(relay)
        assert faulty.rows("SELECT count(*) FROM relay.processes WHERE lease_until > now()") == [(1,)]


@pytest.mark.timeout(1200)
def test_two_hundred_stops_at_different_moments_all_end(
    new_relay: Callable[..., Relay], faulty: Edge, tmp_path: Path
) -> None:
    environment = new_relay(**faulty.direct).process.environment
    chance = random.Random(1)

    def stopped(n: int) -> int:
        status = tried(n)
        # Another process used the port between its choice and the start.
        return tried(n) if status == 1 and "Address already in use" in (tmp_path / f"{n}.log").read_text() else status

    def tried(n: int) -> int:
        [port] = free_ports(1)
        own = environment | {"RELAY_LISTEN": f"127.0.0.1:{port}"}
        ready_url = f"http://127.0.0.1:{port}/readyz"
        with started(RelayProcess("services.relay", own, tmp_path / f"{n}.log", ready_url=ready_url)) as relay:
            time.sleep(chance.uniform(0, 1))
            return ended(Relay(relay, port), 1)

    with ThreadPoolExecutor(AT_ONCE) as starting:
        assert set(starting.map(stopped, range(STOPS))) == {0}


@pytest.mark.parametrize("fault", ["refuse", "swallow"])
def test_it_ends_while_its_database_is_down(new_relay: Callable[..., Relay], faulty: Edge, fault: str) -> None:
    relay = new_relay(**faulty.settings)
    with destination(lambda _: Reply(delay_seconds=60)) as server:
        publish(relay, server, [f"/{n}" for n in range(20)])
        until(lambda: len(server.received) == 20)
        getattr(faulty.proxy, fault)()
        server.released.set()
        assert ended(relay, 1) == 0


def test_it_ends_while_messages_are_published_claimed_and_delivered(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    """And the next relay delivers every accepted message."""
    known: list[str] = []

    def more(least: int) -> bool:
        return len(known) > least

    def publisher(relay: Relay, name: int) -> None:
        for n in range(100_000):
            path = f"/{relay.process.log.stem}-{name}-{n}"
            try:
                answer = requests.post(
                    f"{relay.url}/v2/publish/{server.url}{path}", headers=dict(relay.session.headers), timeout=30
                )
            except requests.RequestException:
                return
            if not answer.ok:
                return
            known.append(path)

    with destination() as server, ThreadPoolExecutor(4) as publishers:
        for _ in range(3):
            relay = new_relay(**faulty.direct, RELAY_DRAIN_SECONDS="5")
            publishing = [publishers.submit(publisher, relay, n) for n in range(4)]
            until(partial(more, len(known) + 200), 60)
            assert ended(relay, 5) == 0
            for one in publishing:
                one.result(60)
        new_relay(**faulty.direct)
        until(lambda: set(known) <= set(calls(server)), 60)


def test_a_port_in_use_is_reported_in_one_sentence(new_relay: Callable[..., Relay], faulty: Edge) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        relay = new_relay(**faulty.direct, ready=False, RELAY_LISTEN=address)
        assert relay.process.wait(60) == 1
    assert log(relay) == f"RELAY_LISTEN: {address} cannot be listened at: Address already in use\n"


def test_a_port_that_another_process_takes_at_the_last_moment_ends_the_process(
    new_relay: Callable[..., Relay], faulty: Edge
) -> None:
    """It is bound at the start, and another process listens on it meanwhile, as the database was slow to answer."""
    new_relay(**faulty.direct).process.stop()
    faulty.proxy.delay(0.2)
    relay = new_relay(**faulty.settings, ready=False)
    host, port = relay.url.removeprefix("http://").split(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until(lambda: faulty.proxy.connections > 0)
        taken.bind((host, int(port)))
        taken.listen()
        assert relay.process.wait(120) == 1
    assert "Traceback" not in log(relay)
