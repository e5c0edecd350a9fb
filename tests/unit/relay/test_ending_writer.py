"""What is answered is written: past a faulty answer, past a database that is away, past being stopped in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, cast

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
    """Stands for `Messages.finish`: `refuses` are the bodies it cannot hold, `away` how many calls fail first."""

    def __init__(self, *, refuses: bytes = b"", away: int = 0) -> None:
        self.refuses = refuses
        self.away = away
        self.written: dict[str, str] = {}
        self.asked = asyncio.Event()

    async def finish(self, endings: Sequence[Ending]) -> list[Ending]:
        self.asked.set()
        if self.away:
            self.away -= 1
            raise OSError("away")
        if self.refuses and any(ending.answer.body == self.refuses for ending in endings):
            raise UnstorableError("no")
        self.written |= {ending.message.id: ending.answer.error or "ok" for ending in endings}
        return list(endings)


def writer(database: Database) -> EndingWriter:
    metrics = RelayMetrics(CollectorRegistry())
    return EndingWriter(
        cast("Messages", database),
        cast("Bodies", None),
        metrics,
        log.get("test"),
        wake=lambda _seconds: None,
        now=lambda: NOW,
    )


def ending(id_: str, body: bytes = b"") -> Ending:
    claimed = Claimed(
        id_, "message", 2, "http://x.example/", "POST", {}, b"", 0, 3, 1000, "retry", "", NOW, NOW, 0, NOW
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
