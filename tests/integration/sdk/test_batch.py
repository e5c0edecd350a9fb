"""`client.message.batch`: many messages in one request, each with its own options."""

from __future__ import annotations

from qstash import QStash
from qstash.message import BatchJsonRequest, BatchRequest, BatchResponse, BatchUrlGroupResponse, FlowControlProperties

from tests.destination import Destination
from tests.integration.sdk.seen import delivered
from tests.wait import until


def ids(answers: object) -> list[str]:
    """The ids of messages to addresses, in the order of the batch."""
    assert isinstance(answers, list)
    assert all(isinstance(answer, BatchResponse) for answer in answers)
    return [answer.message_id for answer in answers]


def test_every_message_of_a_batch_arrives(client: QStash, site: Destination) -> None:
    messages = [
        BatchRequest(url=f"{site.url}/n{n}", body=f"hi {n}", retries=0, headers={"n": str(n), "content-type": "text/x"})
        for n in range(3)
    ]
    for message_id in ids(client.message.batch(messages)):
        delivered(client, message_id)
    found = sorted((received.path, received.body, received.headers["N"]) for received in site.received)
    assert found == [("/n0", b"hi 0", "0"), ("/n1", b"hi 1", "1"), ("/n2", b"hi 2", "2")]
    assert {received.headers["Content-Type"] for received in site.received} == {"text/x"}


def test_a_batch_of_json(client: QStash, site: Destination) -> None:
    messages = [BatchJsonRequest(url=site.url, body={"hi": n}, retries=0) for n in range(3)]
    for message_id in ids(client.message.batch_json(messages)):
        delivered(client, message_id)
    assert sorted(received.body for received in site.received) == [b'{"hi": 0}', b'{"hi": 1}', b'{"hi": 2}']


def test_a_message_without_a_body_has_none(client: QStash, site: Destination) -> None:
    [message_id] = ids(client.message.batch([{"url": site.url}]))
    delivered(client, message_id)
    assert site.received[0].body == b""


def test_every_item_has_its_own_options(client: QStash) -> None:
    answers = client.message.batch_json(
        [
            {"url": "https://example.com", "body": 1, "delay": "1h", "flow_control": {"key": "key-1", "rate": 1}},
            {
                "url": "https://example.com",
                "body": 2,
                "delay": "1h",
                "label": "two",
                "flow_control": {"key": "key-2", "rate": 23, "period": "1h30m3s"},
            },
            {"url": "https://example.com", "body": 3, "delay": 60, "flow_control": {"key": "key-3", "parallelism": 5}},
        ]
    )
    first, second, third = [client.message.get(message_id) for message_id in ids(answers)]
    assert first.flow_control == FlowControlProperties("key-1", parallelism=None, rate=1, period=1)
    assert second.flow_control == FlowControlProperties("key-2", parallelism=None, rate=23, period=5403)
    assert third.flow_control == FlowControlProperties("key-3", parallelism=5, rate=None, period=1)
    assert (first.label, second.label) == (None, "two")
    assert third.not_before - third.created_at < 120_000 < first.not_before - first.created_at


def test_items_to_queues_and_groups_may_be_mixed_with_others(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints("group", [{"url": f"{site.url}/a"}, {"url": f"{site.url}/b"}])
    queued, grouped, grouped_and_queued = client.message.batch(
        [
            {"url": f"{site.url}/queued", "queue": "queue"},
            {"url_group": "group", "body": "message"},
            {"url_group": "group", "queue": "queue"},
        ]
    )
    assert isinstance(queued, BatchResponse)
    assert isinstance(grouped, list)
    assert isinstance(grouped_and_queued, list)
    assert all(isinstance(item, BatchUrlGroupResponse) for item in grouped)
    assert {item.url for item in grouped} == {f"{site.url}/a", f"{site.url}/b"}
    assert client.message.get(queued.message_id).queue == "queue"
    assert {client.message.get(item.message_id).queue for item in grouped_and_queued} == {"queue"}
    until(lambda: len(site.received) == 5)
