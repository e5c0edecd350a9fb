"""Starts a whole stack on free ports with the commands that users run, and stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psutil
import requests
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.structs import TopicPartition

from stack.home import PORTS, Home, open_home
from stack.ports import free_ports
from stack.servers import answers
from tests.process import ROOT
from tests.wait import patient, until

ENDED = {"succeeded", "failed", "cancelled", "expired"}
# Of the tests' environment, a stack gets only the paths of programs and the network settings: its first start may fetch
# jars through a proxy, or with a company's certificate authority.
KEPT = (
    "PATH", "HOME", "LANG", "JAVA_HOME", "XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip

# No provider is called with this key. The tests check which processes have it.
PROVIDER_KEY = "sk-canary-of-the-tests"


class Stack:
    """A running stack as its user sees it: `stack.submit(...)`, `stack.completions(...)`, `stack.kill("relay")`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        # A command that executes the command after it, for example in another namespace.
        self.wrapper: Sequence[str] = ()
        self.home: Home = open_home(environment)
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.home.secrets['api_key']}"

    def command(self, *words: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.wrapper, sys.executable, "-m", "stack", *words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=patient(seconds), check=False,
        )  # fmt: skip

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, self.home.url("api") + path, timeout=60, allow_redirects=False, **options)

    def submit(self, prompt: str = "a boat", **asked: Any) -> str:
        """Submit to demo-images. Keyword arguments become `x_provider`. Return the id."""
        content = {
            "target": "demo-images",
            "input": {"prompt": prompt, "x_provider": {"latency_seconds": 0.05} | asked},
        }
        answer = self.call("POST", "/v1/submissions", json=content)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def shown(self, submission_id: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/submissions/{submission_id}").json())

    def ended(self, submission_id: str, seconds: float = 60) -> dict[str, Any]:
        return until(lambda: shown if (shown := self.shown(submission_id))["status"] in ENDED else None, seconds) or {}

    def calls(self, call_id: str) -> dict[str, Any]:
        """The provider's counts for a `call_id`."""
        return dict(requests.get(f"{self.home.url('provider')}/calls/{call_id}", timeout=10).json())

    def completions(self, ids: set[str], seconds: float = 60) -> dict[str, list[dict[str, Any]]]:
        """Read the topic from its beginning until each of `ids` has an event. Return all committed events of `ids`."""
        consumer = KafkaConsumer(
            bootstrap_servers=f"127.0.0.1:{self.home.ports['kafka']}",
            isolation_level="read_committed", enable_auto_commit=False,
        )  # fmt: skip
        found: dict[str, list[dict[str, Any]]] = {id_: [] for id_ in ids}
        try:
            parts = [
                TopicPartition("tidings.completions", n) for n in consumer.partitions_for_topic("tidings.completions")
            ]
            consumer.assign(parts)
            consumer.seek_to_beginning()

            def all_there() -> bool:
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        if record.key.decode() in found:
                            headers = {name: value.decode() for name, value in record.headers}
                            found[record.key.decode()].append({"headers": headers, **json.loads(record.value)})
                at_end = all(consumer.position(p) >= end for p, end in consumer.end_offsets(parts).items())
                return at_end and all(found.values())

            until(all_there, seconds)
        finally:
            consumer.close()
        return found

    def process(self, module: str) -> psutil.Process:
        """The worker process of a module, without its supervisor: the oldest, as granian has child processes."""
        supervisor = psutil.Process(int(self.home.pid_file.read_text()))

        def found() -> list[psutil.Process]:
            return [p for p in supervisor.children(recursive=True) if _runs(p, module)]

        return min(until(found), key=lambda p: p.create_time())

    def kill(self, module: str) -> None:
        """Send SIGKILL and wait until the process has ended, together with its workers, which would answer /readyz
        until then.
        """
        process = self.process(module)
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGKILL)
        _, left = psutil.wait_procs(family, 20)
        assert left == []

    @contextmanager
    def without_api(self) -> Iterator[None]:
        """Kill the api, and prevent its restart until the end of the block."""
        api = self.process("services.api")
        keeper = api.parent()
        assert keeper is not None
        keeper.send_signal(signal.SIGSTOP)
        try:
            api.send_signal(signal.SIGKILL)
            until(lambda: not answers(f"{self.home.url('api')}/healthz"))
            yield
        finally:
            keeper.send_signal(signal.SIGCONT)
        self.ready("api")

    def kill_connect(self) -> None:
        """Kill the Connect worker with SIGKILL. The supervisor starts it again."""
        supervisor = psutil.Process(int(self.home.pid_file.read_text()))
        main_class = "org.apache.kafka.connect.cli.ConnectDistributed"
        [worker] = [p for p in supervisor.children(recursive=True) if main_class in _command_line(p)]
        worker.send_signal(signal.SIGKILL)
        _, left = psutil.wait_procs([worker], 20)
        assert left == []

    def ready(self, name: str, seconds: float = 60) -> None:
        until(lambda: answers(f"{self.home.url(name)}/readyz"), seconds)

    def count(self, query: LiteralString, *parameters: object) -> int:
        return int(self.value(query, *parameters))

    def value(self, query: LiteralString, *parameters: object) -> Any:
        """The single value that a query returns, run as the database's administrator."""
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.home.public_environment()["TIDINGS_DATABASE_URL"]) as connection:
            row = connection.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def change(self, statement: LiteralString, *parameters: object) -> None:
        """Execute a statement as the database's administrator, to cause a fault."""
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.home.public_environment()["TIDINGS_DATABASE_URL"]) as connection:
            connection.execute(statement, parameters)

    def keys(self, topic: str) -> set[str]:
        """The keys of the committed records that a topic contains now."""
        consumer = KafkaConsumer(
            bootstrap_servers=f"127.0.0.1:{self.home.ports['kafka']}",
            isolation_level="read_committed", enable_auto_commit=False,
        )  # fmt: skip
        found: set[str] = set()
        try:
            parts = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(parts)
            consumer.seek_to_beginning()

            def at_end() -> bool:
                for records in consumer.poll(timeout_ms=200).values():
                    found.update(record.key.decode() for record in records)
                return all(consumer.position(part) >= end for part, end in consumer.end_offsets(parts).items())

            until(at_end, 30)
        finally:
            consumer.close()
        return found

    def delete_records(self, topic: str) -> None:
        """Delete all records that a topic contains now, as its retention would."""
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{self.home.ports['kafka']}")
        consumer = KafkaConsumer(bootstrap_servers=f"127.0.0.1:{self.home.ports['kafka']}")
        try:
            parts = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
            admin.delete_records(consumer.end_offsets(parts))
        finally:
            consumer.close()
            admin.close()


def _runs(process: psutil.Process, module: str) -> bool:
    return _command_line(process)[1:3] == ["-m", module]


def _command_line(process: psutil.Process) -> list[str]:
    """The fields of the process; empty if it has ended meanwhile."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def environment_of_a_stack() -> dict[str, str]:
    """Free ports and a quick provider, without TIDINGS_HOME."""
    ports = {f"TIDINGS_PORT_{key.upper()}": str(p) for key, p in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    # The tests' receivers of webhooks are called by that name; our own processes are by address and port.
    webhooks = {"TIDINGS_WEBHOOK_ADDRESSES": "any", "RELAY_ALLOW_HOSTS": "localhost"}
    return kept | ports | webhooks | {"PROVIDER_LATENCY_SECONDS": "0.2"}


@contextmanager
def new_stack() -> Iterator[Stack]:
    """A stack that is not started yet. At the end of the block it is stopped, and its folder deleted."""
    with tempfile.TemporaryDirectory(prefix="tidings-acceptance-") as name:
        Path(name).chmod(0o755)
        stack = Stack(environment_of_a_stack() | {"TIDINGS_HOME": f"{name}/home", "OPENAI_API_KEY": PROVIDER_KEY})
        try:
            yield stack
        finally:
            stack.command("down")
