"""A relay whose lease expired while its call waited for a connection: another relay has the message by then."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.destination import Reply, destination
from tests.infra.names import may_have_own_names, name_server, own_names
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay
from tests.integration.relay.edges import Edge, edge
from tests.wait import until

ADDRESS = "127.0.56.53"
HELD_SECONDS = 60.0
TAKEN_OVER_SECONDS = 40.0


@pytest.fixture
def names(tmp_path: Path) -> Path:
    if not may_have_own_names(tmp_path):
        pytest.skip("NOT TESTED: name servers need root, for a mount namespace and port 53")
    return tmp_path


def test_a_message_that_was_taken_over_before_it_was_sent_is_not_sent(
    names: Path, new_relay: Callable[..., Relay]
) -> None:
    wrapper = own_names(names, hosts=Path("/etc/hosts").read_text(), resolv_conf=f"nameserver {ADDRESS}\n")
    with (
        name_server(ADDRESS, {"slow.test": "127.0.0.1"}, absent=[""]) as server,
        destination(lambda _: Reply(delay_seconds=HELD_SECONDS)) as held,
    ):
        server.mode = "silent"
        stopped = new_relay(wrapper=wrapper, RELAY_LEASE_SECONDS="2")
        url = f"http://slow.test:{held.url.rpartition(':')[2]}/"
        flow = {"Upstash_Flow_Control_Key": "one", "Upstash_Flow_Control_Value": "parallelism=1"}
        assert stopped.publish(url, **flow).status_code == 200
        # It has claimed the message, and waits for the lookup of the name.
        until(lambda: server.asked)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        server.answer_held()
        new_relay(wrapper=wrapper, RELAY_LEASE_SECONDS="2")
        until(lambda: held.received, TAKEN_OVER_SECONDS)
        os.kill(stopped.process.pid, signal.SIGCONT)
        # Its call ends while the other one is in progress, by itself or because the claim belongs to another process.
        until(lambda: _in_flight(stopped) == 0, HELD_SECONDS / 2)
        assert len(held.received) == 1


def test_a_lease_that_is_renewed_after_it_lapsed_brings_no_earlier_claim_back(
    names: Path, postgres: PostgresServer, new_relay: Callable[..., Relay]
) -> None:
    wrapper = own_names(names, hosts=Path("/etc/hosts").read_text(), resolv_conf=f"nameserver {ADDRESS}\n")
    with (
        edge(postgres) as faulty,
        name_server(ADDRESS, {"slow.test": "127.0.0.1"}, absent=[""]) as server,
        destination(lambda _: Reply(delay_seconds=HELD_SECONDS)) as held,
    ):
        server.mode = "silent"
        cut_off = new_relay(wrapper=wrapper, **faulty.settings, RELAY_LEASE_SECONDS="2")
        url = f"http://slow.test:{held.url.rpartition(':')[2]}/"
        assert cut_off.publish(url).status_code == 200
        until(lambda: server.asked)
        [(owner,)] = faulty.rows("SELECT lease_owner FROM relay.messages WHERE state = 'active'")
        faulty.proxy.refuse()
        asked = len(server.asked)
        new_relay(wrapper=wrapper, **faulty.direct, RELAY_LEASE_SECONDS="2")
        # The other relay has the message, and waits for the name too.
        until(lambda: len(server.asked) > asked and _owner(faulty) not in {None, owner}, TAKEN_OVER_SECONDS)
        faulty.proxy.heal()
        # The lease is renewed, but which claims are left of it is not known yet.
        faulty.proxy.lose_answers(b"WITH mine AS MATERIALIZED")
        holds = f"SELECT FROM relay.processes WHERE owner = '{owner}' AND lease_until > clock_timestamp()"
        until(lambda: faulty.rows(holds), TAKEN_OVER_SECONDS)
        server.answer_held()
        until(lambda: held.received, TAKEN_OVER_SECONDS)
        until(lambda: _in_flight(cut_off) == 0, HELD_SECONDS / 2)
        assert len(held.received) == 1


def _owner(faulty: Edge) -> object:
    rows = faulty.rows("SELECT lease_owner FROM relay.messages")
    return rows[0][0] if rows else None


def _in_flight(relay: Relay) -> float:
    text = requests.get(f"{relay.url}/metrics", timeout=10).text
    [line] = [line for line in text.splitlines() if line.startswith("relay_in_flight ")]
    return float(line.split()[1])
