"""Queues on a real database."""

from __future__ import annotations

from services.relay.message import Stored
from services.relay.options import CallbackOptions, FlowControl
from services.relay.store.queues import CANCEL_MAX
from tests.integration.relay_store.conftest import Run, Stores, draft


def test_a_queue_is_created_on_first_use_and_counts_messages_that_have_not_ended(run: Run) -> None:
    async def story(stores: Stores) -> None:
        assert await stores.queues.get("dead_letters") is None
        await stores.accept(*(draft(queue="dead_letters") for _ in range(3)))
        queue = await stores.queues.get("dead_letters")
        assert queue is not None
        assert (queue.parallelism, queue.paused, queue.lag) == (1, False, 3)
        await stores.finish(await stores.claim())
        again = await stores.queues.get("dead_letters")
        assert again is not None
        assert again.lag == 2
        assert [one.name for one in await stores.queues.all()] == ["dead_letters"]

    run(story)


def test_a_higher_parallelism_admits_more_at_once(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft(queue="q") for _ in range(4)))
        assert len(await stores.claim()) == 1
        await stores.queues.upsert("q", 3)
        assert len(await stores.claim()) == 2

    run(story)


def test_no_message_begins_in_a_paused_queue_and_those_with_a_place_continue_first(run: Run) -> None:
    async def story(stores: Stores) -> None:
        first, second = await stores.accept(draft(queue="q"), draft(queue="q"))
        await stores.queues.pause("q")
        assert await stores.states() == {first: "queued", second: "queued"}
        assert await stores.claim() == []
        [third] = await stores.accept(draft(queue="q"))
        assert await stores.claim() == []
        await stores.queues.resume("q")
        assert [one.id for one in await stores.claim()] == [first]
        assert await stores.states() == {first: "active", second: "queued", third: "queued"}

    run(story)


def test_a_resumed_queue_wakes_the_flow_keys_of_its_messages(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.queues.upsert("q", 1, paused=True)
        [message_id] = await stores.accept(draft(queue="q", flow=FlowControl("k", 5, None)))
        assert await stores.claim() == []
        await stores.queues.resume("q")
        assert [one.id for one in await stores.claim()] == [message_id]

    run(story)


def test_deleting_a_queue_cancels_waiting_messages_and_not_those_that_have_begun(run: Run) -> None:
    async def story(stores: Stores) -> None:
        first, second = await stores.accept(draft(queue="q"), draft(queue="q"))
        claimed = await stores.claim()
        assert await stores.queues.delete("q")
        assert await stores.states() == {first: "active", second: "cancelled"}
        assert await stores.queues.get("q") is None
        assert await stores.finish(claimed) == 1
        assert not await stores.queues.delete("q")
        logged = await stores.rows(
            "SELECT state FROM relay.events WHERE message_id = %(id)s AND state = 'CANCELED'", id=second
        )
        assert len(logged) == 1

    run(story)


def test_the_next_waits_for_the_callback_of_the_previous(run: Run) -> None:
    async def story(stores: Stores) -> None:
        back = CallbackOptions("https://example.com/back")
        first, second = await stores.accept(draft(queue="q", callback=back), draft(queue="q"))
        await stores.finish(await stores.claim())
        view = await stores.views.get(second, 60)
        assert view is not None
        assert view.gate.ahead == 1
        [callback] = await stores.claim()
        assert callback.kind == "callback"
        assert callback.parent_id == first
        await stores.finish([callback])
        assert [one.id for one in await stores.claim()] == [second]

    run(story)


def test_a_retry_waits_until_its_paused_queue_is_resumed(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(queue="q", retry_delay="0"))
        claimed = await stores.claim()
        await stores.queues.pause("q")
        await stores.finish(claimed, 503)
        assert await stores.claim() == []
        await stores.queues.resume("q")
        assert [one.id for one in await stores.claim()] == [message_id]
        await stores.queues.pause("q")
        await stores.processes.release()
        assert await stores.expire() == 1
        assert await stores.claim() == []
        await stores.queues.resume("q")
        assert [one.id for one in await stores.claim()] == [message_id]

    run(story)


def test_a_long_queue_is_cancelled_in_several_transactions(run: Run) -> None:
    async def story(stores: Stores) -> None:
        made = await stores.accept(*(draft(queue="q") for _ in range(CANCEL_MAX + 3)))
        assert await stores.queues.delete("q")
        states = await stores.states()
        assert [states[id_] for id_ in made[:1]] == ["waiting"], "the first one is let in"
        assert {states[id_] for id_ in made[1:]} == {"cancelled"}
        assert await stores.queues.get("q") is None
        assert not await stores.queues.delete("q")

    run(story)


def test_the_stored_bodies_of_a_deleted_queues_messages_are_released(run: Run) -> None:
    async def story(stores: Stores) -> None:
        bodies = [Stored(f"pieces-{n}", 70_000_000, b"hash") for n in range(2)]
        await stores.accept(draft(queue="q"), *(draft(queue="q", body=body) for body in bodies))
        await stores.queues.pause("q")
        assert await stores.queues.delete("q")
        assert sorted(stores.discarded) == ["pieces-0", "pieces-1"]

    run(story)
