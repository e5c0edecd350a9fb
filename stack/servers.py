"""Kafka and Connect as child processes: write their files, start them, wait for them, stop them."""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType

from stack.environment import JAVA, caller, write_private
from stack.errors import StackError
from stack.ports import listens

DEBEZIUM = Path(__file__).resolve().parent.parent / "debezium"
# One node on a small machine: the serial collector and the quick compiler start fastest and need the fewest resources.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.awt.headless=true")
BROKER_HEAP = "-Xmx384m"
CONNECT_HEAP = "-Xmx384m"
START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 20.0
# The user of Connect's REST interface; the worker gets the password at its start.
REST_USER = "tidings"
CLUSTER_ID = "dGlkaW5ncy1uYXRpdmUtMQ"
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Jvm:
    """The settings of every Java program of the stack."""

    java: Path
    class_path: Sequence[Path]

    def command(self, heap: str, main_class: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={DEBEZIUM / 'log4j2.properties'}"
        jars = os.pathsep.join(map(str, self.class_path))
        return [str(self.java), heap, *_JVM, log4j, *options, "-cp", jars, main_class, *arguments]


def child(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one, however this one ends; its output is appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=dict(environment),
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )  # fmt: skip


def die_with_parent() -> None:
    """Make the kernel end this process with its parent (prctl PR_SET_PDEATHSIG), and leave Ctrl-C to the parent."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    os.setpgrp()


class Server:
    """One Java server: `start`, `wait`, `stop`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = command
        self._ready = ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        self._process = child(self._command, self.log, self._environment)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def wait(self) -> None:
        """Wait until the server responds. Raises `StackError` if it exits instead, or after a minute and a half."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                last = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
                raise StackError(f"{self.name} did not start; the end of {self.log}:\n{last}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def kafka(jvm: Jvm, directory: Path, *, port: int, controller_port: int, more: Mapping[str, str] = _NONE) -> Server:
    """Create the broker and format its storage once. `more` are properties beside, or instead of, the file's."""
    _make_private(directory)
    properties = _filled(
        "broker.properties",
        directory,
        port=port,
        controller_port=controller_port,
        log_directory=directory / "data",
    )
    _add(properties, more)
    if not (directory / "data" / "meta.properties").exists():
        formatting = jvm.command(
            "-Xmx128m", "kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", str(properties)
        )
        done = subprocess.run(formatting, capture_output=True, text=True, check=False, timeout=60, env=caller(JAVA))
        if done.returncode != 0:
            raise StackError(f"Kafka's storage could not be formatted: {(done.stdout + done.stderr)[-500:]}")
    command = jvm.command(BROKER_HEAP, "kafka.Kafka", str(properties))
    return Server("kafka", command, directory, lambda: listens(port), caller(JAVA))


@dataclass(frozen=True)
class ConnectPasswords:
    """`database` is Debezium's at Postgres, `rest` that of Connect's REST interface. Both consist of letters, digits,
    `-` and `_`.
    """

    database: str
    rest: str


def connect(
    jvm: Jvm, directory: Path, ports: tuple[int, int], passwords: ConnectPasswords, more: Mapping[str, str] = _NONE
) -> Server:
    """Create a distributed Connect worker with Debezium on its class path. `ports` are its own and the broker's; `more`
    are properties as for `kafka`.

    The REST interface repeats the values of a configuration that it rejects, including those of `${env:…}`, and
    therefore has a password.
    """
    port, kafka_port = ports
    _make_private(directory)
    write_private(directory / "rest-login.properties", f"{REST_USER}={passwords.rest}\n")
    login = _filled("connect-login.conf", directory, login_file=directory / "rest-login.properties")
    properties = _filled("connect-worker.properties", directory, port=port, bootstrap_servers=f"127.0.0.1:{kafka_port}")
    _add(properties, more)
    options = [f"-Djava.security.auth.login.config={login}"]
    main_class = "org.apache.kafka.connect.cli.ConnectDistributed"
    command = jvm.command(CONNECT_HEAP, main_class, str(properties), options=options)
    environment = caller(JAVA) | {"TIDINGS_CDC_DATABASE_PASSWORD": passwords.database}
    url = f"http://127.0.0.1:{port}/connectors"
    return Server("connect", command, directory, lambda: answers(url, passwords.rest), environment)


def _make_private(directory: Path) -> None:
    """Close files to other users that were written under another umask."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)


def _filled(name: str, directory: Path, **values: object) -> Path:
    text = (DEBEZIUM / name).read_text(encoding="utf-8")
    # `${env:…}` remains for Connect: safe_substitute leaves unknown names unchanged.
    path = directory / name
    path.write_text(Template(text).safe_substitute({key: str(value) for key, value in values.items()}))
    return path


def _add(properties: Path, more: Mapping[str, str]) -> None:
    """Append properties. If a name occurs twice in a properties file, the last value applies."""
    with properties.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in more.items())


def answers(url: str, rest_password: str | None = None) -> bool:
    """Return whether `url`, on loopback, responds with 200; Connect's REST interface with its password."""
    request = urllib.request.Request(url)  # noqa: S310  a loopback address of the stack
    if rest_password is not None:
        login = base64.b64encode(f"{REST_USER}:{rest_password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
