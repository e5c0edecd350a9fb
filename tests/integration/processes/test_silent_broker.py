"""A broker is suspended with its connections open: every wait ends, and the work continues afterwards."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import requests
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from stack.ports import free_ports
from stack.servers import Server, kafka
from tests.infra.kafka import Broker, jvm
from tests.integration.notifier.conftest import Topics
from tests.integration.processes.conftest import Make, Neighbours
from tests.process import Process, started
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, RESULTS
from tidings.kafka.failures import StalledError
from tidings.kafka.transactions import Outgoing, Transactions, transactional_producer
from tidings.process.shutdown import END_SECONDS, EXIT_CUT_SHORT


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, docker: bool) -> Iterator[tuple[Server, Topics]]:
    """A broker for this module alone, which the tests may suspend."""
    if docker:
        pytest.skip("stops a process of this machine")
    port, controller = free_ports(2)
    server = kafka(jvm(), tmp_path_factory.mktemp("kafka"), port=port, controller_port=controller).start()
    try:
        server.wait()
        yield server, Topics(Broker(port))
    finally:
        server.stop()


@contextmanager
def _stopped(server: Server) -> Iterator[None]:
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_commit_without_an_answer_times_out_and_the_next_one_works(own: tuple[Server, Topics]) -> None:
    server, topics = own
    name = uuid.uuid4().hex
    offsets = {TopicPartition(RESULTS, 0): OffsetAndMetadata(0, "", -1)}

    def commit(value: bytes) -> None:
        transactions.commit([Outgoing(COMPLETIONS, name.encode(), value, ())], offsets, name)

    with closing(
        Transactions(lambda: transactional_producer(topics.cluster, name), clock=time.monotonic)
    ) as transactions:
        commit(b"first")
        with _stopped(server), pytest.raises((StalledError, KafkaError)):
            commit(b"into silence")

        def again() -> bool:
            try:
                commit(b"second")
            except (StalledError, KafkaError):
                return False
            return True

        until(again, 120)
    values = [message.value for message in topics.read(COMPLETIONS) if message.key == name]
    assert values[0] == b"first"
    assert values[-1] == b"second"


def _status(process: Process) -> Callable[[], int]:
    return lambda: requests.get(str(process.ready_url).replace("/healthz", "/readyz"), timeout=30).status_code


@pytest.mark.parametrize("module", ["services.dispatcher", "services.notifier", "services.watcher"])
def test_sigterm_ends_a_process_whose_broker_has_stopped_responding(
    own: tuple[Server, Topics], make: Make, module: str
) -> None:
    server, topics = own
    there = Neighbours(topics.bootstrap, *(f"http://127.0.0.1:{port}" for port in free_ports(3)))
    with started(make(module, there, free_ports(1)[0])) as process:
        status = _status(process)
        if module != "services.watcher":
            until(lambda: status() == 200, 90)
        with _stopped(server):
            if module != "services.watcher":
                until(lambda: status() == 503, 120)  # it logs the fault, too
            began = time.monotonic()
            assert process.kill(signal.SIGTERM) in {0, EXIT_CUT_SHORT}
            assert time.monotonic() - began < END_SECONDS * 3
