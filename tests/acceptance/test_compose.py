"""The system under compose: it starts from the images, a submission is completed for readers inside and outside, and it
stops.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from kafka import KafkaConsumer

from stack.jars import class_path, read_lock, repository_of
from stack.ports import free_ports
from tests.process import ROOT
from tests.wait import until

FILE = ROOT / "docker-compose.yml"
ONE_SHOT = {"migrate", "connector"}

# Ends with the first event of the submission, or after 20 s without any.
INSIDE = """
import sys
from kafka import KafkaConsumer
consumer = KafkaConsumer("tidings.completions", bootstrap_servers="kafka:9092", isolation_level="read_committed",
                         auto_offset_reset="earliest", consumer_timeout_ms=20000)
print(any(record.key.decode() == sys.argv[1] for record in consumer))
"""

# Whether the process can open a connection to Connect.
REACHES = """
import socket
try:
    socket.create_connection(("connect", 8083), 3).close()
    print(True)
except OSError:
    print(False)
"""


# The answers of Connect's REST without the password and with it.
ASKS = """
import os, requests
url = "http://connect:8083/connectors"
login = ("tidings", os.environ["TIDINGS_CONNECT_PASSWORD"])
print(requests.get(url, timeout=10).status_code, requests.get(url, auth=login, timeout=10).status_code)
"""

# The jars of the image itself that implement the password check.
EXTENSIONS = "ls /kafka/libs | grep ^connect-basic-auth-extension- || true"


class Compose:
    """A compose project with its own name, ports, secrets and volumes, so that it can run beside other projects."""

    def __init__(self, program: list[str], env_file: Path, *more: Path) -> None:
        """`more` are compose files that extend ours."""
        names = ("API", "RELAY", "KAFKA", "POSTGRES", "PROVIDER")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.secrets = _variables(env_file)
        self.project = f"tidings-test-{secrets.token_hex(4)}"
        # Not the caller's whole environment, as compose prefers its variables to those of the file.
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"} or "DOCKER_" in name}
        ports = {f"COMPOSE_{name}_PORT": str(port) for name, port in self.ports.items()}
        # Compose 1 builds with the engine itself, which needs no buildx. Compose 2 ignores the variable.
        self._environment = kept | ports | {"COMPOSE_DOCKER_CLI_BUILD": "0"}
        files = [word for file in (FILE, *more) for word in ("-f", str(file))]
        self._command = [*program, "-p", self.project, "--env-file", str(env_file), *files]

    def run(self, *words: str, seconds: float = 600) -> str:
        return self._answer([*self._command, *words], seconds)

    def states(self) -> dict[str, str]:
        """The state of each service as the engine reports it: `Up 5 seconds (healthy)`, `Exited (0) 3 seconds ago`."""
        own = f"label=com.docker.compose.project={self.project}"
        shown = '{{.Label "com.docker.compose.service"}}={{.Status}}'
        lines = self._answer(["docker", "ps", "--all", "--filter", own, "--format", shown], 30).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def _answer(self, command: list[str], seconds: float) -> str:
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The project with all services running and healthy. At the end of the block everything is removed."""
    if not _succeeds("docker", "info"):
        pytest.skip("no Docker engine answers")
    programs = (["docker", "compose"], ["docker-compose"])
    program = next((words for words in programs if _succeeds(*words, "version")), None)
    if program is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    directory = tmp_path_factory.mktemp("compose")
    made = Compose(program, _new_env_file(directory), *_with_extension(directory))
    try:
        made.run("up", "-d", "--build")
        until(lambda: not _unwell(made.states()), 180, every=0.5)
        yield made
    finally:
        made.run("down", "-v", "--remove-orphans")


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_a_submission_is_completed_for_readers_inside_and_outside(compose: Compose) -> None:
    api = f"http://127.0.0.1:{compose.ports['API']}"
    headers = {"Authorization": f"Bearer {compose.secrets['TIDINGS_API_KEY']}"}
    content = {"target": "demo-images", "input": {"prompt": "a whale", "x_provider": {"latency_seconds": 0.1}}}
    answer = requests.post(f"{api}/v1/submissions", json=content, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    id_ = answer.json()["id"]

    event = _told_outside(id_, compose.ports["KAFKA"])
    assert event["outcome"] == "succeeded"
    assert requests.get(event["output"]["data"][0]["url"], timeout=10).content.startswith(b"\x89PNG")
    assert requests.get(event["result"]["url"], headers=headers, timeout=10).json() == event["output"]
    assert compose.run("exec", "-T", "notifier", "python", "-c", INSIDE, id_).strip() == "True"


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_connect_is_reached_by_the_watcher_and_not_by_the_relay(compose: Compose) -> None:
    found = {name: compose.run("exec", "-T", name, "python", "-c", REACHES).strip() for name in ("watcher", "relay")}
    assert found == {"watcher": "True", "relay": "False"}


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_connect_asks_for_its_password(compose: Compose) -> None:
    assert compose.run("exec", "-T", "watcher", "python", "-c", ASKS).split() == ["401", "200"]


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_no_process_of_ours_runs_as_root(compose: Compose) -> None:
    ours = ("api", "relay", "dispatcher", "notifier", "watcher", "provider")
    users = {name: compose.run("exec", "-T", name, "id", "-u").strip() for name in ours}
    assert users == dict.fromkeys(ours, "10001")


def test_the_env_file_has_each_secret_that_compose_requires_and_is_not_overwritten(tmp_path: Path) -> None:
    path = _new_env_file(tmp_path)
    first = path.read_text()
    made = _variables(path)
    providers = Path(made.pop("TIDINGS_PROVIDERS_ENV"))
    assert set(made) == set(re.findall(r"\$\{([A-Z_]+):\?", FILE.read_text()))
    assert (providers.parent, providers.stat().st_mode & 0o777) == (tmp_path, 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert _new_env_file(tmp_path).read_text() == first


def _with_extension(directory: Path) -> list[Path]:
    """A compose file that adds Kafka's own jar to an image that was built without it. The distribution contains the
    jar, and so does the public image.
    """
    image = yaml.safe_load(FILE.read_text())["services"]["connect"]["image"]
    command = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", EXTENSIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    if done.stdout.strip():
        return []
    jars = [jar for jar in read_lock() if jar.artifact == "connect-basic-auth-extension"]
    [kept] = class_path(jars, repository_of(os.environ))
    jar = directory / kept.name
    shutil.copyfile(kept, jar)
    jar.chmod(0o644)  # the image's user is not root
    mounted = {"version": "3.8", "services": {"connect": {"volumes": [f"{jar}:/kafka/libs/{jar.name}:ro"]}}}
    added = directory / "with-extension.yml"
    added.write_text(yaml.safe_dump(mounted))
    return [added]


def _told_outside(submission_id: str, port: int) -> dict[str, Any]:
    """The submission's completion event, read through the host's listener."""
    consumer = KafkaConsumer(
        "tidings.completions",
        bootstrap_servers=f"127.0.0.1:{port}",
        isolation_level="read_committed", auto_offset_reset="earliest", consumer_timeout_ms=60_000,
    )  # fmt: skip
    try:
        found = next((record.value for record in consumer if record.key.decode() == submission_id), None)
    finally:
        consumer.close()
    assert found is not None, "no completion within 60 s"
    return dict(json.loads(found))


def _unwell(states: dict[str, str]) -> dict[str, str]:
    """The services that are not healthy, and the one-shot services that have not exited with 0."""
    services = yaml.safe_load(FILE.read_text())["services"]
    wanted = {name: "Exited (0)" if name in ONE_SHOT else "(healthy)" for name in services}
    return {name: states.get(name, "missing") for name, word in wanted.items() if word not in states.get(name, "")}


def _new_env_file(directory: Path) -> Path:
    path = directory / "env"
    subprocess.run([sys.executable, str(ROOT / "stack" / "compose_env.py"), str(path)], check=True)
    return path


def _variables(env_file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in env_file.read_text().splitlines())


def _succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
