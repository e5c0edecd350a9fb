"""What is answered is written: past a faulty answer, past a database that is away, past being stopped in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from services.relay.bodies import Bodies
from services.relay.ending import Ending, ending_of
from services.relay.ending_writer import EndingWriter
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.store.messages import Messages, UnstorableError
from services.relay.wire.outcome import Answer
from tidings import log

NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Database:
    """Stands for `Messages.finish`: `refuses` are the bodies it cannot hold, `away` how many calls fail first.

    `refusal`: what it raises for `refuses`; `lost`: whose claims are not ours any more.
    """

    def __init__(
        self, *, refuses: bytes = b"", away: int = 0, refusal: Exception | None = None, lost: str = ""
    ) -> None:
        self.away = away
        self.refusal = refusal or UnstorableError("no")
        self.refusing: Callable[[Ending], bool] = lambda one: bool(refuses) and one.answer.body == refuses
        self.lost = lost
        self.written: dict[str, str] = {}
        self.asked = asyncio.Event()

    async def finish(self, endings: Sequence[Ending]) -> list[Ending]:
        self.asked.set()
        if self.away:
            self.away -= 1
            raise OSError("away")
        if any(self.refusing(ending) for ending in endings):
            raise self.refusal
        kept = [ending for ending in endings if ending.message.id != self.lost]
        self.written |= {ending.message.id: ending.answer.error or "ok" for ending in kept}
        return kept


def writer(database: Database, registry: CollectorRegistry | None = None, bodies: object = None) -> EndingWriter:
    metrics = RelayMetrics(registry or CollectorRegistry())
    return EndingWriter(
        cast("Messages", database),
        cast("Bodies", bodies),
        metrics,
        log.get("test"),
        wake=lambda _seconds: None,
        now=lambda: NOW,
        pause_seconds=0.01,
    )


def ending(id_: str, body: bytes = b"", *, started_at: datetime = NOW) -> Ending:
    claimed = Claimed(
        id_, "message", 2, "http://x.example/", "POST", {}, b"", 0, 3, 1000, "retry", "", NOW, NOW, 0, started_at
    )
    return ending_of(claimed, Answer(200, (), body), NOW)


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def test_an_answer_that_cannot_be_stored_fails_alone() -> None:
    async def story() -> None:
        database = Database(refuses=b"bad")
        written = writer(database)
        for one in (ending("a"), ending("b", b"bad"), ending("c")):
            await written.put(one)
        assert await written.run_once() == 3
        assert database.written == {"a": "ok", "b": "the answer could not be stored", "c": "ok"}
        assert written.unwritten == 0

    told(story)


@pytest.mark.parametrize("refusal", [psycopg.errors.RaiseException(), psycopg.errors.CheckViolation(), TypeError()])
def test_an_answer_that_is_refused_for_any_reason_fails_alone_and_soon(refusal: Exception) -> None:
    async def story() -> None:
        database = Database(refuses=b"bad", refusal=refusal)
        written = writer(database)
        for one in (ending("a"), ending("b", b"bad"), ending("c")):
            await written.put(one)
        assert await written.run_once() == 3
        assert database.written == {"a": "ok", "b": "the answer could not be stored", "c": "ok"}
        assert (written.unwritten, written.unwritten_since()) == (0, None)

    told(story)


@pytest.mark.parametrize("trouble", [psycopg.OperationalError(), UnstorableError("no")])
def test_an_ending_that_cannot_be_written_at_all_is_kept_and_nobody_waits_for_it(trouble: Exception) -> None:
    async def story() -> None:
        # As the bare answer has no body, both are refused.
        database = Database(refuses=b"", refusal=trouble)
        database.refusing = lambda one: one.message.id == "b"
        written = writer(database)
        for one in (ending("a"), ending("b"), ending("c")):
            await written.put(one)
        assert await written.run_once() == 3
        assert database.written == {"a": "ok", "c": "ok"}
        assert (written.unwritten, written.unwritten_since()) == (1, None)
        await written.put(ending("d"))
        await written.run_once()
        assert "d" in database.written
        database.refusing = lambda one: False
        assert await written.run_once() == 1
        assert database.written["b"] == "ok"

    told(story)


def test_endings_of_two_claims_of_a_message_are_two_and_of_one_claim_one() -> None:
    async def story() -> None:
        database = Database()
        written = writer(database)
        await written.put(ending("a", b"x" * 100))
        await written.put(ending("a", b"x" * 100))
        await written.put(ending("a", b"x" * 100, started_at=NOW + timedelta(seconds=1)))
        assert (written.unwritten, await written.run_once()) == (2, 2)
        assert (written.unwritten, written._unwritten_bytes) == (0, 0)

    told(story)


def test_only_what_was_still_ours_is_counted() -> None:
    async def story() -> None:
        registry = CollectorRegistry()
        written = writer(Database(lost="b"), registry)
        for one in (ending("a"), ending("b")):
            await written.put(one)
        await written.run_once()
        assert registry.get_sample_value("relay_attempts_total", {"outcome": "delivered"}) == 1.0

    told(story)


def test_stopped_while_bodies_are_removed_nothing_is_left_unwritten() -> None:
    class Held:
        begun = asyncio.Event()

        async def release(self, *_keys: str) -> None:
            self.begun.set()
            await asyncio.Event().wait()

    async def story() -> None:
        bodies = Held()
        written = writer(Database(), bodies=bodies)
        one = ending("a")
        await written.put(replace(one, message=replace(one.message, body_key="k")))
        writing = asyncio.create_task(written.run_once())
        await bodies.begun.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert (written.unwritten, written._unwritten_bytes) == (0, 0)

    told(story)


def test_a_database_that_is_away_is_waited_for() -> None:
    async def story() -> None:
        database = Database(away=1)
        written = writer(database)
        await written.put(ending("a"))
        assert await written.run_once() == 1
        assert database.written == {"a": "ok"}

    told(story)


def test_stopped_while_the_database_is_away_it_keeps_all_for_the_drain() -> None:
    async def story() -> None:
        database = Database(away=1)
        written = writer(database)
        for one in (ending("a"), ending("b")):
            await written.put(one)
        stopped = asyncio.create_task(written.run_once())
        await database.asked.wait()
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        assert written.unwritten == 2
        assert await written.run_once() == 2
        assert database.written == {"a": "ok", "b": "ok"}

    told(story)


def test_many_unwritten_bytes_hold_back_further_calls() -> None:
    async def story() -> None:
        written = writer(Database())
        for n in range(64):
            await written.put(ending(str(n), b"x" * 1024 * 1024))
        assert written.full
        while written.unwritten:
            await written.run_once()
        assert not written.full

    told(story)
