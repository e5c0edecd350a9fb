"""Two clients, one of which does everything harmful that the api allows. The submissions of the other end within twice
their usual time, and once each.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from threading import Thread
from typing import Any

import requests
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from tests.acceptance.harmful import (
    HALF_BODIES,
    PROGRAMS,
    SILENT,
    Harmful,
    Program,
    at_work,
    deleted_channels,
    half_bodies,
    silent_connections,
)
from tests.acceptance.stacks import Stack
from tests.process import ROOT
from tests.wait import until

# The duration of the quiet client's calls at the provider, which is most of a submission's time, as with AI calls. The
# rest is half a second, which may double when the harm and other tests use both processors.
LATENCY_SECONDS = 4.0
NOISE_SECONDS = 2.0
# A submission that takes longer counts as one that did not end.
ENDED_SECONDS = 60.0
# The quiet client's own channel.
CHANNEL = "quiet"


def slowed(usual: Sequence[float], during: Sequence[float]) -> bool:
    """Whether submissions ended later than twice the usual time, in seconds. The highest but one of each list counts:
    two late ones of fifteen count, and one, which the machine may have delayed, does not.
    """
    return _worst_but_one(during) > 2 * _worst_but_one(usual) + NOISE_SECONDS


def _worst_but_one(times: Sequence[float]) -> float:
    return sorted(times)[-2]


class QuietClient:
    """Submits, and reads completions when they are committed."""

    def __init__(self, stack: Stack, key: str) -> None:
        self._url = stack.home.url("api") + "/v1/submissions"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._consumer: Any = KafkaConsumer(
            bootstrap_servers=stack.home.public_environment()["TIDINGS_KAFKA"],
            isolation_level="read_committed", enable_auto_commit=False,
        )  # fmt: skip
        topic = "tidings.completions"
        parts = [TopicPartition(topic, number) for number in self._consumer.partitions_for_topic(topic)]
        self._consumer.assign(parts)
        self._consumer.seek_to_end()
        for part in parts:
            self._consumer.position(part)
        self.ids: set[str] = set()

    def times(self, submissions: int, *, every_seconds: float) -> list[float]:
        """The seconds from each submission to the reading of its completion. Submissions do not wait for earlier ones."""
        arrived: dict[str, float] = {}
        begun = time.monotonic()
        with ThreadPoolExecutor(submissions) as threads:
            made: list[Future[tuple[str, float]]] = []

            def all_ended() -> bool:
                if len(made) < submissions and time.monotonic() - begun >= every_seconds * len(made):
                    made.append(threads.submit(self._submitted))
                for records in self._consumer.poll(timeout_ms=100).values():
                    for record in records:
                        arrived.setdefault(record.key.decode(), time.monotonic())
                return len(made) == submissions and all(one.done() and one.result()[0] in arrived for one in made)

            until(all_ended, every_seconds * submissions + ENDED_SECONDS, every=0)
        self.ids |= {one.result()[0] for one in made}
        return [arrived[id_] - submitted_at for id_, submitted_at in (one.result() for one in made)]

    def close(self) -> None:
        self._consumer.close()

    def _submitted(self) -> tuple[str, float]:
        """The id, and the time of the request."""
        asked_at = time.monotonic()
        asked = {"prompt": "quiet", "x_provider": {"latency_seconds": LATENCY_SECONDS}}
        content = {"target": "demo-images", "input": asked, "channel": CHANNEL}
        answer = requests.post(self._url, json=content, headers=self._headers, timeout=ENDED_SECONDS)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"]), asked_at


def _new_key(stack: Stack, tenant: str) -> str:
    environment = stack.environment | {
        "TIDINGS_ADMIN_DATABASE_URL": stack.home.public_environment()["TIDINGS_DATABASE_URL"]
    }
    made = subprocess.run(
        [sys.executable, "-m", "tidings", "keys", "create", "--tenant", tenant, "--name", "two clients"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return made.stdout.strip()


def _harmful(stack: Stack) -> Harmful:
    kafka = stack.home.public_environment()["TIDINGS_KAFKA"]
    return Harmful(("127.0.0.1", stack.home.ports["api"]), kafka, _new_key(stack, "harmful"))


def test_a_harmful_client_does_not_slow_another(stack: Stack) -> None:
    harmful = _harmful(stack)
    with closing(QuietClient(stack, _new_key(stack, "quiet"))) as quiet:
        usual = quiet.times(10, every_seconds=0.5)
        # Deletions come last, because its channels are then left out, and do no other harm.
        with at_work(harmful, *PROGRAMS):
            until(lambda: _under_way(harmful, PROGRAMS), 45)
            before = quiet.times(10, every_seconds=1.0)
            with at_work(harmful, deleted_channels):
                until(lambda: _under_way(harmful, [deleted_channels]), 20)
                during = quiet.times(15, every_seconds=1.0)
    assert not slowed(usual, before), (usual, before)
    assert not slowed(usual, during), (usual, during)
    outcomes = {id_: [event["outcome"] for event in told] for id_, told in stack.completions(quiet.ids).items()}
    assert outcomes == {id_: ["succeeded"] for id_ in quiet.ids}
    # An event may wait for its channel's topic, or for a trial of it, when the main topic already has it.
    until(lambda: quiet.ids <= stack.keys(f"tidings.completions.{CHANNEL}"), 60)
    assert quiet.ids == stack.keys(f"tidings.completions.{CHANNEL}")


def _under_way(harmful: Harmful, programs: Iterable[Program]) -> bool:
    """Whether each program has run at least once, and all connections are open."""
    held = {silent_connections.__name__: SILENT, half_bodies.__name__: HALF_BODIES}
    return all(harmful.done[name] >= held.get(name, 1) for name in (program.__name__ for program in programs))


def test_the_measure_counts_two_late_ones_and_not_one() -> None:
    usual = [4.4] * 10
    assert not slowed(usual, [4.5] * 14 + [60.0])
    assert slowed(usual, [4.5] * 13 + [12.0, 12.0])


def test_the_measure_detects_harm_to_a_server_whose_threads_read_bodies() -> None:
    """The same client and the same measure against a server that works as an earlier api did."""
    with thread_server(threads=32) as address, ThreadPoolExecutor() as threads:
        usual = [_answer_seconds(address) for _ in range(3)]
        harmful = Harmful(address, "", "key")
        with at_work(harmful, half_bodies):
            until(lambda: harmful.done[half_bodies.__name__] >= HALF_BODIES)
            during = list(threads.map(_answer_seconds, [address] * 3))
    assert not slowed(usual, usual)
    assert slowed(usual, during)


@contextmanager
def thread_server(threads: int) -> Iterator[tuple[str, int]]:
    """A simple server with `threads` threads, each of which reads a request with its body, and answers it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Not used."""

    class Server(TCPServer):
        request_queue_size = 128

        def process_request(self, request: Any, client_address: Any) -> None:
            pool.submit(self._answer, request, client_address)

        def _answer(self, request: Any, client_address: Any) -> None:
            try:
                self.finish_request(request, client_address)
            except OSError:
                pass  # the client has disconnected
            finally:
                self.shutdown_request(request)

    with ThreadPoolExecutor(threads) as pool, Server(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()
        serving.join(10)


def _answer_seconds(address: tuple[str, int]) -> float:
    """The seconds until an answer; infinite when they exceed the time that counts as slowed."""
    asked_at = time.monotonic()
    try:
        requests.post("http://{}:{}/".format(*address), data=b"{}", timeout=5 * NOISE_SECONDS)
    except requests.RequestException:
        return math.inf
    return time.monotonic() - asked_at
