"""The clients of the system during a run. Their rates are bounded, and each answer is kept in memory. Requests that may
be repeated are repeated until they are accepted or the time is over.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import requests

from tests.chaos.choice import Choice, choose, probe
from tests.chaos.evidence import Limit, Refused, Sent
from tests.chaos.system import RETRIES, RETRY_DELAY

SUBMITTERS, BATCHERS, PUBLISHERS, READERS = 4, 1, 2, 1
BATCH_SIZE = (3, 8)
PAUSE_SECONDS = {"submit": 0.7, "batch": 3.0, "publish": 0.5, "read": 0.5}
ANSWER_SECONDS = 12.0
AGAIN_SECONDS = 0.5
# A probe is repeated sooner, as it measures the recovery.
PROBE_AGAIN_SECONDS = 0.1
DIRECT_LIMITS = (
    Limit("chaos-parallelism", parallelism=2),
    Limit("chaos-rate", rate=4, period_seconds=2.0),
)
# The answers of the api and the relay while a part of the system is down. All other unexpected answers are kept in
# `refused`.
AGAIN = {408, 429, 503}


@dataclass(frozen=True)
class Places:
    """The destinations of the load. `apis` and `relays` are used in turn."""

    apis: tuple[str, ...]
    relays: tuple[str, ...]
    receiver: str
    api_key: str
    relay_token: str


class Load:
    """`start`, `stop`, `join`; then `sent`, `direct` and `refused` are complete. `counts` may be read at any time."""

    def __init__(self, places: Places, seed: int) -> None:
        self._places = places
        self._seed = seed
        self._stopped = threading.Event()
        self._until = float("inf")
        self._lock = threading.Lock()
        self._sent: dict[str, Sent] = {}
        self.direct: list[str] = []
        self.refused: list[Refused] = []
        self.counts: Counter[str] = Counter()
        self._probes: list[threading.Thread] = []
        self._threads = [
            threading.Thread(target=self._turns, args=(name, number, work), daemon=True)
            for name, count, work in (
                ("submit", SUBMITTERS, self._submit),
                ("batch", BATCHERS, self._batch),
                ("publish", PUBLISHERS, self._publish),
                ("read", READERS, self._read),
            )
            for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Begin no new requests. Those in progress are repeated for `seconds`."""
        self._until = time.monotonic() + seconds
        self._stopped.set()
        for thread in (*self._threads, *self._probes):
            thread.join(max(1.0, self._until + ANSWER_SECONDS * 2 - time.monotonic()))

    def probe(self, number: int) -> None:
        """Submit the probe of a fault that ends now, until it is accepted."""
        thread = threading.Thread(target=self._probe, args=(number,), daemon=True)
        self._probes.append(thread)
        thread.start()

    def _probe(self, number: int) -> None:
        choice = probe(number, time.time())
        key = choice.sent.key
        with self._lock:
            self._sent[key] = choice.sent
        client = Client(self, PROBE_AGAIN_SECONDS)
        headers = {"Idempotency-Key": key}
        answer = client.api("POST", "/v1/submissions", {200, 202}, json=choice.content, headers=headers)
        if answer is not None:
            self._accepted(key, str(answer.json()["id"]))

    @property
    def sent(self) -> tuple[Sent, ...]:
        with self._lock:
            return tuple(self._sent.values())

    def _turns(self, name: str, number: int, work: Callable[[Client, Random, str], None]) -> None:
        chance = Random(f"{self._seed} {name} {number}")
        client = Client(self)
        turn = 0
        while not self._stopped.wait(chance.uniform(0.2, 1.8) * PAUSE_SECONDS[name]):
            turn += 1
            work(client, chance, f"{name}-{number}-{turn}")

    def _submit(self, client: Client, chance: Random, key: str) -> None:
        choice = self._choice(chance, key)
        headers = {} if choice.sent.once else {"Idempotency-Key": key}
        answer = client.api(
            "POST", "/v1/submissions", {200, 202}, once=choice.sent.once, json=choice.content, headers=headers
        )
        if answer is None:
            return
        self._accepted(key, str(answer.json()["id"]))
        if headers and chance.random() < 0.3:
            again = client.api("POST", "/v1/submissions", {200, 202}, json=choice.content, headers=headers)
            if again is not None:
                self.counts["repeated"] += 1
                self._accepted(key, str(again.json()["id"]))
        # Our receivers do not notice that a call was aborted, and would count it against its limit.
        if chance.random() < 0.1 and choice.sent.target != "chaos-limited":
            self._cancel(client, chance, key, str(answer.json()["id"]))

    def _cancel(self, client: Client, chance: Random, key: str, id_: str) -> None:
        self._stopped.wait(chance.uniform(0.0, 1.0))
        self._change(key, cancelled=0)
        answer = client.api("DELETE", f"/v1/submissions/{id_}", {200, 409})
        if answer is not None:
            self._change(key, cancelled=answer.status_code)
            self.counts["cancels"] += 1

    def _batch(self, client: Client, chance: Random, key: str) -> None:
        choices = [self._choice(chance, f"{key}-{n}", batch=True) for n in range(chance.randint(*BATCH_SIZE))]
        content = {"submissions": [choice.content for choice in choices]}
        headers = {"Idempotency-Key": key}
        answer = client.api("POST", "/v1/submissions/batch", {200, 202}, json=content, headers=headers)
        if answer is not None:
            self.counts["batches"] += 1
            for choice, item in zip(choices, answer.json()["submissions"], strict=True):
                self._accepted(choice.sent.key, str(item["id"]))

    def _publish(self, client: Client, chance: Random, key: str) -> None:
        limit = chance.choice((*DIRECT_LIMITS, None))
        headers = {
            "Upstash-Deduplication-Id": key, "Upstash-Label": key, "Content-Type": "application/json",
            "Upstash-Retries": str(RETRIES), "Upstash-Retry-Delay": RETRY_DELAY,
        }  # fmt: skip
        if limit is not None:
            values = {"parallelism": limit.parallelism, "rate": limit.rate}
            value = ",".join(f"{name}={number}" for name, number in values.items() if number is not None)
            period = f",period={limit.period_seconds:g}s" if limit.rate else ""
            headers |= {"Upstash-Flow-Control-Key": limit.name, "Upstash-Flow-Control-Value": value + period}
        url = f"{self._places.receiver}/calls/{limit.name if limit else 'none'}?key={key}"
        if client.relay("POST", f"/v2/publish/{url}", {200, 201, 202}, headers=headers, data=b"{}") is not None:
            self.counts["direct"] += 1
            self.direct.append(key)

    def _read(self, client: Client, chance: Random, _key: str) -> None:
        known = [sent for sent in self.sent if sent.ids and sent.seen is None]
        if known:
            sent = chance.choice(known)
            answer = client.api("GET", f"/v1/submissions/{sent.ids[0]}", {200}, once=True)
            if answer is not None and (outcome := answer.json()["outcome"]) is not None:
                self._change(sent.key, seen=outcome)
                self.counts["seen"] += 1

    def _choice(self, chance: Random, key: str, *, batch: bool = False) -> Choice:
        choice = choose(chance, key, f"{self._places.receiver}/hook", time.time())
        with self._lock:
            # A batch has one key for all its submissions.
            self._sent[key] = replace(choice.sent, once=choice.sent.once and not batch)
        return Choice(choice.content, self._sent[key])

    def _accepted(self, key: str, id_: str) -> None:
        with self._lock:
            self._sent[key] = replace(self._sent[key], ids=(*self._sent[key].ids, id_))
        self.counts["accepted"] += 1

    def _change(self, key: str, **changed: Any) -> None:
        with self._lock:
            self._sent[key] = replace(self._sent[key], **changed)


class Client:
    """Sends a request to the servers of `load` in turn, until one answers as expected."""

    def __init__(self, load: Load, again_seconds: float = AGAIN_SECONDS) -> None:
        self._load = load
        self._again_seconds = again_seconds
        self._session = requests.Session()
        self._turn = 0

    def api(
        self, method: str, path: str, expected: set[int], *, once: bool = False, **options: Any
    ) -> requests.Response | None:
        return self._ask(self._load._places.apis, self._load._places.api_key, method, path, expected, once, options)

    def relay(self, method: str, path: str, expected: set[int], **options: Any) -> requests.Response | None:
        return self._ask(
            self._load._places.relays, self._load._places.relay_token, method, path, expected, False, options
        )

    def _ask(
        self, places: tuple[str, ...], token: str, method: str, path: str, expected: set[int], once: bool, options: Mapping[str, Any]
    ) -> requests.Response | None:  # fmt: skip
        options = {**options, "headers": {"Authorization": f"Bearer {token}"} | dict(options.get("headers", {}))}
        while True:
            self._turn += 1
            answer = self._try(method, places[self._turn % len(places)] + path, options)
            if answer is not None and answer.status_code in expected:
                return answer
            if answer is None or answer.status_code in AGAIN:
                self._load.counts["unanswered" if answer is None else str(answer.status_code)] += 1
            else:
                self._load.refused.append(Refused(f"{method} {path[:60]}", answer.status_code, answer.text[:200]))
            if once or time.monotonic() > self._load._until:
                return None
            time.sleep(self._again_seconds)

    def _try(self, method: str, url: str, options: Mapping[str, Any]) -> requests.Response | None:
        try:
            return self._session.request(method, url, timeout=(3.0, ANSWER_SECONDS), **options)
        except requests.RequestException:
            return None
