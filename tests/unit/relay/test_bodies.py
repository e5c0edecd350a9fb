"""Answers that are read into memory or stored: the memory and places that they hold while they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import cast

import pytest

from services.relay.egress.http.faults import NoAnswerError
from services.relay.engine.bodies import Bodies, Incoming
from services.relay.memory.memory import Memory
from services.relay.message import Stored
from services.relay.store.chunks import Chunks, Writer
from services.relay.store.time_limit import Silence
from tests.unit.relay.test_time_limit import passes

ORIGIN = "https://model.example"
BYTES_MAX = 10_000_000


class Table:
    """The pieces of the single body, in memory."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.silence = Silence(slow_seconds=0.0)

    def writer(self, limit: asyncio.Timeout | None = None) -> Writer:
        return Writer(cast(Chunks, self), limit)

    async def write(self, _key: str, part: int, content: bytes, *, tries_max: int | None) -> None:
        assert tries_max is None
        assert part == len(self.pieces)
        self.pieces.append(content)

    async def release(self, _keys: object) -> None:
        self.pieces.clear()


async def stalled() -> AsyncIterator[bytes]:
    yield b"x" * 1000
    await asyncio.Event().wait()


async def following(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def test_an_answer_that_stalls_holds_no_memory() -> None:
    async def story() -> None:
        bodies = Bodies(cast(Chunks, Table()), BYTES_MAX, stall_seconds=0.05)
        with pytest.raises(NoAnswerError):
            await bodies.hold(Incoming("call", ORIGIN, bytearray(70_000), stalled()), None)

    asyncio.run(asyncio.wait_for(story(), 20))


def test_an_answer_that_waits_for_a_place_is_stored_so_far_and_holds_nothing() -> None:
    async def story() -> None:
        table, memory = Table(), Memory()
        bodies, free = Bodies(cast(Chunks, table), BYTES_MAX, memory), memory.answers.left
        places = []
        while memory.transfers.spooling.ready(ORIGIN):
            places.append(await memory.transfers.spooling.take(ORIGIN, 1.0))
        start = bytearray(b"ab" * 35_000)
        await memory.answers.take("call", 128_000, ORIGIN)

        async def spool() -> tuple[Stored, bool]:
            async with asyncio.timeout(20) as limit:
                return await bodies.spool(Incoming("call", ORIGIN, start, following(b"cd")), BYTES_MAX, limit)

        spooling = asyncio.create_task(spool())
        for _ in range(20):  # every task that can run has run
            await asyncio.sleep(0)
        assert not start
        assert not spooling.done()
        assert memory.answers.left == free
        assert len(table.pieces[0]) % 3 == 0, "base64 of pieces is joined"
        for place in places:
            place.release()
        stored, cut = await spooling
        assert (b"".join(table.pieces), stored.size, cut) == (b"ab" * 35_000 + b"cd", 70_002, False)

    asyncio.run(asyncio.wait_for(story(), 20))


def test_the_wait_for_memory_does_not_count_against_the_calls_timeout() -> None:
    async def story() -> None:
        memory = Memory()
        bodies = Bodies(cast(Chunks, Table()), BYTES_MAX, memory)
        memory.answers.hold("others", memory.answers.left)
        start = bytearray(b"a")

        async def hold() -> bool:
            async with asyncio.timeout(1.0) as limit:
                return await bodies.hold(Incoming("call", ORIGIN, start, following(b"b")), None, limit)

        holding = asyncio.create_task(hold())
        await passes(1.5)
        memory.answers.give("others")
        assert await holding
        assert bytes(start) == b"ab"

    asyncio.run(asyncio.wait_for(story(), 20))


@pytest.mark.parametrize("away", [True, False])
def test_the_wait_for_a_place_does_not_count_against_the_timeout_while_the_database_is_down(away: bool) -> None:
    """Otherwise it counts: the destination itself may use all places, and send as slowly as it likes."""

    async def story() -> None:
        table, memory = Table(), Memory()
        bodies = Bodies(cast(Chunks, table), BYTES_MAX, memory)
        places = []
        while memory.transfers.spooling.ready(ORIGIN):
            places.append(await memory.transfers.spooling.take(ORIGIN, 1.0))

        async def spool() -> tuple[Stored, bool]:
            async with asyncio.timeout(1.0) as limit:
                incoming = Incoming("call", ORIGIN, bytearray(b"ab" * 35_000), following(b"cd"))
                return await bodies.spool(incoming, BYTES_MAX, limit)

        spooling = asyncio.create_task(spool())
        with table.silence.statement() if away else nullcontext():
            await passes(1.5)
        if away:
            for place in places:
                place.release()
            stored, _ = await spooling
            assert stored.size == 70_002
        else:
            with pytest.raises(TimeoutError):
                await spooling

    asyncio.run(asyncio.wait_for(story(), 20))
