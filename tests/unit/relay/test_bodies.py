"""Answers that are read into memory or stored: what they hold while they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from services.relay.egress.http.faults import NoAnswerError
from services.relay.engine.bodies import Bodies, Incoming
from services.relay.memory.memory import Memory
from services.relay.message import Stored
from services.relay.store.chunks import Chunks, Writer

ORIGIN = "https://model.example"
BYTES_MAX = 10_000_000


class Table:
    """The pieces of the one body, in memory."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

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


def test_an_answer_that_comes_to_a_stand_is_not_held() -> None:
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
        for _ in range(20):  # whatever could go on has done so
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
