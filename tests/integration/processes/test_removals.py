"""Removals of contents have their own loop in the dispatcher: a relay that does not execute them delays no call."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import requests
from kafka import KafkaProducer

from stack.ports import free_ports
from tests.destination import Received, Reply, destination
from tests.infra.kafka import Broker
from tests.integration.processes.conftest import Make, nobody
from tests.process import started
from tests.wait import until
from tidings.contract.topics import REMOVALS, SUBMISSIONS, TOPICS
from tidings.kafka.cluster import Cluster
from tidings.kafka.topics import create_topics


def test_a_call_is_sent_while_a_removal_hangs_at_the_relay(make: Make, broker: Broker) -> None:
    id_, removed, port = str(uuid.uuid4()), str(uuid.uuid4()), free_ports(1)[0]

    def answer(received: Received) -> Reply:
        content = json.loads(received.body or b"{}")
        match received.path.partition("?")[0]:
            case "/v2/contents/remove" if removed in json.dumps(content):
                return Reply(delay_seconds=3600)
            case "/v2/batch":
                return Reply(body=json.dumps([{"messageId": "m"}] * len(content)).encode())
            case "/internal/dispatches":
                row = {
                    "id": id_,
                    "target": "demo-images",
                    "content_type": "application/json",
                    "body": "{}",
                    "ended": False,
                }
                known = [row] if id_ in content["ids"] else []
                return Reply(body=json.dumps({"submissions": known, "left_out": []}).encode())
        return Reply()

    create_topics(Cluster(broker.bootstrap), TOPICS)
    with destination(answer) as server, closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer:
        there = replace(nobody(), kafka=broker.bootstrap, relay=server.url, api=server.url)
        settings = {"TIDINGS_PROVIDER_URL": server.url, "DISPATCHER_INSTANCE": f"test-{uuid.uuid4().hex[:8]}"}
        with started(make("services.dispatcher", there, port, **settings)):
            row = {"submission_id": removed, "message_ids": [], "removed_at": "2026-01-01T00:00:00Z"}
            _tell(producer, REMOVALS, removed, row)
            until(lambda: any(removed in asked.body.decode() for asked in server.to("/v2/contents/remove")), 90)
            _tell(producer, SUBMISSIONS, id_, {"id": id_, "tenant": "t", "target": "demo-images"})
            until(lambda: any(id_ in asked.body.decode() for asked in server.to("/v2/batch")), 90)
            # The call was sent before the timeout of the removal.
            assert _metric(port, "tidings_dispatcher_unavailable_total") == 0.0


def _tell(producer: KafkaProducer, topic: str, key: str, row: Mapping[str, object]) -> None:
    value = json.dumps({"op": "c", "after": row}).encode()
    producer.send(topic, key=key.encode(), value=value).get(30)


def _metric(port: int, name: str) -> float:
    lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text.splitlines()
    [line] = [line for line in lines if line.startswith(f"{name} ")]
    return float(line.split()[1])
