"""What is answered is written: past a faulty answer, past a database that is away, past being stopped in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from prometheus_client import CollectorRegistry

from services.relay.bodies import Bodies
from services.relay.ending import Ending, ending_of
from services.relay.ending_writer import EndingWriter
from services.relay.memory import Share
from services.relay.message import INLINE_BYTES_MAX, CallbackOptions, Claimed, Draft, Stored, Unstored
from services.relay.metrics import RelayMetrics
from services.relay.store.messages import Messages, UnstorableError
from services.relay.wire.outcome import Answer, Spooled
from tidings import log

NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Database:
    """Stands for `Messages.finish`: `refuses` are the bodies it cannot hold, `away` how many calls fail first."""

    def __init__(self, *, refuses: bytes = b"", away: int = 0) -> None:
        self.refuses = refuses
        self.away = away
        self.written: dict[str, str] = {}
        self.asked = asyncio.Event()

    async def finish(self, endings: Sequence[Ending]) -> int:
        self.asked.set()
        if self.away:
            self.away -= 1
            raise OSError("away")
        if self.refuses and any(ending.answer.body == self.refuses for ending in endings):
            raise UnstorableError("no")
        self.written |= {ending.message.id: ending.answer.error or "ok" for ending in endings}
        return len(endings)


def writer(database: Database) -> EndingWriter:
    metrics = RelayMetrics(CollectorRegistry())
    return EndingWriter(
        cast("Messages", database), cast("Bodies", None), metrics, log.get("test"), wake=lambda _seconds: None
    )


def ending(id_: str, body: bytes = b"") -> Ending:
    claimed = Claimed(
        id_, "message", 2, "http://x.example/", "POST", {}, b"", 0, 3, 1000, "retry", "", NOW, NOW, 0, NOW
    )
    return ending_of(claimed, Answer(200, (), body), NOW)


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


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


class Storing:
    """Stands for `Bodies`: `stored` are the large bodies, which it stores once `begin` is set."""

    def __init__(self) -> None:
        self.begin = asyncio.Event()
        self.stored: list[bytes] = []

    async def compose(self, draft: Draft) -> Draft:
        await self.begin.wait()
        assert isinstance(draft.body, Unstored)
        self.stored.append(draft.url.encode())
        return replace(draft, body=Stored("callback", 100, b""))

    async def store(self, content: bytes) -> Stored:
        self.stored.append(content)
        return Stored("answer", len(content), b"")

    async def release(self, *_keys: str) -> None:
        pass


def storing() -> tuple[EndingWriter, Storing, Share, Letterbox]:
    bodies, share, database = Storing(), Share(10_000_000), Letterbox()
    metrics = RelayMetrics(CollectorRegistry())
    written = EndingWriter(
        cast("Messages", database), cast("Bodies", bodies), metrics, log.get("test"), wake=lambda _: None, held=share
    )
    return written, bodies, share, database


class Letterbox:
    """Stands for `Messages.finish`, and keeps the endings."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []

    async def finish(self, endings: Sequence[Ending]) -> int:
        self.endings += endings
        return len(endings)


def large(status: int) -> Ending:
    message = replace(ending("a").message, callback=CallbackOptions("http://callback.example/"), retries_max=0)
    return ending_of(message, Answer(status, (), b"x" * 1_000_000), NOW)


def test_what_waits_to_be_stored_is_held_and_given_back_when_it_is_broken_off() -> None:
    async def story() -> None:
        written, _, share, _ = storing()
        putting = asyncio.create_task(written.put(large(200)))
        await asyncio.sleep(0)
        assert share.left == 9_000_000
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        assert share.left == 10_000_000

    told(story)


def test_once_a_callback_is_stored_the_answer_is_not_held_any_more() -> None:
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


def test_a_dead_letters_large_answer_is_stored_and_its_beginning_goes_into_the_row() -> None:
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
