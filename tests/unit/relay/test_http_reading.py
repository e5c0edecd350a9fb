"""Which answers permit the reuse of a connection: only those whose end no two parsers find at different places."""

from __future__ import annotations

import asyncio
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from services.relay.egress.http.allowance import Allowance
from services.relay.egress.http.reading import Reading
from tests.unit.relay.test_http_rewriting import answers

# An independent check: RFC 9112 exactly, without what it merely permits recipients to accept.
_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*(?:[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*))?\r\n"
_HEAD = re.compile(rb"HTTP/1\.1 [1-9][0-9]{2}(?: [^\r\n]*)?\r\n((?:" + _FIELD + rb")*)\r\n")
_CHUNKS = re.compile(rb"(?:5\r\nhello\r\n)?0\r\n(?:" + _FIELD + rb")*\r\n")


def plain(content: bytes) -> bool:
    """Whether `content` is exactly one valid final answer, after any number of 1xx."""
    found = _HEAD.match(content)
    if found is None:
        return False
    body, status = content[found.end() :], int(content[9:12])
    if status < 200:
        return plain(body)
    names = [line.split(b":")[0].lower() for line in found[1].split(b"\r\n")]
    lengths, codings = names.count(b"content-length"), names.count(b"transfer-encoding")
    if lengths + codings > 1:
        return False
    if status in {204, 304}:
        return body == b""
    if codings:
        return re.search(rb"(?i)transfer-encoding:\s*chunked\s*\r\n", found[1]) is not None and bool(
            _CHUNKS.fullmatch(body)
        )
    length = re.search(rb"(?i)content-length:\s*([0-9]+)\s*\r\n", found[1])
    return length is not None and int(length[1]) == len(body)


@settings(max_examples=500)
@given(answers(), st.integers(1, 40))
def test_the_connection_of_an_odd_answer_is_never_reused(answer: bytes, size: int) -> None:
    async def scenario() -> bool:
        reading = Reading("POST", Allowance(1_000_000), pace=lambda _: None)
        for at in range(0, len(answer), size):
            reading.feed(answer[at : at + size])
        if reading.response.done():
            reading.response.exception()
        return reading.clean

    if asyncio.run(scenario()):
        # The parser skips empty lines after an answer that arrive together with its end. They belong to no answer.
        excess = len(answer) - len(answer.rstrip(b"\r\n"))
        assert any(plain(answer[: len(answer) - count]) for count in range(excess + 1))


def test_the_check_accepts_plain_answers() -> None:
    assert plain(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello")
    assert plain(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n")
    assert not plain(b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello")
