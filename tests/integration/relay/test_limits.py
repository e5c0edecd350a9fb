"""Limits as the destination sees them: they apply across processes, a crash frees their places, and a key pauses on the
provider's request.
"""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
import requests

from tests.destination import Destination, Received, Reply, destination
from tests.integration.relay.conftest import Relay
from tests.wait import until

# The time for which a call is held so that others can arrive.
FULL_SECONDS = 10.0


class Gauge:
    """Counts the concurrent calls of a destination, and their maximum, by path.

    `full`: the calls of a path are held until this number is reached, so that a slow sender uses all its places.
    """

    def __init__(self, seconds: float, full: Mapping[str, int]) -> None:
        self._lock = threading.Condition()
        self._seconds = seconds
        self._full = full
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def answer(self, server: Callable[[], Destination]) -> Callable[[Received], Reply]:
        def reply(received: Received) -> Reply:
            path = received.path.partition("?")[0]
            with self._lock:
                self.now[path] += 1
                self.most[path] = max(self.most[path], self.now[path])
                self._lock.notify_all()
                self._lock.wait_for(lambda: self.most[path] >= self._full[path], FULL_SECONDS)
            server().released.wait(self._seconds * random.uniform(0.5, 1.5))
            with self._lock:
                self.now[path] -= 1
            return Reply()

        return reply


def test_parallelism_is_held_across_processes(new_relay: Callable[..., Relay]) -> None:
    relays = [new_relay(), new_relay()]
    gauge = Gauge(0.05, {"/one": 1, "/three": 3})
    with destination() as server:
        server.answer = gauge.answer(lambda: server)
        ids = [
            relays[n % 2].publish(f"{server.url}/{key}", Upstash_Flow_Control_Key=key,
                                  Upstash_Flow_Control_Value=f"parallelism={limit}").json()["messageId"]
            for n in range(40)
            for key, limit in (("one", 1), ("three", 3))
        ]  # fmt: skip
        until(lambda: all(relays[0].state(id_) == "delivered" for id_ in ids), 60)
    assert gauge.most == {"/one": 1, "/three": 3}
    assert Counter(received.path for received in server.received) == {"/one": 40, "/three": 40}


def test_a_rate_is_obeyed_in_each_window(relay: Relay) -> None:
    with destination() as server:
        for _ in range(12):
            relay.publish(server.url, Upstash_Flow_Control_Key="k", Upstash_Flow_Control_Value="rate=5, period=1s")
        until(lambda: len(server.received) == 12)
        events = relay.call("GET", "/v2/events?flowControlKey=k&state=ACTIVE&count=100").json()["events"]
    # The times at which the relay began them: the time until a call arrives depends on the machine.
    started_ms = sorted(event["time"] for event in events)
    assert len(started_ms) == 12
    # A window begins with its first call and allows 5: the 6th belongs to a later one, and the 11th to one later still.
    assert started_ms[5] - started_ms[0] >= 900
    assert started_ms[10] - started_ms[0] >= 1900


def test_a_crash_frees_the_places_of_its_calls(new_relay: Callable[..., Relay]) -> None:
    first = new_relay(RELAY_LEASE_SECONDS="3")
    limits = {"Upstash_Flow_Control_Key": "k", "Upstash_Flow_Control_Value": "parallelism=2"}
    with destination(lambda _: Reply(delay_seconds=60 if len(server.received) <= 2 else 0)) as server:
        ids = [first.publish(f"{server.url}/{n}", **limits).json()["messageId"] for n in range(6)]
        until(lambda: len(server.received) == 2)
        assert first.process.kill() == -signal.SIGKILL
        second = new_relay(RELAY_LEASE_SECONDS="3")
        until(lambda: all(second.state(id_) == "delivered" for id_ in ids), 20)
    assert {received.path for received in server.received} == {f"/{n}" for n in range(6)}


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset-Requests"])
def test_a_providers_429_pauses_the_whole_key_in_all_processes(new_relay: Callable[..., Relay], header: str) -> None:
    relays = [new_relay(), new_relay()]
    limits = {"Upstash_Flow_Control_Key": "k", "Upstash_Flow_Control_Value": "parallelism=5"}
    replies = iter([Reply(429, headers={header: "5s" if header != "Retry-After" else "5"})])
    with destination(lambda _: next(replies, Reply())) as server:
        relays[0].publish(f"{server.url}/first", **limits)
        until(lambda: len(server.received) == 1)
        until(
            lambda: (
                'relay_attempts_total{outcome="waiting"} 1.0'
                in requests.get(f"{relays[0].url}/metrics", timeout=30).text
            )
        )
        for n in range(6):
            relays[n % 2].publish(f"{server.url}/{n}", **limits)
        relays[0].publish(f"{server.url}/other")
        until(lambda: len(server.received) == 9, 40)
        limited = server.received[0].at
        others = [received for received in server.received[1:] if received.path != "/other"]
        assert all(received.at - limited >= 4.9 for received in others)
        # A message without a key does not wait with them.
        assert server.received[1].path == "/other"


def test_after_a_cooling_one_call_is_made_as_a_probe_before_the_others(relay: Relay) -> None:
    limits = {"Upstash_Flow_Control_Key": "k", "Upstash_Flow_Control_Value": "parallelism=5"}
    gauge_now: list[int] = []
    busy = threading.Semaphore(0)
    statuses = iter([429])

    def answer(received: Received) -> Reply:
        status = next(statuses, 200)
        if status == 429:
            return Reply(429, headers={"Retry-After": "1"})
        gauge_now.append(len(server.received))
        if len(gauge_now) == 1:
            # While the probe is in progress, no other message of the key may begin.
            busy.acquire(timeout=1.0)
        return Reply()

    with destination(answer) as server:
        for n in range(5):
            relay.publish(f"{server.url}/{n}", **limits)
            if n == 0:
                until(lambda: "coolingUntil" in relay.call("GET", "/v2/flowControl/k").json())
        until(lambda: len(server.received) == 6)
        probe, second = server.received[1], server.received[2]
    assert second.at - probe.at >= 0.95


def test_a_key_may_opt_out_of_cooling(relay: Relay) -> None:
    limits = {
        "Upstash_Flow_Control_Key": "k",
        "Upstash_Flow_Control_Value": "parallelism=5",
        "Tidings_Cooling": "off",
    }
    replies = iter([Reply(429, headers={"Retry-After": "30"})])
    with destination(lambda _: next(replies, Reply())) as server:
        relay.publish(f"{server.url}/first", **limits)
        until(lambda: len(server.received) == 1)
        relay.publish(f"{server.url}/second", **limits)
        until(lambda: server.to("/second"))


def test_a_queue_is_first_in_first_out_and_waits_for_retries_and_callbacks(relay: Relay) -> None:
    failures = iter([500])
    order: list[str] = []

    def answer(received: Received) -> Reply:
        order.append(received.path)
        if received.path == "/0":
            return Reply(next(failures, 200))
        return Reply(delay_seconds=0.3 if received.path == "/callback" else 0)

    with destination(answer) as server:
        items = [
            {"destination": f"{server.url}/{n}", "queue": "q",
             "headers": {"Upstash-Retry-Delay": "100", "Upstash-Callback": f"{server.url}/callback"}}
            for n in range(4)
        ]  # fmt: skip
        assert relay.session.post(f"{relay.url}/v2/batch", json=items, timeout=10).status_code == 200
        until(lambda: len(order) == 10, 20)
    # The failed attempt's callback and the retry overlap. /1 does not begin before both have ended.
    assert sorted(order[:4]) == ["/0", "/0", "/callback", "/callback"]
    assert order[4:] == ["/1", "/callback", "/2", "/callback", "/3", "/callback"]


def test_kill_9_of_relays_under_load_obeys_the_limit_and_loses_nothing(new_relay: Callable[..., Relay]) -> None:
    relays = [new_relay(RELAY_LEASE_SECONDS="3") for _ in range(4)]
    gauge = Gauge(0.2, {"/work": 4})
    headers = {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "parallelism=4"}

    def busy() -> Relay | None:
        """The process of a relay that has calls in flight."""
        return next((relay for relay in relays if _in_flight(relay)), None)

    with destination() as server:
        server.answer = gauge.answer(lambda: server)
        items = [{"destination": f"{server.url}/work?{n}", "headers": headers} for n in range(200)]
        accepted = relays[0].session.post(f"{relays[0].url}/v2/batch", json=items, timeout=20).json()
        assert len({item["messageId"] for item in accepted}) == 200
        # From here on the destination holds no call for longer than a third of a second, which is shorter than a lease.
        until(lambda: gauge.most["/work"] == 4)
        for _ in range(3):
            killed = until(busy)
            assert killed is not None
            killed.process.kill()
            relays.remove(killed)
        [survivor] = relays
        until(lambda: len({received.path for received in server.received}) == 200, 60)
        # A call whose process was killed has reached the destination and is in no log. When the lease has expired, its
        # place is free, and it is repeated.
        until(lambda: all(survivor.state(item["messageId"]) == "delivered" for item in accepted), 60)
        until(lambda: _in_flight(survivor) == 0)
        until(lambda: _places(survivor, "k") == (0, 0))
    # The calls of a killed process have ended at the destination long before its lease expires and others get their
    # places.
    assert gauge.most["/work"] == 4
    assert len(server.received) <= 200 + 3 * 4


def _places(relay: Relay, key: str) -> tuple[int, int]:
    """The calls of a flow key that are in flight, and its messages that wait for one to end."""
    answer = relay.session.get(f"{relay.url}/v2/flowControl/{key}", timeout=10).json()
    return answer["parallelismCount"], answer["waitListSize"]


def _in_flight(relay: Relay) -> int:
    lines = requests.get(f"{relay.url}/metrics", timeout=30).text.splitlines()
    return int(float(next(line for line in lines if line.startswith("relay_in_flight ")).split()[1]))
