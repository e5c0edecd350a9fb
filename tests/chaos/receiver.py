"""The run's own destinations: of limited calls, of direct messages, and of webhooks."""

from __future__ import annotations

import json
import threading
import time
import zlib
from urllib.parse import parse_qs, urlsplit

from tests.chaos.evidence import Arrival, Webhook
from tests.destination import Destination, Received, Reply

# Much shorter than the relay's lease in a run: a call of a dead relay has ended here before it is repeated.
LATENCY_SECONDS_MAX = 1.2
# One message of this number is answered with 500 the first time.
FAILS_ONE_OF = 10


class Receiver:
    """`arrivals` and `webhooks` are the received requests. A path is `/calls/<limit>?key=…` or `/hook`."""

    def __init__(self, host: str) -> None:
        """`host` is the receiver's name for the relay."""
        self.arrivals: list[Arrival] = []
        self.webhooks: list[Webhook] = []
        self._failed: set[str] = set()
        self._closing = threading.Event()
        self._destination = Destination(self._answer)
        self.url = self._destination.url.replace("127.0.0.1", host)

    def close(self) -> None:
        self._closing.set()
        self._destination.close()

    def _answer(self, received: Received) -> Reply:
        if received.path.startswith("/hook"):
            headers = {name.lower(): value for name, value in received.headers.items()}
            submission_id = str(json.loads(received.body)["data"]["submission_id"])
            self.webhooks.append(Webhook(submission_id, headers["webhook-id"]))
            return Reply()
        began = time.time()
        parts = urlsplit(received.path)
        [key] = parse_qs(parts.query).get("key") or [json.loads(received.body)["x_provider"]["call_id"]]
        chance = zlib.crc32(key.encode())
        self._closing.wait(chance % 1000 / 1000 * LATENCY_SECONDS_MAX)
        self.arrivals.append(Arrival(key, parts.path.rpartition("/")[2], began, time.time()))
        if chance % FAILS_ONE_OF == 0 and key not in self._failed:
            self._failed.add(key)
            return Reply(500)
        return Reply(200, b'{"created": 1, "data": []}')
