"""The dispatcher with a fake partition, and one HTTP server that stands in for both the relay and the api."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs

import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher.api_client import ApiClient
from services.dispatcher.dispatcher import Connection, Dispatcher
from services.dispatcher.message import Callbacks, MessageBuilder, Webhooks
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.relay_client import RelayClient
from services.dispatcher.sender import Sender
from services.dispatcher.timing import Timing
from tests.destination import Received, Reply, destination
from tests.unit.dispatcher.broker import Letters, Partitions
from tidings.contract.targets import Disabled, Resolved, Target
from tidings.contract.topics import REMOVALS, RESULTS, SUBMISSIONS
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

SECRET = f"whsec_{base64.b64encode(b's' * 32).decode()}"
TARGET = Target(name="on", url="https://provider.example/v1", retries=3, timeout_seconds=5)
TARGETS: dict[str, Resolved | Disabled] = {
    "on": Resolved(TARGET, TARGET.url, {"Authorization": "Bearer sk"}),
    "off": Disabled(TARGET, "target off is disabled: KEY not set"),
}


class Dispatching:
    """`relay` and `api` answer requests. Tests replace them."""

    def __init__(self) -> None:
        self.partitions, self.letters = Partitions(), Letters()
        self.targets: dict[str, str] = {}
        self.ended: set[str] = set()
        self.invisible: set[str] = set()
        self.api_away = False
        self.asked = 0
        self.fetched: Callable[[], None] = lambda: None
        self.published: list[dict[str, Any]] = []
        self.refused: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.relay: Callable[[Received], Reply] = self.accept
        self.requests_to_relay = 0
        self.cancels = Reply()
        self.knows_kinds = True
        self.removed: list[dict[str, Any]] = []
        self.removal_reply = Reply()
        self.live: set[str] = set()
        self.callback_letters: dict[str, list[str]] = {}
        self.letters_at_relay: dict[str, str] = {}
        self.asked_live: list[list[str]] = []
        self.labels_reply: Reply | None = None
        self.progress = Progress(lambda: self.partitions.now)
        self.dispatcher: Dispatcher
        self.url = ""
        self.registry = CollectorRegistry()

    def counted(self, name: str) -> float:
        return self.registry.get_sample_value(f"{name}_total") or 0.0

    def end(self, id_: str, outcome: str, *, op: str = "c", webhook: str | None = None) -> None:
        row = {
            "submission_id": id_, "event_id": str(uuid.uuid4()), "tenant": "t", "target": "on", "outcome": outcome,
            "webhook": webhook, "submitted_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:01Z",
        }  # fmt: skip
        self.partitions.add(RESULTS, json.dumps({"op": op, "after": row}).encode())

    def submit(self, *ids: str, target: str = "on", op: str = "c", **columns: str) -> None:
        for id_ in ids:
            self.targets[id_] = target
            row = {"id": id_, "tenant": "t", "target": target} | columns
            self.partitions.add(SUBMISSIONS, json.dumps({"op": op, "after": row}).encode())

    def remove(self, id_: str, *message_ids: str, op: str = "c") -> None:
        row = {"submission_id": id_, "message_ids": message_ids, "removed_at": "2026-01-01T00:00:00Z"}
        self.partitions.add(REMOVALS, json.dumps({"op": op, "after": row}).encode())

    def run(self, seconds: float = 2.0) -> None:
        until = self.partitions.now + seconds
        while self.partitions.now < until:
            self.dispatcher.run_once()
            self.progress.round_completed(2)

    def accept(self, received: Received) -> Reply:
        messages = json.loads(received.body)
        self.published += messages
        return Reply(body=json.dumps([{"messageId": f"m{n}"} for n in range(len(messages))]).encode())

    def labels(self) -> list[str]:
        return [message["headers"]["Upstash-Label"] for message in self.published]

    def answer(self, received: Received) -> Reply:
        path, _, query = received.path.partition("?")
        if path == "/internal/dispatches":
            return Reply(503) if self.api_away else self._dispatches(received)
        if path == "/callbacks/relay":
            self.refused[query.removeprefix("submission=")] = json.loads(received.body)["error"]
            return Reply()
        if path == "/v2/labels":
            self.asked_live.append(json.loads(received.body)["labels"])
            held = {"live": sorted(self.live), "callbackLetters": self.callback_letters}
            return self.labels_reply or Reply(body=json.dumps(held).encode())
        if path == "/v2/dlq":
            [label] = parse_qs(query)["label"]
            letters = [{"dlqId": self.letters_at_relay[label]}] if label in self.letters_at_relay else []
            return Reply(body=json.dumps({"messages": letters}).encode())
        if path == "/v2/contents/remove":
            self.removed.append(json.loads(received.body))
            return self.removal_reply
        self.requests_to_relay += 1
        return self._cancel(query) if received.method == "DELETE" else self.relay(received)

    def _dispatches(self, received: Received) -> Reply:
        self.asked += 1
        body = json.dumps(self._bodies(json.loads(received.body)["ids"])).encode()
        self.fetched()
        return Reply(body=body)

    def _cancel(self, query: str) -> Reply:
        pairs = query.split("&")
        self.cancelled += [pair.removeprefix("label=") for pair in pairs if pair.startswith("label=")]
        known = self.knows_kinds or "kind=message" not in pairs
        return self.cancels if known else Reply(400, b'{"error": "unknown filter"}')

    def _bodies(self, ids: Sequence[str]) -> dict[str, Any]:
        # Two per answer, as if all were large.
        rows = [
            {"id": id_, "target": self.targets[id_], "content_type": "application/json", "body": "{}", "ended": id_ in self.ended}
            for id_ in ids[:2] if id_ not in self.invisible
        ]  # fmt: skip
        return {"submissions": rows, "left_out": list(ids[2:])}


@pytest.fixture
def dispatching() -> Iterator[Dispatching]:
    parts = Dispatching()
    with destination(parts.answer) as server:
        parts.url = server.url
        timing = Timing(now=lambda: 1.8e9, clock=lambda: parts.partitions.now, jitter=lambda: 0.0)
        telemetry = Telemetry(DispatcherMetrics(parts.registry), log.get("test"))
        sender = Sender(
            RelayClient(server.url, "token"),
            ApiClient(server.url, server.url, internal_token="i", signing_key="k" * 32, now=timing.now),
            MessageBuilder(TARGETS, Callbacks(server.url, "i"), Webhooks(server.url, SECRET)),
            timing=timing, telemetry=telemetry,
        )  # fmt: skip
        parts.dispatcher = Dispatcher(
            Connection(parts.partitions, parts.letters), sender,
            timing=timing, progress=parts.progress, telemetry=telemetry,
        )  # fmt: skip
        yield parts
