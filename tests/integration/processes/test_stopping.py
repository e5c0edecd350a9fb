"""SIGTERM ends dispatcher, notifier and watcher within a bounded time, at any moment and whatever they wait for."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from stack.ports import free_ports
from tests.infra.kafka import Broker
from tests.infra.tcp_proxy import TcpProxy
from tests.integration.processes.conftest import Make, Neighbours, nobody
from tests.process import Process, started
from tidings.process.shutdown import END_SECONDS, EXIT_CUT_SHORT

MODULES = ["services.dispatcher", "services.notifier", "services.reconciler", "services.watcher"]
# The bound, and the same time again for a busy machine.
SECONDS = END_SECONDS * 3


def _ended(process: Process) -> None:
    began = time.monotonic()
    status = process.kill(signal.SIGTERM)
    assert status in {0, EXIT_CUT_SHORT, -signal.SIGTERM}, process.log.read_text()[-3000:]
    assert time.monotonic() - began < SECONDS


@contextmanager
def _silent() -> Iterator[str]:
    """An address at which the kernel accepts connections, and no process answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=128)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("module", MODULES)
def test_with_servers_that_do_not_respond(make: Make, module: str) -> None:
    with _silent() as address:
        there = Neighbours(address, *[f"http://{address}"] * 3)
        with started(make(module, there, free_ports(1)[0])) as process:
            _ended(process)


@pytest.mark.parametrize("module", MODULES)
def test_with_servers_that_are_down(make: Make, module: str) -> None:
    with started(make(module, nobody(), free_ports(1)[0])) as process:
        _ended(process)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("after_seconds", [0.1, 0.6, 1.2, 2.0, 3.5])
def test_at_any_moment_of_the_start(make: Make, broker: Broker, module: str, after_seconds: float) -> None:
    there = Neighbours(broker.bootstrap, *(f"http://127.0.0.1:{port}" for port in free_ports(3)))
    process = make(module, there, free_ports(1)[0])
    process.ready_url = None
    with started(process):
        time.sleep(after_seconds)
        _ended(process)


@pytest.mark.parametrize("module", MODULES)
def test_while_kafka_does_not_respond(make: Make, broker: Broker, module: str) -> None:
    [port, *others] = free_ports(4)
    proxy = TcpProxy("127.0.0.1", broker.port).start()
    try:
        # The broker gives clients its own address, so only the process's first connection stops responding.
        there = Neighbours(f"127.0.0.1:{proxy.port}", *(f"http://127.0.0.1:{other}" for other in others))
        with started(make(module, there, port)) as process:
            proxy.swallow()
            _ended(process)
    finally:
        proxy.stop()
