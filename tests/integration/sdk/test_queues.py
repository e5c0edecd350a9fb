"""`client.queue` and enqueueing: first in, first out, with the queue's parallelism."""

from __future__ import annotations

import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.message import EnqueueResponse, EnqueueUrlGroupResponse

from tests.destination import Destination, Reply
from tests.integration.sdk.seen import buried, delivered, sent
from tests.wait import until


def paths(site: Destination) -> list[str]:
    return [received.path for received in list(site.received)]


def test_a_queue_from_creation_to_deletion(client: QStash) -> None:
    client.queue.upsert("queue", parallelism=1)
    first = client.queue.get("queue")
    assert (first.name, first.parallelism, first.lag, first.paused) == ("queue", 1, 0, False)
    assert 0 < first.created_at <= first.updated_at
    client.queue.upsert("queue", parallelism=2)
    second = client.queue.get("queue")
    assert (second.parallelism, second.created_at) == (2, first.created_at)
    assert second.updated_at >= first.updated_at
    client.queue.upsert("other")
    assert sorted(queue.name for queue in client.queue.list()) == ["other", "queue"]
    client.queue.delete("queue")
    assert [queue.name for queue in client.queue.list()] == ["other"]
    with pytest.raises(QStashError, match="404"):
        client.queue.get("queue")


def test_pausing_by_call_and_by_upsert(client: QStash) -> None:
    def paused() -> bool:
        return client.queue.get("queue").paused

    client.queue.upsert("queue")
    client.queue.pause("queue")
    assert paused()
    client.queue.resume("queue")
    assert not paused()
    client.queue.upsert("queue", paused=True)
    assert paused()
    client.queue.upsert("queue", paused=False)
    assert not paused()


def test_a_paused_queue_delivers_nothing_until_resumed_and_counts_its_lag(client: QStash, site: Destination) -> None:
    client.queue.upsert("queue", paused=True)
    for n in range(3):
        client.message.enqueue(queue="queue", url=f"{site.url}/{n}x", body=str(n))
    assert client.queue.get("queue").lag == 3
    delivered(client, sent(client.message.publish(url=f"{site.url}/unqueued")))
    assert paths(site) == ["/unqueued"]
    client.queue.resume("queue")
    until(lambda: client.queue.get("queue").lag == 0)
    assert paths(site) == ["/unqueued", "/0x", "/1x", "/2x"]


def test_enqueueing_creates_the_queue(client: QStash, site: Destination) -> None:
    message_id = sent(
        client.message.enqueue(queue="new", url=f"{site.url}/a", body="text", headers={"test-header": "v"})
    )
    assert client.message.get(message_id).queue == "new"
    assert client.queue.get("new").parallelism == 1
    assert delivered(client, message_id).queue == "new"
    assert (site.received[0].body, site.received[0].headers["Test-Header"]) == (b"text", "v")


def test_json_is_enqueued_with_its_label(client: QStash, site: Destination) -> None:
    message_id = sent(client.message.enqueue_json(queue="queue", url=site.url, body={"a": 1}, label="mine"))
    assert client.message.get(message_id).label == "mine"
    delivered(client, message_id)
    assert site.received[0].headers["Content-Type"] == "application/json"


def test_the_next_waits_for_the_retries_and_callbacks_of_the_current(client: QStash, site: Destination) -> None:
    statuses = iter([500, 500, 200])
    site.answer = lambda received: Reply(next(statuses) if received.path == "/first" else 200)
    client.message.enqueue(
        queue="queue", url=f"{site.url}/first", retries=3, retry_delay="100", callback=f"{site.url}/callback"
    )
    last = sent(client.message.enqueue(queue="queue", url=f"{site.url}/second"))
    delivered(client, last)
    assert paths(site)[-1] == "/second"
    assert (paths(site).count("/first"), paths(site).count("/callback")) == (3, 3)


def test_the_queue_continues_after_a_failure(client: QStash, site: Destination) -> None:
    failing = sent(client.message.enqueue(queue="queue", url=f"{site.url}/404", retries=0))
    delivered(client, sent(client.message.enqueue(queue="queue", url=f"{site.url}/next")))
    assert buried(client, failing).queue == "queue"
    assert paths(site) == ["/404", "/next"]


def test_parallelism_is_used_and_obeyed(client: QStash, site: Destination) -> None:
    client.queue.upsert("queue", parallelism=2)
    for _ in range(3):
        client.message.enqueue(queue="queue", url=f"{site.url}/slow", timeout=60)
    until(lambda: len(site.received) == 2)
    assert client.queue.get("queue").lag == 3
    client.queue.upsert("queue", parallelism=3)
    until(lambda: len(site.received) == 3)


def test_cancelling_the_head_admits_the_next(client: QStash, site: Destination) -> None:
    head = sent(client.message.enqueue(queue="queue", url=f"{site.url}/slow"))
    following = sent(client.message.enqueue(queue="queue", url=f"{site.url}/next"))
    until(lambda: site.to("/slow"))
    client.message.cancel(head)
    delivered(client, following)


def test_enqueueing_to_a_group_reaches_every_endpoint(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints("group", [{"url": f"{site.url}/a"}, {"url": f"{site.url}/b"}])
    answers = client.message.enqueue(queue="queue", url_group="group", body="x")
    assert isinstance(answers, list)
    assert all(isinstance(answer, EnqueueUrlGroupResponse) for answer in answers)
    for answer in answers:
        delivered(client, answer.message_id)
    assert sorted(paths(site)) == ["/a", "/b"]


def test_an_enqueued_duplicate_is_not_enqueued_again(client: QStash) -> None:
    client.queue.upsert("queue", paused=True)
    first = client.message.enqueue(queue="queue", url="https://example.com", deduplication_id="once")
    second = client.message.enqueue(queue="queue", url="https://example.com", deduplication_id="once")
    assert isinstance(first, EnqueueResponse)
    assert isinstance(second, EnqueueResponse)
    assert (second.message_id, first.deduplicated, second.deduplicated) == (first.message_id, False, True)
    assert client.queue.get("queue").lag == 1


@pytest.mark.parametrize("name", ["with space", "ümlaut", "a:b"])
def test_a_faulty_name_is_refused(client: QStash, name: str) -> None:
    with pytest.raises(QStashError, match="400"):
        client.queue.upsert(name)
