"""A client that does everything harmful that the api allows. Its programs mostly wait: they take places and locks from
others, not processor time, whose effect a test cannot distinguish from that of a busy machine.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import requests
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from tests.acceptance.webhook_sinks import Sinks
from tidings.contract.topics import channel_topic
from tidings.process.files import raise_file_limit

# The default maximum of connections of granian, the api's server, is 1,024.
SILENT = 1_100
# More than the api's 32 threads.
HALF_BODIES = 44
# The number of connections of each of the four kinds.
WEBHOOKS_EACH = 40
# To create a topic takes a tenth of a second of the broker's processor time, which this test does not measure.
CHANNELS = 20

# Each cancellation is a request, and causes two requests from the dispatcher to the relay.
REMOVED_AGAIN = 50


@dataclass
class Harmful:
    """`api` is `(host, port)`. `done` counts the actions of its programs, by their names."""

    api: tuple[str, int]
    kafka: str
    key: str
    stopped: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)

    def turns(self, pause_seconds: float) -> Iterator[int]:
        """Yield 0, 1, 2 … with a pause after each, until the client is stopped."""
        for number in count():
            if self.stopped.is_set():
                return
            yield number
            self.stopped.wait(pause_seconds)

    def count(self, program: Program, times: int = 1) -> None:
        self.done[program.__name__] += times

    def call(self, method: str, path: str, **options: Any) -> requests.Response | None:
        """Send one request. None: there was no answer, and the client continues."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        host, port = self.api
        with suppress(requests.RequestException):
            return requests.request(method, f"http://{host}:{port}{path}", headers=headers, timeout=30, **options)
        return None

    def submit(
        self, times: int = 1, *, channel: str | None = None, webhook: str | None = None, **asked: Any
    ) -> list[str]:
        """Submit a batch; `asked` is `x_provider`. Return the ids of the accepted submissions."""
        content = {"target": "demo-images", "input": {"prompt": "harm", "x_provider": {"latency_seconds": 0} | asked}}
        content |= {name: said for name, said in (("channel", channel), ("webhook", webhook)) if said is not None}
        answer = self.call("POST", "/v1/submissions/batch", json={"submissions": [content] * times})
        if answer is None or answer.status_code != 202:
            return []
        return [one["id"] for one in answer.json()["submissions"]]

    def cancel(self, ids: Iterable[str]) -> int:
        """Request the cancellation of submissions. Return their number."""
        return sum(self.call("DELETE", f"/v1/submissions/{id_}") is not None for id_ in ids)


Program = Callable[[Harmful], None]


@contextmanager
def at_work(harmful: Harmful, *programs: Program) -> Iterator[None]:
    """Run each program in a thread, until the end of the block."""
    raise_file_limit()
    threads = [threading.Thread(target=program, args=(harmful,), daemon=True) for program in programs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        harmful.stopped.set()
        for thread in threads:
            thread.join(40)
    assert not any(thread.is_alive() for thread in threads)


def silent_connections(harmful: Harmful) -> None:
    """Open connections that send no byte, and replace those that the api closes."""
    _hold(harmful, silent_connections, SILENT, [b""])


def half_bodies(harmful: Harmful) -> None:
    """Send requests that stop in the middle of their bodies, alternately a small one and a batch."""
    said = [
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {harmful.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{"
        for path, length in (("/v1/submissions", 1_000), ("/v1/submissions/batch", 1_000_000))
    ]
    _hold(harmful, half_bodies, HALF_BODIES, [one.encode() for one in said])


def large_json(harmful: Harmful) -> None:
    """Send bodies of 5 and 20 MB that consist of many values or of nested values."""
    values = b'{"target":"demo-images","input":[' + b"1," * 2_400_000 + b"1]}"
    depth = b'{"target":"demo-images","input":' + b"[" * 4_800_000
    batch = b'{"submissions":[' + b",".join([values] * 4) + b"]}"
    bodies = (("/v1/submissions", values), ("/v1/submissions", depth), ("/v1/submissions/batch", batch))
    for number in harmful.turns(1.0):
        path, body = bodies[number % len(bodies)]
        harmful.count(large_json, int(harmful.call("POST", path, data=body) is not None))


def dead_webhooks(harmful: Harmful) -> None:
    """Submit with webhooks whose receivers never answer."""
    with Sinks() as sinks:
        for number in harmful.turns(2.0):
            if number < len(sinks.urls):
                harmful.count(dead_webhooks, len(harmful.submit(WEBHOOKS_EACH, webhook=sinks.urls[number])))


def invented_channels(harmful: Harmful) -> None:
    """Submit to a new channel each time, for which the notifier must create a topic."""
    for number in harmful.turns(1.0):
        if number < CHANNELS:
            harmful.count(invented_channels, len(harmful.submit(channel=f"harm-{number}")))


def deleted_channels(harmful: Harmful) -> None:
    """Delete the topics of channels while events are written to them."""
    for number in harmful.turns(1.0):
        channel = f"harm-deleted-{number % 3}"
        harmful.submit(5, channel=channel)
        with suppress(KafkaError), _administrator(harmful) as admin:
            admin.delete_topics([_topic(channel)])
            harmful.count(deleted_channels)


def channels_that_refuse(harmful: Harmful) -> None:
    """Use channels whose topics refuse every event, as it is larger than they allow. Some of them are new."""
    for number in harmful.turns(2.0):
        channel = f"harm-refuses-{number % 6}"
        harmful.submit(2, channel=channel)
        limit = ConfigResource(ConfigResourceType.TOPIC, _topic(channel), configs={"max.message.bytes": "100"})
        with suppress(KafkaError), _administrator(harmful) as admin:
            admin.alter_configs([limit], raise_on_unknown=False)
            harmful.count(channels_that_refuse)


def failing_calls(harmful: Harmful) -> None:
    """Submit calls that hang, calls that fail and are retried, and calls that are cancelled at once."""
    hanging: list[str] = []
    for number in harmful.turns(1.0):
        hanging += harmful.submit(5, faults=["hang"] * 20, call_id=f"hangs-{number}")
        harmful.submit(5, faults=["500"] * 20, call_id=f"fails-{number}")
        harmful.count(failing_calls, harmful.cancel(harmful.submit(3, latency_seconds=60)))
    # Otherwise they would hang for minutes, during the next tests.
    harmful.cancel(hanging)


def removed_contents(harmful: Harmful) -> None:
    """Remove contents as soon as their submissions are cancelled, and repeat the removals."""
    ids: list[str] = []
    for _ in harmful.turns(1.0):
        made = harmful.submit(5, latency_seconds=60)
        harmful.cancel(made)
        ids = [*ids, *made][-REMOVED_AGAIN:]
        answers = [harmful.call("DELETE", f"/v1/submissions/{id_}/content") for id_ in ids]
        harmful.count(removed_contents, sum(answer is not None and answer.status_code == 200 for answer in answers))


PROGRAMS = (
    silent_connections, half_bodies, large_json, dead_webhooks, invented_channels, channels_that_refuse, failing_calls,
    removed_contents,
)  # fmt: skip


def _hold(harmful: Harmful, program: Program, connections: int, said: Sequence[bytes]) -> None:
    """Hold `count` connections, each of which has sent one of `said` and sends no more. Closed connections are
    replaced. At the end all are reset, and none remains in TIME_WAIT.
    """
    held: list[socket.socket] = []
    with ExitStack() as stack:
        for _ in harmful.turns(1.0):
            held = [sock for sock in held if _is_open(sock)]
            while len(held) < connections and not harmful.stopped.is_set():
                try:
                    sock = stack.enter_context(socket.create_connection(harmful.api, timeout=5))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.sendall(said[len(held) % len(said)])
                    sock.setblocking(False)
                except OSError:
                    break
                held.append(sock)
                harmful.count(program)


def _is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def _administrator(harmful: Harmful) -> Iterator[Any]:
    admin = KafkaAdminClient(bootstrap_servers=harmful.kafka, request_timeout_ms=5_000)
    try:
        yield admin
    finally:
        admin.close()


def _topic(channel: str) -> str:
    topic = channel_topic(channel)
    assert topic is not None
    return topic.name
