"""Several dispatcher processes on a real broker: others by name share the partitions, and one of the same name replaces."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
import requests
from kafka import KafkaProducer

from stack.ports import free_ports
from tests.destination import Received, Reply, destination
from tests.infra.kafka import Broker
from tests.integration.processes.conftest import Make, Neighbours, nobody
from tests.process import Process, started
from tests.wait import until
from tidings.contract.topics import SUBMISSIONS, TOPICS
from tidings.kafka.cluster import Cluster
from tidings.kafka.loop import EXIT_FENCED
from tidings.kafka.topics import create_topics

# In each round, so that each of the partitions has some.
SUBMITTED = 20


class Around:
    """The broker, and one server that is both the relay and the api."""

    def __init__(self, broker: Broker) -> None:
        create_topics(Cluster(broker.bootstrap), TOPICS)
        self.there: Neighbours = replace(nobody(), kafka=broker.bootstrap)
        self.ids: list[str] = []
        self.published: set[str] = set()

    def answer(self, received: Received) -> Reply:
        content = json.loads(received.body or b"{}")
        match received.path.partition("?")[0]:
            case "/v2/batch":
                self.published |= {message["headers"]["Upstash-Label"] for message in content}
                return Reply(body=json.dumps([{"messageId": "m"}] * len(content)).encode())
            case "/internal/dispatches":
                rows = [
                    {
                        "id": id_,
                        "target": "demo-images",
                        "content_type": "application/json",
                        "body": "{}",
                        "ended": False,
                    }
                    for id_ in content["ids"]
                    if id_ in self.ids
                ]
                return Reply(body=json.dumps({"submissions": rows, "left_out": []}).encode())
        return Reply()

    def submit(self) -> None:
        ids = [str(uuid.uuid4()) for _ in range(SUBMITTED)]
        self.ids += ids
        with closing(KafkaProducer(bootstrap_servers=self.there.kafka, acks="all")) as producer:
            for id_ in ids:
                row = {"id": id_, "tenant": "t", "target": "demo-images"}
                producer.send(SUBMISSIONS, key=id_.encode(), value=json.dumps({"op": "c", "after": row}).encode())
            producer.flush(timeout=30)

    def all_published(self) -> bool:
        return set(self.ids) <= self.published


@pytest.fixture
def around(broker: Broker) -> Iterator[Around]:
    made = Around(broker)
    with destination(made.answer) as server:
        made.there = replace(made.there, relay=server.url, api=server.url)
        yield made


def dispatcher(make: Make, around: Around, instance: str) -> Process:
    settings = {"TIDINGS_PROVIDER_URL": around.there.api, "DISPATCHER_INSTANCE": instance}
    return make("services.dispatcher", around.there, free_ports(1)[0], **settings)


def sent(process: Process) -> float:
    """The submissions that this dispatcher passed to the relay."""
    text = requests.get(str(process.ready_url).replace("/healthz", "/metrics"), timeout=30).text
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("tidings_dispatched_total"))


def test_two_share_the_submissions_and_one_takes_over_when_the_other_is_killed(make: Make, around: Around) -> None:
    name = uuid.uuid4().hex[:8]
    first, second = (dispatcher(make, around, f"test-{name}-{number}") for number in (1, 2))

    def work(*processes: Process) -> bool:
        around.submit()
        return all(sent(process) for process in processes)

    with ExitStack() as stack:
        for process in (first, second):
            stack.enter_context(started(process))
        until(lambda: work(first, second), 60, every=0.5)
        first.kill()
        work(second)
        until(around.all_published, 60)


def test_one_ends_when_another_takes_its_name(make: Make, around: Around) -> None:
    name = f"test-{uuid.uuid4().hex[:8]}"
    with started(dispatcher(make, around, name)) as first:
        around.submit()
        until(around.all_published, 60)
        with started(dispatcher(make, around, name)) as second:
            assert first.wait(60) == EXIT_FENCED
            around.submit()
            until(around.all_published, 60)
            assert second.running()
