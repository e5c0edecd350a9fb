"""Dead letters on a real database."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from services.relay.message import Draft, Stored
from services.relay.options import CallbackOptions
from services.relay.protocol.cursor import decode_cursor
from services.relay.protocol.filters import Filters
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.store.messages import Accepted
from services.relay.store.sealing import UnreadableError
from tests.integration.relay_store.conftest import Run, Stores, draft


async def fail(stores: Stores, *drafts: Draft) -> list[str]:
    """Let `drafts` fail one after the other; return their dead letters' ids in this order."""
    for one in drafts:
        await stores.accept(one)
        await stores.finish(await stores.claim(), 404, b"404 Not Found", final=True)
    return [row["id"] for row in await stores.rows("SELECT id FROM relay.dead_letters ORDER BY id")]


def test_a_dead_letter_shows_the_message_and_its_last_answer(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [dlq_id] = await fail(stores, draft(headers={"X-A": "1"}, labels=("one", "two"), body=b"sent"))
        letter = await stores.dead_letters.get(dlq_id)
        assert letter is not None
        assert (letter.response_status, letter.response_body) == (404, b"404 Not Found")
        assert letter.response_headers == {"X-Answer": ["yes"]}
        assert (letter.message.headers, letter.message.labels) == ({"X-A": "1"}, ("one", "two"))
        assert (letter.message.body, letter.message.state) == (b"sent", "failed")
        assert await stores.dead_letters.get("1-unknown") is None

    run(story)


def test_pages_are_newest_first_and_hold_all(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await fail(stores, *(draft(body=str(n).encode()) for n in range(5)))
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            page, text = await stores.dead_letters.list(Filters(count=2, cursor=cursor))
            seen += [letter.id for letter in page]
            cursor = None if text is None else decode_cursor(text)
        assert cursor is None
        assert seen == ids[::-1]
        page, _ = await stores.dead_letters.list(Filters(earliest_first=True))
        assert [letter.id for letter in page] == ids

    run(story)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"url": ("https://one.example:8080/a/b?c",)}, {0}),
        ({"host": ("ONE.example",)}, {0}),
        ({"host": ("one.example:8080",)}, {0}),
        ({"path": ("/a/b",)}, {0}),
        ({"path": ("/",)}, {1}),
        ({"label": ("l2",)}, {1}),
        ({"label": ("l1", "l3")}, {0, 1}),
        ({"queue": ("q",)}, {1}),
        ({"topic": ("t",)}, {0}),
        ({"schedule": ("s",)}, {0}),
        ({"caller_ip": ("10.0.0.1",)}, {1}),
        ({"response_status": (404,)}, {0, 1}),
        ({"response_status": (500,)}, set()),
        ({"host": ("one.example",), "label": ("l2",)}, set()),
        ({"from_ms": 0}, {0, 1}),
        ({"to_ms": 1000}, set()),
        ({"message_ids": ("unknown",)}, set()),
    ],
)
def test_filters_are_or_within_a_field_and_and_between_fields(
    run: Run, filters: dict[str, Any], expected: set[int]
) -> None:
    async def story(stores: Stores) -> None:
        ids = await fail(
            stores,
            draft(url="https://one.example:8080/a/b?c", labels=("l1",), topic="t", schedule_id="s"),
            draft(url="https://two.example", labels=("l3", "l2"), queue="q", caller_ip="10.0.0.1"),
        )
        page, _ = await stores.dead_letters.list(Filters(**filters))
        assert {ids.index(letter.id) for letter in page} == expected

    run(story)


def test_dead_letters_are_removed_singly_and_by_filters(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await fail(stores, *(draft(labels=(f"l{n % 2}",)) for n in range(5)))
        assert await stores.dead_letters.delete(ids[0])
        assert not await stores.dead_letters.delete(ids[0])
        assert await stores.dead_letters.delete_many(Filters(label=("l1",))) == (2, None)
        count, cursor = await stores.dead_letters.delete_many(Filters(count=1, all=True))
        assert count == 1
        assert cursor is not None
        assert await stores.dead_letters.delete_many(Filters(dlq_ids=(ids[2], "1-unknown"))) == (1, None)
        assert await stores.dead_letters.list(Filters()) == ([], None)

    run(story)


def test_a_retry_publishes_the_message_again_with_the_given_options(run: Run) -> None:
    async def story(stores: Stores) -> None:
        original = draft(
            headers={"X-A": "1", "X-B": "2"}, deduplication_id="once", retries_max=7, labels=("old",), queue="q",
            callback=CallbackOptions("https://example.com/back", retries_max=2, headers={"X-C": "3"}), body=b"sent",
        )  # fmt: skip
        [dlq_id] = await fail(stores, original)
        await stores.finish(await stores.claim())
        overrides = {
            "Content-Type": "application/json", "Upstash-Forward-X-A": "9", "Upstash-Label": "new",
            "Upstash-Callback-Retries": "4", "Upstash-Timeout": "10s",
        }  # fmt: skip
        accepted = await stores.dead_letters.retry(dlq_id, overrides)
        [claimed] = await stores.claim()
        assert accepted == Accepted(claimed.id, deduplicated=False)
        assert claimed.headers == {"X-A": "9", "X-B": "2"}
        assert (claimed.labels, claimed.retries_max, claimed.timeout_ms) == (("new",), 7, 10_000)
        assert (claimed.queue, claimed.body, claimed.retried) == ("q", b"sent", 0)
        assert claimed.options.callback == CallbackOptions(
            "https://example.com/back", retries_max=4, headers={"X-C": "3"}
        )
        assert await stores.dead_letters.get(dlq_id) is None
        assert await stores.dead_letters.retry(dlq_id, {}) is None

    run(story)


def test_a_dead_letter_stays_when_its_retry_is_refused(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [dlq_id] = await fail(stores, draft())
        with pytest.raises(InvalidRequestError):
            await stores.dead_letters.retry(dlq_id, {"Upstash-Retries": "many"})
        assert await stores.dead_letters.get(dlq_id) is not None
        assert await stores.claim() == []

    run(story)


def test_many_are_retried_together_except_those_that_cannot_be_read(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await fail(stores, *(draft(body=str(n).encode()) for n in range(3)))
        await stores.rows("UPDATE relay.dead_letters SET sealed = 'junk' WHERE id = %(id)s RETURNING id", id=ids[1])
        new, cursor = await stores.dead_letters.retry_many(Filters(all=True))
        assert cursor is None
        assert {one.id: one.body for one in await stores.claim()} == dict(zip(new, (b"2", b"0"), strict=True))
        page, _ = await stores.dead_letters.list(Filters())
        assert [(letter.id, letter.message.headers) for letter in page] == [(ids[1], {})]

    run(story)


def test_a_dead_letter_with_an_option_of_a_newer_version_stays(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await fail(stores, *(draft(body=str(n).encode()) for n in range(2)))
        newer = stores.encryption.seal({"headers": {}, "of_a_newer_version": True})
        statement = "UPDATE relay.dead_letters SET sealed = %(sealed)s WHERE id = %(id)s RETURNING id"
        await stores.rows(statement, id=ids[1], sealed=newer)
        [new], _ = await stores.dead_letters.retry_many(Filters(all=True))
        with pytest.raises(UnreadableError, match="does not know"):
            await stores.dead_letters.retry(ids[1], {})
        assert [(one.id, one.body) for one in await stores.claim()] == [(new, b"0")]
        page, _ = await stores.dead_letters.list(Filters())
        assert [letter.id for letter in page] == [ids[1]]

    run(story)


def test_a_large_body_is_moved_from_the_dead_letter_to_the_new_message(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [dlq_id] = await fail(stores, draft(body=Stored("pieces", 70_000_000, b"hash")))
        await stores.dead_letters.retry(dlq_id, {})
        [claimed] = await stores.claim()
        assert (claimed.body_key, claimed.body_size) == ("pieces", 70_000_000)

    run(story)


def test_dead_letters_with_different_stored_bodies_have_different_content(run: Run) -> None:
    async def story(stores: Stores) -> None:
        stored = [draft(body=Stored(f"pieces-{n}", 70_000, sha256(bytes([n])).digest())) for n in range(2)]
        dead_letters = await fail(stores, *stored)
        by_content = {"Upstash-Content-Based-Deduplication": "true"}
        retried = [accepted for one in dead_letters if (accepted := await stores.dead_letters.retry(one, by_content))]
        assert len({one.message_id for one in retried}) == 2
        assert {one.body_key for one in await stores.claim()} == {"pieces-0", "pieces-1"}
        [again] = await fail(stores, stored[0])
        first = Accepted(retried[0].message_id, deduplicated=True)
        assert await stores.dead_letters.retry(again, by_content) == first, "the same content is"

    run(story)


def test_a_dead_letter_stays_when_its_retry_is_a_duplicate(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [dlq_id] = await fail(stores, draft(body=b"paid for", deduplication_id="own"))
        [other] = await stores.accept(draft(deduplication_id="taken"))
        assert [one.id for one in await stores.claim()] == [other]
        retried = await stores.dead_letters.retry(dlq_id, {"Upstash-Deduplication-Id": "taken"})
        assert retried == Accepted(other, deduplicated=True)
        assert await stores.dead_letters.get(dlq_id) is not None
        assert (await stores.claim(), stores.discarded) == ([], [])
        # Its own deduplication id, which has not expired, does not count, as this is the same message.
        ids, _ = await stores.dead_letters.retry_many(Filters(dlq_ids=(dlq_id,)))
        assert [(one.id, one.body) for one in await stores.claim()] == [(ids[0], b"paid for")]
        assert await stores.dead_letters.get(dlq_id) is None

    run(story)


@pytest.mark.parametrize("way", ["delete", "delete_many", "retry", "retry_many"])
def test_the_stored_bodies_of_a_dead_letter_are_released_with_it(run: Run, way: str) -> None:
    async def story(stores: Stores) -> None:
        [dlq_id] = await fail(stores, draft(body=Stored("pieces", 70_000_000, b"hash")))
        await stores.rows("UPDATE relay.dead_letters SET response_key = 'answer', response_size = 1 RETURNING id")
        by_id = Filters(dlq_ids=(dlq_id,))
        if way == "delete":
            assert await stores.dead_letters.delete(dlq_id)
        elif way == "delete_many":
            assert await stores.dead_letters.delete_many(by_id) == (1, None)
        elif way == "retry":
            assert await stores.dead_letters.retry(dlq_id, {})
        else:
            assert len((await stores.dead_letters.retry_many(by_id))[0]) == 1
        assert sorted(stores.discarded) == ["answer", "pieces"]
        [named] = await stores.rows("SELECT relay.is_named('answer') AS answer, relay.is_named('pieces') AS pieces")
        assert named == {"answer": False, "pieces": way.startswith("retry")}

    run(story)
