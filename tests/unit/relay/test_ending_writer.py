"""Endings are written: after a faulty one, after a database that is down, and after a stop during the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from services.relay.ending import Ending, ending_of
from services.relay.engine.bodies import Bodies
from services.relay.engine.ending_bodies import EndingBodies
from services.relay.engine.ending_writer import EndingWriter
from services.relay.memory.byte_budget import ByteBudget
from services.relay.message import INLINE_BYTES_MAX, Claimed, Draft, Stored, Unstored
from services.relay.metrics import RelayMetrics
from services.relay.options import CallbackOptions, Options
from services.relay.outcome.outcome import Answer, Spooled
from services.relay.store.messages import Messages, UnstorableError
from tidings.process import log
from tidings.process.telemetry import Telemetry

NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Database:
    """A fake of `Messages.finish`. `refuses` are the bodies that it cannot store, `away` the number of calls that fail
    first.

    `refusal`: the error that it raises for `refuses`. `lost`: messages whose claims are not ours any more.
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


def writer(
    database: object, registry: CollectorRegistry | None = None, bodies: object = None, held: ByteBudget | None = None
) -> EndingWriter:
    ending_bodies = EndingBodies(cast("Bodies", bodies), log.get("test"), now=lambda: NOW, pause_seconds=0.01)
    telemetry = Telemetry(RelayMetrics(registry or CollectorRegistry()), log.get("test"))
    return EndingWriter(cast("Messages", database), ending_bodies, telemetry, wake=lambda _seconds: None, held=held)


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
def test_an_ending_that_cannot_be_written_is_kept_and_no_other_waits_for_it(trouble: Exception) -> None:
    async def story() -> None:
        # The ending without the answer's body is refused as well.
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


def test_endings_of_two_claims_of_a_message_are_two_and_those_of_one_claim_are_one() -> None:
    async def story() -> None:
        database, held = Database(), ByteBudget(10_000)
        written = writer(database, held=held)
        await written.put(ending("a", b"x" * 100))
        await written.put(ending("a", b"x" * 100))
        await written.put(ending("a", b"x" * 100, started_at=NOW + timedelta(seconds=1)))
        assert (written.unwritten, held.left) == (2, 9_800)
        assert await written.run_once() == 2
        assert (written.unwritten, held.left) == (0, 10_000)

    told(story)


def test_only_endings_of_claims_that_were_still_ours_are_counted() -> None:
    async def story() -> None:
        registry = CollectorRegistry()
        written = writer(Database(lost="b"), registry)
        for one in (ending("a"), ending("b")):
            await written.put(one)
        await written.run_once()
        assert registry.get_sample_value("relay_attempts_total", {"outcome": "delivered"}) == 1.0

    told(story)


def test_a_stop_during_the_removal_of_bodies_leaves_no_ending_unwritten() -> None:
    class Held:
        begun = asyncio.Event()

        async def release(self, *_keys: str) -> None:
            self.begun.set()
            await asyncio.Event().wait()

    async def story() -> None:
        bodies, held = Held(), ByteBudget(10_000)
        written = writer(Database(), bodies=bodies, held=held)
        one = ending("a")
        await written.put(replace(one, message=replace(one.message, body_key="k")))
        writing = asyncio.create_task(written.run_once())
        await bodies.begun.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert (written.unwritten, held.left) == (0, 10_000)

    told(story)


def test_a_database_that_is_down_is_waited_for() -> None:
    async def story() -> None:
        database = Database(away=1)
        written = writer(database)
        await written.put(ending("a"))
        assert await written.run_once() == 1
        assert database.written == {"a": "ok"}

    told(story)


def test_a_stop_while_the_database_is_down_keeps_all_endings_for_the_drain() -> None:
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


def test_many_unwritten_bytes_stop_further_claims() -> None:
    async def story() -> None:
        written = writer(Database())
        for n in range(64):
            await written.put(ending(str(n), b"x" * 1024 * 1024))
        assert written.full
        while written.unwritten:
            await written.run_once()
        assert not written.full

    told(story)


class Storing:
    """A fake of `Bodies`. `stored` are the large bodies, which it stores once `begin` is set. The first `faults` calls
    fail.
    """

    def __init__(self) -> None:
        self.begin = asyncio.Event()
        self.stored: list[bytes] = []
        self.discarded: list[str] = []
        self.released: list[str] = []
        self.faults = 0
        self.fault: type[Exception] = psycopg.OperationalError

    async def compose_all(self, drafts: Sequence[Draft]) -> list[Draft]:
        await self.begin.wait()
        assert all(isinstance(draft.body, Unstored) for draft in drafts)
        self.stored += [draft.url.encode() for draft in drafts]
        return [replace(draft, body=Stored("callback", 100, b"")) for draft in drafts]

    def discard(self, keys: Sequence[str]) -> None:
        self.discarded += keys

    async def store(self, content: bytes) -> Stored:
        if self.faults:
            self.faults -= 1
            raise self.fault
        self.stored.append(content)
        return Stored("answer", len(content), b"")

    async def release(self, *keys: str) -> None:
        self.released += keys


def storing() -> tuple[EndingWriter, Storing, ByteBudget, Letterbox]:
    bodies, share, database = Storing(), ByteBudget(10_000_000), Letterbox()
    return writer(database, bodies=bodies, held=share), bodies, share, database


class Letterbox:
    """A fake of `Messages.finish` that keeps the endings."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []

    async def finish(self, endings: Sequence[Ending]) -> list[Ending]:
        self.endings += endings
        return list(endings)


def large(status: int) -> Ending:
    message = replace(
        ending("a").message, options=Options(callback=CallbackOptions("http://callback.example/")), retries_max=0
    )
    return ending_of(message, Answer(status, (), b"x" * 1_000_000), NOW)


def test_an_ending_that_waits_to_be_stored_is_held_and_released_when_it_is_cancelled() -> None:
    async def story() -> None:
        written, _, share, _ = storing()
        putting = asyncio.create_task(written.put(large(200)))
        await asyncio.sleep(0)
        assert share.left == 9_000_000
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        assert share.left == 10_000_000

    told(story)


def test_the_answer_is_released_once_its_callback_is_stored() -> None:
    async def story() -> None:
        written, bodies, share, database = storing()
        bodies.begin.set()
        await written.put(large(200))
        assert share.left > 9_990_000
        await written.run_once()
        assert share.left == 10_000_000
        [one] = database.endings
        assert [draft.body for draft in one.callbacks] == [Stored("callback", 100, b"")]

    told(story)


def test_a_dead_letters_large_answer_is_stored_and_its_first_bytes_are_in_the_row() -> None:
    async def story() -> None:
        written, bodies, _, database = storing()
        bodies.begin.set()
        await written.put(large(500))
        await written.run_once()
        [one] = database.endings
        assert bodies.stored == [b"http://callback.example/", b"x" * 1_000_000]
        assert one.answer.spooled == Spooled("answer", 1_000_000, 1_000_000)
        assert 0 < len(one.answer.body) <= INLINE_BYTES_MAX
        assert "answer" in one.stored_keys

    told(story)


def test_a_dead_letters_answer_that_is_not_stored_leaves_no_callback_behind() -> None:
    async def story() -> None:
        written, bodies, share, _ = storing()
        bodies.begin.set()
        bodies.faults = 1
        await written.put(large(500))
        assert bodies.discarded == ["callback"]
        await written.run_once()
        assert share.left == 10_000_000

    told(story)


@pytest.mark.parametrize("refusal", [psycopg.errors.DataError, TypeError])
def test_a_dead_letter_whose_answer_cannot_be_stored_is_written_without_it(
    refusal: type[Exception],
) -> None:
    async def story() -> None:
        written, bodies, share, database = storing()
        bodies.begin.set()
        bodies.faults, bodies.fault = 1_000_000, refusal
        one = large(500)
        await written.put(replace(one, answer=replace(one.answer, spooled=Spooled("spooled", 1_000_000, 1_000_000))))
        await written.run_once()
        [buried] = database.endings
        assert (buried.answer.error, buried.answer.status) == ("the answer could not be stored", 500)
        assert [draft.url for draft in buried.callbacks] == ["http://callback.example/"]
        assert (share.left, written.unwritten) == (10_000_000, 0)
        assert bodies.released == ["spooled"]
        assert set(bodies.discarded) == {"callback"}

    told(story)


def test_a_large_answer_is_stored_however_long_the_database_is_down() -> None:
    async def story() -> None:
        written, bodies, _, database = storing()
        bodies.begin.set()
        bodies.faults = 20
        await written.put(large(500))
        await written.run_once()
        [one] = database.endings
        assert one.answer.spooled == Spooled("answer", 1_000_000, 1_000_000)

    told(story)


@pytest.mark.parametrize(("header", "followed"), [("v", 1), ("v" * INLINE_BYTES_MAX, 0)])
def test_an_ending_without_its_answers_body_fits_into_rows(header: str, followed: int) -> None:
    """The callback has the message's body as base64, and its headers."""

    async def story() -> None:
        database = Database(refuses=b"bad")
        ends: list[Ending] = []

        def refusing(one: Ending) -> bool:
            ends.append(one)
            return one.answer.body == b"bad"

        database.refusing = refusing
        written = writer(database)
        message = replace(
            ending("a").message,
            body=b"x" * 60_000,
            body_size=60_000,
            headers={"X": header},
            options=Options(callback=CallbackOptions("http://callback.example/")),
        )
        one = ending_of(message, Answer(200, (), b"bad"), NOW)
        await written.put(replace(one, callbacks=()))
        await written.run_once()
        assert database.written == {"a": "the answer could not be stored"}
        buried = ends[-1]
        assert len(buried.callbacks) == followed
        assert not buried.composing

    told(story)


def test_the_stored_bodies_of_an_ending_that_is_written_without_its_answer_are_released() -> None:
    async def story() -> None:
        bodies, database = Storing(), Database(refuses=b"bad")
        bodies.begin.set()
        written = writer(database, bodies=bodies)
        message = replace(ending("a").message, options=Options(callback=CallbackOptions("http://callback.example/")))
        answer = Answer(200, (), b"bad", spooled=Spooled("answer", 1_000_000, 1_000_000))
        await written.put(ending_of(message, answer, NOW))
        await written.run_once()
        assert database.written == {"a": "the answer could not be stored"}
        assert sorted(bodies.released) == ["answer", "callback"]

    told(story)
