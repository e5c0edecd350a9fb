"""The compose way: brought up from the images, a submission told inside and outside, brought down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from kafka import KafkaConsumer

from stack.ports import free_ports
from tests.process import ROOT
from tests.wait import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

INSIDE = """
import sys
from kafka import KafkaConsumer
id_ = sys.argv[1]
consumer = KafkaConsumer("tidings.completions", bootstrap_servers="kafka:9092", isolation_level="read_committed",
                         auto_offset_reset="earliest", consumer_timeout_ms=20000)
print(id_ in (record.key.decode() for record in consumer))
"""


class Compose:
    def __init__(self, env_file: Path) -> None:
        names = ("API", "RELAY", "KAFKA", "POSTGRES", "PROVIDER")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        ports = {f"COMPOSE_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.secrets = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        self.environment = (
            dict(os.environ) | ports | self.secrets | {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        )
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        self._command = [*program, "-p", "tidings-test", "-f", str(ROOT / "docker-compose.yml")]

    def run(self, *words: str, seconds: float = 600) -> str:
        done = subprocess.run(
            [*self._command, *words],
            env=self.environment, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no Docker engine answers")
    env_file = tmp_path_factory.mktemp("compose") / "env"
    subprocess.run([sys.executable, str(ROOT / "stack" / "compose_env.py"), str(env_file)], check=True)
    made = Compose(env_file)
    try:
        yield made
    finally:
        made.run("down", "-v", "--remove-orphans")


def test_a_submission_is_told_inside_and_outside(compose: Compose) -> None:
    compose.run("up", "-d", "--build")
    api = f"http://127.0.0.1:{compose.ports['API']}"

    def ready() -> bool:
        try:
            return requests.get(f"{api}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    until(ready, 180)
    headers = {"Authorization": f"Bearer {compose.secrets['TIDINGS_API_KEY']}"}
    content = {"target": "demo-images", "input": {"prompt": "a whale", "x_provider": {"latency_seconds": 0.1}}}
    answer = requests.post(f"{api}/v1/submissions", json=content, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    id_ = answer.json()["id"]

    def ended() -> bool:
        shown = requests.get(f"{api}/v1/submissions/{id_}", headers=headers, timeout=10).json()
        assert shown["outcome"] in {None, "succeeded"}, shown
        return bool(shown["outcome"])

    until(ended, 120)
    consumer = KafkaConsumer(
        "tidings.completions",
        bootstrap_servers=f"127.0.0.1:{compose.ports['KAFKA']}",
        isolation_level="read_committed", auto_offset_reset="earliest", consumer_timeout_ms=60_000,
    )  # fmt: skip
    event = next(json.loads(record.value) for record in consumer if record.key.decode() == id_)
    consumer.close()
    assert requests.get(event["output"]["data"][0]["url"], timeout=10).content.startswith(b"\x89PNG")
    assert compose.run("exec", "-T", "notifier", "python", "-c", INSIDE, id_).strip() == "True"
    assert compose.run("exec", "-T", "api", "id", "-u").strip() != "0"
