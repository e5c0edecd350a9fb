"""`AsyncQStash`: the same routes through the client's asynchronous half."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from qstash import AsyncQStash, QStash
from qstash.errors import QStashError
from qstash.message import EnqueueResponse, PublishResponse

from tests.destination import Destination
from tests.integration.relay.conftest import TOKEN, Relay
from tests.integration.sdk.seen import buried, delivered
from tests.wait import until

T = TypeVar("T")
Run = Callable[[Callable[[AsyncQStash], Awaitable[T]]], T]


@pytest.fixture
def run(relay: Relay) -> Run[object]:
    """Run one scenario with the relay in a new event loop."""

    def once(scenario: Callable[[AsyncQStash], Awaitable[object]]) -> object:
        async def scene() -> object:
            return await scenario(AsyncQStash(TOKEN, base_url=relay.url, retry=False))

        return asyncio.run(scene())

    return once


def test_messages(run: Run[object], client: QStash, site: Destination) -> None:
    async def scenario(asynchronous: AsyncQStash) -> list[str]:
        messages = asynchronous.message
        published = await messages.publish(url=f"{site.url}/a", body="text", label="mine")
        as_json = await messages.publish_json(url=f"{site.url}/b", body={"a": 1})
        enqueued = await messages.enqueue(queue="queue", url=f"{site.url}/c")
        [batched] = await messages.batch([{"url": f"{site.url}/d"}])
        delayed = [await messages.publish(url=f"{site.url}/e", delay="1h") for _ in range(4)]
        assert isinstance(published, PublishResponse)
        assert isinstance(as_json, PublishResponse)
        assert isinstance(enqueued, EnqueueResponse)
        ids = [answer.message_id for answer in delayed if isinstance(answer, PublishResponse)]
        assert (await messages.get(published.message_id)).label == "mine"
        assert not isinstance(batched, list)
        # Otherwise they would be cancelled below with the others.
        until(lambda: {received.path for received in site.received} == {"/a", "/b", "/c", "/d"})
        for one in (published, as_json, enqueued, batched):
            delivered(client, one.message_id)
        await messages.cancel(ids[0])
        assert await messages.cancel_many(ids[:3]) == 2
        assert await messages.cancel_all() >= 1
        with pytest.raises(QStashError, match="404"):
            await messages.cancel("msg_unknown")
        return [published.message_id, as_json.message_id, enqueued.message_id, batched.message_id]

    ids = run(scenario)
    assert isinstance(ids, list)
    assert len(ids) == 4
    assert {client.message.get(message_id).url for message_id in ids} == {f"{site.url}/{name}" for name in "abcd"}
    assert not [received for received in site.received if received.path == "/e"]


def test_queues_and_groups(run: Run[object]) -> None:
    async def scenario(asynchronous: AsyncQStash) -> None:
        await asynchronous.queue.upsert("queue", parallelism=2)
        await asynchronous.queue.pause("queue")
        found = await asynchronous.queue.get("queue")
        assert (found.parallelism, found.paused) == (2, True)
        await asynchronous.queue.resume("queue")
        assert [queue.paused for queue in await asynchronous.queue.list()] == [False]
        await asynchronous.queue.delete("queue")
        assert await asynchronous.queue.list() == []
        await asynchronous.url_group.upsert_endpoints(
            "group", [{"url": "https://a.example"}, {"url": "https://b.example"}]
        )
        await asynchronous.url_group.remove_endpoints("group", [{"url": "https://a.example"}])
        assert [endpoint.url for endpoint in (await asynchronous.url_group.get("group")).endpoints] == [
            "https://b.example"
        ]
        assert [group.name for group in await asynchronous.url_group.list()] == ["group"]
        await asynchronous.url_group.delete("group")
        assert await asynchronous.url_group.list() == []

    run(scenario)


def test_schedules(run: Run[object]) -> None:
    async def scenario(asynchronous: AsyncQStash) -> None:
        schedule_id = await asynchronous.schedule.create_json(
            cron="1 1 1 1 1", destination="https://example.com", body={"a": 1}, label="mine"
        )
        await asynchronous.schedule.pause(schedule_id)
        found = await asynchronous.schedule.get(schedule_id)
        assert (found.body, found.label, found.paused) == ('{"a": 1}', "mine", True)
        await asynchronous.schedule.resume(schedule_id)
        assert [schedule.paused for schedule in await asynchronous.schedule.list()] == [False]
        await asynchronous.schedule.delete(schedule_id)
        assert await asynchronous.schedule.list() == []

    run(scenario)


def test_logs_dead_letters_keys_and_flow_control(run: Run[object], client: QStash, site: Destination) -> None:
    async def fail(asynchronous: AsyncQStash) -> str:
        answer = await asynchronous.message.publish(
            url=f"{site.url}/404", retries=0, flow_control={"key": "key", "parallelism": 5}
        )
        assert isinstance(answer, PublishResponse)
        return answer.message_id

    message_id = run(fail)
    assert isinstance(message_id, str)
    letter = buried(client, message_id)

    async def look(asynchronous: AsyncQStash) -> None:
        assert {row.message_id for row in (await asynchronous.log.list(filter={"label": "none"})).logs} == set()
        assert {row.message_id for row in (await asynchronous.log.list()).logs} == {message_id}
        assert [item.dlq_id for item in (await asynchronous.dlq.list()).messages] == [letter.dlq_id]
        assert (await asynchronous.dlq.get(letter.dlq_id)).response_body == "404 Not Found"
        assert await asynchronous.dlq.delete_many([letter.dlq_id]) == 1
        keys = await asynchronous.signing_key.get()
        assert (await asynchronous.signing_key.rotate()).current == keys.next
        await asynchronous.flow_control.pause("key")
        assert (await asynchronous.flow_control.get("key")).is_paused is True
        await asynchronous.flow_control.resume("key")
        await asynchronous.flow_control.pin("key", {"parallelism": 3})
        await asynchronous.flow_control.unpin("key", {"parallelism": True})
        await asynchronous.flow_control.reset_rate("key")
        found = await asynchronous.flow_control.get("key")
        assert (found.is_paused, found.parallelism_max, found.is_pinned_parallelism) == (False, 3, False)
        assert (await asynchronous.flow_control.get_global_parallelism()).parallelism_max > 0

    run(look)


def test_deliveries_of_a_hundred_at_once(run: Run[object], client: QStash, site: Destination) -> None:
    async def scenario(asynchronous: AsyncQStash) -> list[object]:
        publishing = (asynchronous.message.publish(url=f"{site.url}/{n}x", body=str(n)) for n in range(100))
        return list(await asyncio.gather(*publishing))

    answers = run(scenario)
    assert isinstance(answers, list)
    until(lambda: len(site.received) == 100)
    assert {received.body for received in site.received} == {str(n).encode() for n in range(100)}
    delivered(client, answers[0].message_id)
