"""An odd answer that was returned before its end, as there was no memory for it, is parsed like a complete one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.relay.egress.http.allowance import Allowance
from services.relay.egress.http.faults import NoAnswerError
from services.relay.egress.http.reading import HEAD_BYTES_MAX, Reading

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b"a" * 20_000
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def chunk(content: bytes, end: bytes = b"\r\n") -> bytes:
    return b"%X" % len(content) + end + content + end


def read(pieces: Sequence[bytes], *, room: bool = False) -> tuple[bytes, bool]:
    """The whole body, and whether the connection is reused. Raises `NoAnswerError`."""

    async def story() -> tuple[bytes, bool]:
        reading = Reading("POST", Allowance(65_536, lambda: room), pace=lambda _: None)

        async def feed() -> None:
            for piece in pieces:
                reading.feed(piece)
                for _ in range(4):  # in the pieces that the reader takes
                    await asyncio.sleep(0)

        feeding = asyncio.create_task(feed())
        async with asyncio.timeout(20):
            response = await reading.response
            body = bytes(response.body)
            if response.rest is not None:
                async for piece in response.rest:
                    body += piece
            await feeding
        return body, reading.clean

    return asyncio.run(story())


def cut(answer: bytes, size: int) -> list[bytes]:
    return [answer[at : at + size] for at in range(0, len(answer), size)]


REST = {
    "line-feed": (chunk(b"bc", b"\n") + b"0\n\n", b"bc"),
    "extension": (b"2 ;a=b\nbc\r\n0\r\n\r\n", b"bc"),
    "length-in-trailer": (chunk(b"bc") + b"0\r\nContent-Length: 2\r\n\r\n", b"bc"),
    "trailer": (chunk(b"bc") + b"0\r\nX-A : b\r\n\r\n", b"bc"),
    "at-last": (b"0\n\n", b""),
}


@pytest.mark.parametrize("size", [1, 7, 16_384, 20_100, 1_000_000])
@pytest.mark.parametrize("rest", REST.values(), ids=REST.keys())
@pytest.mark.parametrize("before", [b"", EARLY_HINTS], ids=["", "1xx"])
def test_odd_content_after_the_first_bytes_is_parsed(before: bytes, rest: tuple[bytes, bytes], size: int) -> None:
    odd, body = rest
    assert read(cut(before + HEAD + chunk(FIRST) + odd, size)) == (FIRST + body, False)


@pytest.mark.parametrize("size", [1, 7, 16_384, 1_000_000])
@pytest.mark.parametrize("before", [b"", EARLY_HINTS], ids=["", "1xx"])
def test_a_connection_is_reused_after_an_answer_without_oddities(before: bytes, size: int) -> None:
    answer = before + HEAD + chunk(FIRST) + chunk(b"bc") + b"000\r\n\r\n"
    assert read(cut(answer, size)) == (FIRST + b"bc", True)


def test_a_long_answer_is_read_to_its_end_in_pieces() -> None:
    chunks = [chunk(bytes([n]) * 1000) for n in range(200)]
    body = b"".join(bytes([n]) * 1000 for n in range(200))
    answer = HEAD + b"".join(chunks) + b"0\r\n\r\n"
    for size in (1000, 1005, 16_384):
        assert read(cut(answer, size)) == (body, True)
    assert len(body) > 2 * HEAD_BYTES_MAX


@pytest.mark.parametrize("behind", [b"", chunk(b"z" * HEAD_BYTES_MAX)], ids=["", "long"])
def test_a_transfer_coding_in_a_trailer_closes_the_connection(behind: bytes) -> None:
    answer = HEAD + chunk(FIRST) + behind + b"0\r\nTransfer-Encoding: x\r\n\r\n"
    assert read(cut(answer, 16_384))[1] is False


def test_an_answer_without_chunks_is_read_in_pieces_also_when_much_arrives_at_once() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"z" * 100_000

    async def story() -> None:
        reading = Reading("POST", Allowance(65_536, lambda: False), pace=lambda _: None)
        for piece in cut(answer, 10_000):
            reading.feed(piece)  # a TLS library returns several records in succession
        response = await reading.response
        assert response.rest is not None
        assert bytes(response.body) + b"".join([piece async for piece in response.rest]) == b"z" * 100_000
        assert reading.clean

    asyncio.run(story())


@pytest.mark.parametrize("room", [False, True])
def test_an_answer_without_a_meaning_is_refused(room: bool) -> None:
    with pytest.raises(NoAnswerError, match="not valid HTTP"):
        read(cut(HEAD + chunk(FIRST) + b"x\r\n", 16_384), room=room)
