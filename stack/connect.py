"""A real Kafka Connect worker on loopback, in distributed mode, with Debezium's Postgres connector on its class path."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path

from stack.child import Program
from stack.jvm import Jvm
from stack.template import fill

TEMPLATE = Path(__file__).resolve().parent.parent / "debezium" / "connect-worker.properties"

_HEAP_MB = 512
_ANSWER_SECONDS_MAX = 2.0


@dataclass(frozen=True)
class Connect:
    """A worker; all that it keeps is in Kafka. `database_password` is for `${env:…}` in the connector's configuration."""

    directory: Path
    jvm: Jvm
    port: int
    bootstrap_servers: str
    database_password: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def properties(self) -> Path:
        return self.directory / "connect-worker.properties"

    def create(self) -> bool:
        """Write its configuration; there is nothing else to make."""
        self.directory.mkdir(parents=True, exist_ok=True)
        values = {"bootstrap_servers": self.bootstrap_servers, "port": self.port}
        self.properties.write_text(fill(TEMPLATE.read_text(), values))
        return False

    def program(self, *, log: Path) -> Program:
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        environment = {"TIDINGS_CDC_DATABASE_PASSWORD": self.database_password}
        return Program("connect", self.jvm.command(main, [str(self.properties)], heap_mb=_HEAP_MB), environment, log)

    def ready(self) -> bool:
        """Whether the worker takes orders: it answers only once it has joined its group and read its topics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS_MAX)
        try:
            connection.request("GET", "/connectors")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
