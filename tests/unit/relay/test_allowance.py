"""The part of an answer that is read before its reader is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from services.relay.egress.http.allowance import FREE_BYTES_MAX, Allowance
from services.relay.egress.http.reading import Reading
from services.relay.egress.http.response import Response

INLINE_BYTES_MAX = 65_536


def begun(grow: Callable[[], bool], *pieces: bytes) -> tuple[Response | None, list[bool]]:
    """The reader's data after these pieces, and the times at which the other side was asked to wait."""

    async def story() -> tuple[Response | None, list[bool]]:
        paces: list[bool] = []
        reading = Reading("POST", Allowance(INLINE_BYTES_MAX, grow), pace=paces.append)
        for piece in pieces:
            reading.feed(piece)
        return reading.response.result() if reading.response.done() else None, paces

    return asyncio.run(story())


def test_an_answer_with_a_large_content_length_is_returned_with_its_first_bytes() -> None:
    response, paces = begun(lambda: True, b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", b"z")
    assert response is not None
    assert response.rest is not None
    assert (bytes(response.body), paces) == (b"z", [True])


@pytest.mark.parametrize("room", [True, False])
def test_an_answer_of_unknown_size_is_returned_early_when_there_is_no_memory(room: bool) -> None:
    asked: list[bool] = []

    def grow() -> bool:
        asked.append(room)
        return room

    chunk = b"%x\r\n" % FREE_BYTES_MAX + b"z" * FREE_BYTES_MAX + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert begun(grow, head, chunk) == (None, [])
    assert asked == []
    response, paces = begun(grow, head, chunk, b"1\r\nz\r\n", b"1\r\nz\r\n")
    assert asked == [room], "once"
    assert (response is None, paces) == (room, [] if room else [True])


def test_an_answer_of_known_size_within_the_limit_is_complete_when_there_is_memory() -> None:
    body = b"z" * INLINE_BYTES_MAX
    response, paces = begun(
        lambda: True, b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", body[:20_000], body[20_000:]
    )
    assert response is not None
    assert (response.body, response.rest, paces) == (body, None, [])
