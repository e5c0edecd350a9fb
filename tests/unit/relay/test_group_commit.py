"""Concurrent publishes are committed together, and the error of one does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from services.relay.engine.group_commit import GroupCommit
from services.relay.message import Draft
from services.relay.store.messages import Accepted, Messages, UnstorableError


class Database:
    """A fake of `Messages.accept`. `held`: nothing is committed before it is set."""

    def __init__(self) -> None:
        self.transactions: list[list[bytes]] = []
        self.asked = asyncio.Event()
        self.held = asyncio.Event()

    async def accept(self, drafts: Sequence[Draft], _deduplication_seconds: float) -> list[Accepted]:
        self.asked.set()
        await self.held.wait()
        if any(draft.body == b"bad" for draft in drafts):
            raise UnstorableError("no")
        bodies = [draft.body for draft in drafts if isinstance(draft.body, bytes)]
        self.transactions.append(bodies)
        return [Accepted(body.decode(), deduplicated=False) for body in bodies]


def draft(body: str) -> Draft:
    return Draft("http://x.example/", "POST", {}, body.encode())


def published(bodies: Sequence[str]) -> tuple[list[Accepted | BaseException], list[list[bytes]]]:
    """The answers for `bodies`, published at once, and the transactions."""

    async def story() -> tuple[list[Accepted | BaseException], list[list[bytes]]]:
        database = Database()
        group_commit = GroupCommit(cast("Messages", database), deduplication_seconds=1, wake=lambda _seconds: None)
        running = asyncio.create_task(group_commit.run())
        asking = [asyncio.create_task(group_commit.accept([draft(body)])) for body in bodies]
        await asyncio.wait_for(database.asked.wait(), 10)
        database.held.set()
        answers = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return [one if isinstance(one, BaseException) else one[0] for one in answers], database.transactions

    return asyncio.run(story())


def test_concurrent_publishes_share_transactions_and_each_gets_its_own_answer() -> None:
    bodies = [str(n) for n in range(50)]
    answers, transactions = published(bodies)
    assert [cast("Accepted", one).message_id for one in answers] == bodies
    assert sorted(body for one in transactions for body in one) == sorted(body.encode() for body in bodies)
    assert len(transactions) < 10


@pytest.mark.parametrize("position", [0, 3, 9])
def test_a_message_that_cannot_be_stored_fails_alone(position: int) -> None:
    bodies = [str(n) for n in range(10)]
    bodies[position] = "bad"
    answers, _ = published(bodies)
    for n, answer in enumerate(answers):
        assert isinstance(answer, UnstorableError if n == position else Accepted)


class Stuck(Database):
    """Refuses each batch of several requests, and then does not answer."""

    async def accept(self, drafts: Sequence[Draft], _deduplication_seconds: float) -> list[Accepted]:
        if len(drafts) > 1:
            raise UnstorableError("no")
        self.asked.set()
        await self.held.wait()
        raise AssertionError("unreachable")


def test_a_cancellation_while_a_batch_is_divided_answers_every_request_of_it() -> None:
    async def story() -> list[object]:
        database = Stuck()
        group_commit = GroupCommit(cast("Messages", database), deduplication_seconds=1, wake=lambda _seconds: None)
        asking = [asyncio.create_task(group_commit.accept([draft(body)])) for body in "abc"]
        await asyncio.sleep(0)
        running = asyncio.create_task(group_commit.run())
        await asyncio.wait_for(database.asked.wait(), 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        done, _ = await asyncio.wait(asking, timeout=5)
        return [task.cancelled() for task in asking if task in done]

    assert asyncio.run(story()) == [True, True, True]
