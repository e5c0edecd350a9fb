"""The small processes, each with a minimal environment. The servers that they need may be down."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack.ports import free_ports
from tests.process import ROOT, Process

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
LISTENS = {
    "services.dispatcher": "DISPATCHER_LISTEN",
    "services.notifier": "NOTIFIER_LISTEN",
    "services.watcher": "WATCHER_LISTEN",
    "services.reconciler": "RECONCILER_LISTEN",
    "examples.provider": "PROVIDER_LISTEN",
}


@dataclass(frozen=True)
class Neighbours:
    """The addresses of the other servers, as the process gets them."""

    kafka: str
    relay: str
    api: str
    connect: str


def nobody() -> Neighbours:
    """Addresses at which no server listens."""
    kafka, relay, api, connect = (f"127.0.0.1:{port}" for port in free_ports(4))
    return Neighbours(kafka, f"http://{relay}", f"http://{api}", f"http://{connect}")


Make = Callable[..., Process]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A process that is not started yet: its module, the servers' addresses, and variables of its environment."""

    def made(module: str, there: Neighbours, port: int, **settings: str) -> Process:
        environment = {
            "TIDINGS_KAFKA": there.kafka,
            "QSTASH_URL": there.relay,
            "QSTASH_TOKEN": "token",
            "QSTASH_CURRENT_SIGNING_KEY": "k" * 32,
            "TIDINGS_API_INTERNAL_URL": there.api,
            "RECONCILER_DATABASE_URL": f"postgresql://nobody@127.0.0.1:{there.connect.rpartition(':')[2]}/none",
            "TIDINGS_INTERNAL_TOKEN": "internal",
            "TIDINGS_WEBHOOK_SECRET": SECRET,
            "TIDINGS_TARGETS_FILE": str(ROOT / "targets.toml"),
            "TIDINGS_CONNECT_URL": there.connect,
            "TIDINGS_CDC_DATABASE_HOST": "127.0.0.1",
            "TIDINGS_CDC_DATABASE_PORT": there.connect.rpartition(":")[2],
            "TIDINGS_CDC_DATABASE_NAME": "none",
            "TIDINGS_CDC_DATABASE_PASSWORD": "none",
            LISTENS[module]: f"127.0.0.1:{port}",
        }
        log = tmp_path / f"{module}-{port}.log"
        return Process(module, environment | settings, log, ready_url=f"http://127.0.0.1:{port}/healthz")

    return made
