"""A real Kafka 4 on loopback: one node, broker and KRaft controller in one JVM."""

from __future__ import annotations

import secrets
import socket
import struct
import subprocess
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from stack.child import Program
from stack.errors import StackError
from stack.jvm import Jvm
from stack.template import fill

TEMPLATE = Path(__file__).resolve().parent.parent / "debezium" / "broker.properties"

_HEAP_MB = 512
_FORMAT_SECONDS_MAX = 60
_ANSWER_SECONDS_MAX = 1.0


@dataclass(frozen=True)
class Kafka:
    """A node whose data are in `directory`/data."""

    directory: Path
    jvm: Jvm
    port: int
    controller_port: int

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def properties(self) -> Path:
        return self.directory / "broker.properties"

    def create(self) -> bool:
        """Write its configuration, and format its storage when there is none; true when that was done."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.properties.write_text(
            fill(
                TEMPLATE.read_text(),
                {
                    "port": self.port,
                    "controller_port": self.controller_port,
                    "log_directory": self.directory / "data",
                },
            )
        )
        if (self.directory / "data" / "meta.properties").exists():
            return False
        self._format()
        return True

    def program(self, *, log: Path) -> Program:
        command = self.jvm.command("kafka.Kafka", [str(self.properties)], heap_mb=_HEAP_MB)
        return Program("kafka", command, {}, log)

    def ready(self) -> bool:
        """Whether the broker answers Kafka's own first question."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_SECONDS_MAX) as connection:
                connection.sendall(_API_VERSIONS_REQUEST)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    def _format(self) -> None:
        cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        arguments = ["format", "--standalone", "-t", cluster, "-c", str(self.properties)]
        done = subprocess.run(
            self.jvm.command("kafka.tools.StorageTool", arguments, heap_mb=_HEAP_MB),
            capture_output=True, text=True, check=False, env={}, cwd="/", timeout=_FORMAT_SECONDS_MAX,
        )  # fmt: skip
        if done.returncode != 0:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
            raise StackError(f"Kafka's storage cannot be formatted: {said}")


# ApiVersions (key 18), version 0, correlation id 0, client id "up": the one request that every broker answers.
_BODY = struct.pack(">hhih2s", 18, 0, 0, 2, b"up")
_API_VERSIONS_REQUEST = struct.pack(">i", len(_BODY)) + _BODY
