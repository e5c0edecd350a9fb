"""The memory for bodies, and the reading of them, with a fake client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from services.api.bodies import BodyMemory, ClientGoneError, read_body
from services.api.problem import ProblemError


class Client:
    """Sends these pieces, and then nothing, or disconnects."""

    def __init__(self, *pieces: bytes, ends: bool = True, leaves: bool = False) -> None:
        self._pieces = list(pieces)
        self._ends = ends
        self._leaves = leaves

    async def receive(self) -> Mapping[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or not self._ends}
        if self._leaves:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError


def read(client: Client, length: int | None, bytes_max: int = 10) -> bytes:
    return asyncio.run(read_body(client.receive, length, bytes_max))


def test_a_body_is_assembled() -> None:
    assert read(Client(b"ab", b"c"), 3) == b"abc"
    assert read(Client(b"ab", b"c"), None) == b"abc"
    assert read(Client(ends=False), 0) == b""


def test_a_body_ends_at_its_content_length() -> None:
    assert read(Client(b"abc", ends=False), 3) == b"abc"


@pytest.mark.parametrize("length", [11, None])
def test_a_body_that_is_too_large_is_413(length: int | None) -> None:
    with pytest.raises(ProblemError) as refused:
        read(Client(b"123456", b"78901"), length)
    assert refused.value.status == 413


@pytest.mark.parametrize("length", [5, None])
def test_a_client_that_disconnects_is_not_answered(length: int | None) -> None:
    with pytest.raises(ClientGoneError):
        read(Client(b"ab", ends=False, leaves=True), length)


def test_a_tenant_waits_for_its_own_share_and_not_for_anothers() -> None:
    async def scene() -> list[str]:
        memory, order = BodyMemory(total=100, per_owner=40), []

        async def one(owner: str, size: int, name: str) -> None:
            await memory.reserve(owner, size)
            order.append(name)

        await one("a", 30, "first")
        waiting = asyncio.create_task(one("a", 30, "second"))
        await asyncio.sleep(0)
        await one("b", 30, "other")
        memory.release("a", 30)
        await waiting
        return order

    assert asyncio.run(scene()) == ["first", "other", "second"]


def test_a_body_larger_than_a_share_is_read_alone() -> None:
    async def scene() -> bool:
        memory = BodyMemory(total=100, per_owner=40)
        await memory.reserve("a", 200)
        waiting = asyncio.create_task(memory.reserve("b", 1))
        await asyncio.sleep(0)
        waited = not waiting.done()
        memory.release("a", 200)
        await waiting
        return waited

    assert asyncio.run(scene()) is True
