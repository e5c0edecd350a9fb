"""The relay's own HTTP client against servers that send exactly the bytes of a test, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.relay.egress.http.allowance import Allowance
from services.relay.egress.http.connection import STALE_SECONDS
from services.relay.egress.http.dns import SystemNames
from services.relay.egress.http.faults import NoAnswerError, NotSentError, StaleError
from services.relay.egress.http.pool import Pool, Times
from services.relay.egress.http.reading import AHEAD_BYTES_MAX, HEAD_BYTES_MAX, Reading
from services.relay.egress.http.request import Origin, Request, request
from services.relay.egress.http.resolving import Names
from services.relay.egress.http.response import Response
from services.relay.egress.http.tls import tls_context
from stack.ports import free_ports
from tests.certificates import authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
INLINE_BYTES_MAX = 1024


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    def on_loop(scenario: Coroutine[Any, Any, Any]) -> Any:
        bounded = asyncio.wait_for(scenario, 20)
        return uvloop.run(bounded) if request.param == "uvloop" else asyncio.run(bounded)

    return on_loop


@dataclass
class Scripted:
    """Answers the n-th request with the n-th text, on any connection. After each of `last` it closes."""

    answers: list[bytes]
    last: Sequence[int] = ()
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
                )
                self.bodies.append(await reader.readexactly(length))
                self.heads.append(head)
                writer.write(self.answers.pop(0))
                await writer.drain()
                if len(self.heads) in self.last:
                    break
            else:
                await reader.read()
        writer.close()


@dataclass
class Client:
    pool: Pool
    origin: Origin

    async def call(
        self,
        method: str = "POST",
        body: bytes | AsyncGenerator[bytes, None] = b"hi",
        size: int = 2,
        *,
        fresh: bool = False,
    ) -> Response:
        """One exchange. The answer is read to its end, and `body` includes the part from `rest`."""
        asked = request(method, "/", {"Host": self.origin.authority}, body, size)
        return await self.send(asked, fresh=fresh)

    async def send(self, asked: Request, *, fresh: bool = False) -> Response:
        with await self.pool.connection(self.origin, 5, fresh=fresh) as connection:
            response = await connection.exchange(asked, INLINE_BYTES_MAX)
            body = response.body
            if response.rest is not None:
                body += b"".join([piece async for piece in response.rest])
            return Response(response.status, response.headers, body)


def system_names() -> Names:
    return Names(SystemNames(), asyncio.get_running_loop().time)


async def with_server(handler: Handler, work: Callable[[Client], Awaitable[Any]]) -> Any:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    pool = Pool(tls_context(None), system_names())
    try:
        return await work(Client(pool, Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])))
    finally:
        pool.close()
        server.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nTrailer: x\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 500 \r\nContent-Length: 4\r\n\r\nfail", 500, b"fail"),
        (b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    ],
    ids=["length", "chunked", "204", "304", "empty", "1xx", "500", "upgrade-offered"],
)  # fmt: skip
def test_an_answer_is_read_and_its_connection_is_reused(run: Any, answer: bytes, status: int, body: bytes) -> None:
    server = Scripted([answer, OK])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(server, twice))
    assert (first.status, first.body) == (status, body)
    assert (second.status, second.body) == (200, b"ok")
    assert server.connections == 1
    assert server.bodies == [b"hi", b"hi"]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzipped", b"zipped"),
    ],
    ids=["close", "to-the-end", "1.0", "other-coding"],
)
def test_a_connection_that_ends_with_its_answer_is_not_reused(run: Any, answer: bytes, body: bytes) -> None:
    server = Scripted([answer, OK], last=[1])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(server, twice))
    assert (first.status, first.body) == (200, body)
    assert (second.status, second.body) == (200, b"ok")
    assert server.connections == 2


CHUNKED = b"Transfer-Encoding: chunked\r\n"
LINE = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        LINE + CHUNKED + b"Content-Length: 7\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + b"Content-Length: 7\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + b"Content-Length: 7\r\nContent-Length: 8\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + CHUNKED + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + CHUNKED + b"\r\n2\r\nok\r\n0\r\nContent-Length: 2\r\n\r\n",
        LINE + CHUNKED + b"\r\n2\r\nok\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\no\n1;a=b\nk\n0\nTrailer: x\n\n",
        LINE + CHUNKED + b"\r\n2\nok\r\n0\r\n\r\n",
        LINE + CHUNKED + b"\r\n2\r\nok\n0\r\n\r\n",
        LINE + CHUNKED + b"\r\n2  \r\nok\r\n0\r\n\r\n",
        LINE + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\n",
        LINE + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        LINE + b"Content-Length: 2, 2\r\n\r\nok",
        LINE + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        LINE + b"Transfer-Encoding: identity, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + b"X-A : b\r\nContent-Length: 2\r\n\r\nok",
        LINE + b"Content-Length : 2\r\n\r\nok",
        LINE + b"Transfer-Encoding : chunked\r\nContent-Length : 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + b"X-Long: part one\r\n part two\r\n\tthree\r\nContent-Length: 2\r\n\r\nok",
        LINE + b"Content-Length:\r\n 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\r\nLink : x\r\n\r\n" + OK,
        b"\r\n" + OK,
    ],
    ids=["chunked-and-length", "length-and-chunked", "lengths-and-chunked", "chunked-twice", "chunked-in-1.0",
         "length-in-trailer", "coding-in-trailer", "line-feeds", "line-feed-first", "line-feed-last", "line-feed-chunks",
         "line-feed-after-size", "line-feed-after-chunk", "space-after-size", "line-feed-after-trailer", "length-twice",
         "length-listed-twice", "identity", "identity-chunked", "space-before-colon", "length-space", "coding-space",
         "folded", "folded-length", "odd-1xx", "empty-line-first"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_an_odd_answer_with_one_meaning_is_an_answer_and_its_connection_is_closed(
    run: Any, answer: bytes, pieces: str
) -> None:
    state: dict[str, Any] = {"connections": 0}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state["connections"] += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\nhi")
            sent = answer if state["connections"] == 1 else OK
            for piece in [sent] if pieces == "whole" else [sent[n : n + 1] for n in range(len(sent))]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            # The server is open until the client closes. A second request here would belong to the odd answer's
            # connection too.
            await reader.read()
        writer.close()

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(handler, twice))
    assert (first.status, first.body) == (200, b"ok")
    assert (second.status, second.body) == (200, b"ok")
    assert state["connections"] == 2


def test_an_odd_head_is_normalized(run: Any) -> None:
    head = LINE + b"X-Long: part one\r\n\t part two\r\nX-A \t: b\r\nSet-Cookie: a\r\nSet-Cookie: a\r\n"
    answer = head + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"
    response = run(with_server(Scripted([answer]), lambda client: client.call()))
    assert response.headers == (
        ("X-Long", "part one part two"),
        ("X-A", "b"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "a"),
        ("Content-Length", "2"),
    )


def test_a_second_head_within_an_answer_is_not_read_as_another_answer(run: Any) -> None:
    async def scenario() -> None:
        reading = Reading("POST", Allowance(1_000_000), pace=lambda _: None)
        reading.feed(LINE + CHUNKED + b"\r\n%x\r\n" % 70_000 + b"z" * 70_000 + b"\r\n")
        reading.feed(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
        with pytest.raises(NoAnswerError, match="not valid HTTP"):
            await reading.response

    run(scenario())


def test_an_odd_answer_may_be_large(run: Any) -> None:
    chunk = b"%x\n" % 50_000 + b"z" * 50_000 + b"\n"
    server = Scripted([b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n" + chunk * 80 + b"0\n\n", OK])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(server, twice))
    assert (first.body, second.body, server.connections) == (b"z" * 4_000_000, b"ok", 2)


@pytest.mark.parametrize("status", [600, 783, 999])
def test_a_status_of_an_unknown_class_is_an_answer(run: Any, status: int) -> None:
    server = Scripted([b"HTTP/1.1 %d Request denied\r\nContent-Length: 2\r\n\r\nno" % status, OK])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(server, twice))
    assert (first.status, first.body, second.status, server.connections) == (status, b"no", 200, 1)


def test_the_answer_to_head_has_no_body_whatever_its_headers_are(run: Any) -> None:
    server = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", OK])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call("HEAD", b"", 0), await client.call()

    first, second = run(with_server(server, twice))
    assert (first.status, first.body, dict(first.headers)) == (200, b"", {"Content-Length": "1000"})
    assert second.body == b"ok"


def test_names_keep_their_case_and_values_their_bytes(run: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-oDD:  a b \r\nx-odd: \xc3\xa4\r\nX-Raw: \xe4\r\nContent-Length: 0\r\n\r\n"
    response = run(with_server(Scripted([head]), lambda client: client.call()))
    assert response.headers == (("X-oDD", "a b"), ("x-odd", "ä"), ("X-Raw", "\udce4"), ("Content-Length", "0"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "in the middle of the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "before an answer came"),
        (b"", "before an answer came"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok", "not valid HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 000 x\r\nContent-Length: 2\r\n\r\nok", "not valid HTTP"),
        (b"HTTP/1.1 099 x\r\nContent-Length: 2\r\n\r\nok", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nok", "in the middle of the answer"),
        (b"HTTP/1.1 200 OK\nContent-Le", "before an answer came"),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\nok\n0\n\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\nok\n0\n\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * (HEAD_BYTES_MAX * 8), "more than"),
        (b"HTTP/1.1 200 OK\nA: " + b"x" * (HEAD_BYTES_MAX * 8), "more than"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (HEAD_BYTES_MAX // 4), "more than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"x" * (HEAD_BYTES_MAX * 8), "more than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"x" * 60_000 + b"\r\ny\r\n") * 60, "more than"),
    ],
    ids=["short", "head-cut", "nothing", "other-protocol", "lengths-differ", "listed-lengths-differ", "odd-length",
         "chunk", "nul", "carriage-return", "no-colon", "101", "status-0", "status-99", "odd-and-short", "odd-head-cut",
         "odd-chunk", "odd-chunk-overrun", "head", "odd-head", "1xx-flood", "extension", "extensions"],
)  # fmt: skip
def test_an_incomplete_answer_is_an_error_and_its_connection_is_closed(run: Any, answer: bytes, said: str) -> None:
    server = Scripted([answer, OK], last=[1])

    async def twice(client: Client) -> Response:
        with pytest.raises(NoAnswerError, match=said):
            await client.call()
        return await client.call()

    assert run(with_server(server, twice)).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("extra", [OK, b"HTTP/1.1 2", b"\x16\x03"], ids=["answer", "part", "garbage"])
def test_bytes_after_an_answer_are_not_an_answer_to_the_next_request(run: Any, extra: bytes) -> None:
    server = Scripted([OK + extra, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(server, twice))
    assert (first.body, second.body) == (b"ok", b"next")
    assert server.connections == 2


def test_bytes_on_an_idle_connection_end_it(run: Any) -> None:
    state: dict[str, Any] = {"connections": 0}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state["connections"] += 1
        await reader.readuntil(b"\r\n\r\nhi")
        writer.write(OK)
        await state["idle"].wait()
        writer.write(OK)
        with suppress(ConnectionError):
            await writer.drain()
            # Until the client has closed.
            await reader.read()
        state["closed"].set()
        writer.close()

    async def scenario(client: Client) -> None:
        state["idle"], state["closed"] = asyncio.Event(), asyncio.Event()
        await client.call()
        state["idle"].set()
        await state["closed"].wait()
        await client.call()

    run(with_server(handler, scenario))
    assert state["connections"] == 2


def test_a_kept_connection_that_was_closed_without_an_answer_is_stale(run: Any) -> None:
    # The server reads the second request and closes. To the client, this is the same as a server that closed at that
    # moment.
    server = Scripted([OK, b""], last=[2])

    async def scenario(client: Client) -> None:
        await client.call()
        with pytest.raises(StaleError):
            await client.call()

    run(with_server(server, scenario))
    assert server.connections == 1


def test_a_kept_connection_that_is_closed_after_a_wait_is_not_stale(run: Any) -> None:
    # The server received the request and worked on it. If it were sent again, the call would be made twice.
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nhi")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\nhi")
        await asyncio.sleep(STALE_SECONDS + 0.2)
        writer.close()

    async def scenario(client: Client) -> None:
        await client.call()
        with pytest.raises(NoAnswerError, match="before an answer came") as caught:
            await client.call()
        assert not isinstance(caught.value, StaleError)

    run(with_server(handler, scenario))


def test_a_kept_connection_with_unread_bytes_is_not_used(run: Any) -> None:
    # The bytes are in the socket, and the event loop has not read them yet. The request would get them as its answer.
    state: dict[str, Any] = {"heads": 0}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state["writer"] = writer
        with suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\nhi")
                state["heads"] += 1
                writer.write(OK)

    async def scenario(client: Client) -> None:
        await client.call()
        # Both ends belong to one process and one loop: the bytes are written at once, and not read before the next
        # request.
        state["writer"].write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers")
        with pytest.raises(StaleError, match="before the request was sent"):
            await client.call()
        assert (await client.call()).body == b"ok"

    run(with_server(handler, scenario))
    assert state["heads"] == 2


def test_a_new_connection_that_is_closed_before_the_request_was_written_is_not_sent(run: Any) -> None:
    state: dict[str, asyncio.Event] = {}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        with suppress(ConnectionError):
            await reader.read()
        state["closed"].set()
        writer.close()

    async def scenario(client: Client) -> None:
        state["closed"] = asyncio.Event()
        with await client.pool.connection(client.origin, 5) as connection:
            await state["closed"].wait()
            with pytest.raises(NotSentError, match="before the request was sent"):
                await connection.exchange(request("POST", "/", {"Host": "h"}, b"hi", 2), INLINE_BYTES_MAX)

    run(with_server(handler, scenario))


def bare_tls(tls: ssl.SSLContext, listening: socket.socket, answer: bytes, *, farewell: bool) -> None:
    """Serves one connection: answers its request and closes, with TLS's close_notify or only with TCP's FIN."""
    plain, _ = listening.accept()
    with plain, tls.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as secured:
        secured.settimeout(10)
        secured.recv(65_536)
        secured.sendall(answer)
        if farewell:
            secured.unwrap()
        else:
            secured.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                plain.recv(65_536)


@pytest.mark.parametrize(
    ("answer", "farewell", "body"),
    [
        (LINE + b"\r\nuntil the end", True, b"until the end"),
        (LINE + b"\r\nuntil the", False, None),
        (OK, False, b"ok"),
        (LINE + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", False, b"ok"),
        (LINE + CHUNKED + b"\r\n2\r\nok\r\n", True, None),
    ],
    ids=["said", "cut-off", "length", "chunked", "chunks-cut-off"],
)
def test_over_tls_a_body_without_a_length_is_complete_when_close_notify_ends_it(
    run: Any, tmp_path: Path, answer: bytes, farewell: bool, body: bytes | None
) -> None:
    bundle, tls = authority(tmp_path)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(asyncio.to_thread(bare_tls, tls, listening, answer, farewell=farewell))
            pool = Pool(tls_context(bundle), system_names())
            client = Client(pool, Origin("https", "127.0.0.1", listening.getsockname()[1]))
            if body is None:
                with pytest.raises(NoAnswerError, match="in the middle of the answer"):
                    await client.call()
            else:
                assert (await client.call()).body == body
            pool.close()
            with suppress(OSError):
                await serving

    run(scenario())


def test_a_tls_connection_is_reused(run: Any, tmp_path: Path) -> None:
    # Messages of TLS itself, such as session tickets, are not unexpected bytes.
    bundle, tls = authority(tmp_path)
    server = Scripted([OK] * 5)

    async def scenario() -> None:
        listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
        pool = Pool(tls_context(bundle), system_names())
        client = Client(pool, Origin("https", "127.0.0.1", listening.sockets[0].getsockname()[1]))
        for _ in range(5):
            assert (await client.call()).body == b"ok"
        pool.close()
        listening.close()

    run(scenario())
    assert server.connections == 1


def test_over_tls_the_end_of_a_large_answer_is_not_lost_when_the_server_closes(run: Any, tmp_path: Path) -> None:
    # More than the read-ahead, and less than the buffers hold: the server has closed before the answer is read.
    size = INLINE_BYTES_MAX + AHEAD_BYTES_MAX * 5 // 2
    bundle, tls = authority(tmp_path)
    gone = threading.Event()

    def serve(listening: socket.socket) -> None:
        plain, _ = listening.accept()
        with plain, tls.wrap_socket(plain, server_side=True) as secured:
            secured.settimeout(10)
            secured.recv(65_536)
            secured.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size + b"z" * size)
            # Sends TLS's close_notify and TCP's FIN without waiting for the client's, as servers do.
            secured.settimeout(0)
            with suppress(ssl.SSLError):
                secured.unwrap()
        gone.set()

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(asyncio.to_thread(serve, listening))
            pool = Pool(tls_context(bundle), system_names())
            asked = request("POST", "/", {"Host": "h"}, b"hi", 2)
            with await pool.connection(Origin("https", "127.0.0.1", listening.getsockname()[1]), 5) as connection:
                response = await connection.exchange(asked, INLINE_BYTES_MAX)
                assert response.rest is not None
                await asyncio.to_thread(gone.wait, 10)
                # The event loop gets time to read the end of the stream.
                for _ in range(1000):
                    await asyncio.sleep(0)
                read = len(response.body) + sum([len(piece) async for piece in response.rest])
            await serving
            pool.close()
            assert read == size

    run(scenario())


def test_a_fresh_connection_is_a_new_one(run: Any) -> None:
    server = Scripted([OK, OK])

    async def twice(client: Client) -> None:
        await client.call()
        await client.call(fresh=True)

    run(with_server(server, twice))
    assert server.connections == 2


def test_fresh_connections_do_not_accumulate(run: Any) -> None:
    # Calls that use no kept connection, such as all with Upstash-Retries: 0, would each leave one until its idle
    # timeout.
    state: dict[str, Any] = {"connections": 0, "closed": 0}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state["connections"] += 1
        await reader.readuntil(b"\r\n\r\nhi")
        writer.write(OK)
        with suppress(ConnectionError):
            await reader.read()
        state["closed"] += 1
        if state["closed"] == 19:
            state["most closed"].set()
        writer.close()

    async def scenario(client: Client) -> None:
        state["most closed"] = asyncio.Event()
        for _ in range(20):
            await client.call(fresh=True)
        await state["most closed"].wait()

    run(with_server(handler, scenario))
    assert state["connections"] == 20


def test_a_body_is_streamed_at_the_servers_speed(run: Any) -> None:
    taken = 0
    given = 0

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal given
        for _ in range(64):
            given += 1
            yield b"x" * 1024 * 1024

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        # A client that does not wait for the server has sent everything when the server has read a 64th.
        await reader.readexactly(1024 * 1024)
        ahead = given
        taken = 1024 * 1024
        while taken < 64 * 1024 * 1024:
            taken += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % ahead)
        await writer.drain()
        await reader.read()
        writer.close()

    response = run(with_server(handler, lambda client: client.call("PUT", pieces(), 64 * 1024 * 1024)))
    assert taken == 64 * 1024 * 1024
    assert int(response.body) < 32


def test_an_answer_before_the_body_was_sent_is_the_answer(run: Any) -> None:
    state = {"given": 0, "connections": 0, "closed": 0}

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(1000):
                state["given"] += 1
                yield b"x" * 1024 * 1024
        finally:
            state["closed"] = 1

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state["connections"] += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()
        writer.close()

    async def scenario(client: Client) -> int:
        refused = await client.call("PUT", pieces(), 1000 * 1024 * 1024)
        # It may use a place among the requests that send a body.
        assert state["closed"] == 1
        await client.call()
        return refused.status

    assert run(with_server(handler, scenario)) == 413
    assert state["given"] < 1000
    assert state["connections"] == 2


def test_a_large_answer_is_not_read_faster_than_its_reader_consumes_it(run: Any) -> None:
    size = 64 * 1024 * 1024
    state = {"written": 0}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nhi")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while state["written"] < size:
            writer.write(b"y" * 65_536)
            await writer.drain()
            state["written"] += 65_536
        writer.close()

    async def scenario(client: Client) -> int:
        asked = request("POST", "/", {"Host": "h"}, b"hi", 2)
        with await client.pool.connection(client.origin, 5) as connection:
            response = await connection.exchange(asked, INLINE_BYTES_MAX)
            assert response.rest is not None
            read = len(response.body)
            # The server is on this event loop. It can write only as much as the buffers between it and the client hold.
            for _ in range(5000):
                await asyncio.sleep(0)
            assert state["written"] < size / 2
            async for piece in response.rest:
                assert len(piece) < 4 * AHEAD_BYTES_MAX
                read += len(piece)
            return read

    assert run(with_server(handler, scenario)) == size


def test_a_connection_whose_answer_was_not_consumed_is_not_reused(run: Any) -> None:
    # The answer is complete, and most of it is still in memory: the connection would wait for its reader for ever.
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"z" * 4_000_000
    server = Scripted([large, OK])

    async def scenario(client: Client) -> Response:
        asked = request("POST", "/", {"Host": "h"}, b"hi", 2)
        with await client.pool.connection(client.origin, 5) as connection:
            response = await connection.exchange(asked, INLINE_BYTES_MAX)
            assert response.rest is not None
        return await client.call()

    assert run(with_server(server, scenario)).body == b"ok"
    assert server.connections == 2


def test_a_large_answer_that_was_consumed_leaves_a_connection_for_the_next(run: Any) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"z" * 4_000_000
    server = Scripted([large, OK])

    async def twice(client: Client) -> tuple[Response, Response]:
        return await client.call(), await client.call()

    first, second = run(with_server(server, twice))
    assert (len(first.body), second.body, server.connections) == (4_000_000, b"ok", 1)


def test_an_interrupted_stream_is_an_error(run: Any) -> None:
    server = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"z" * 5000], last=[1])
    with pytest.raises(NoAnswerError, match="in the middle of the answer"):
        run(with_server(server, lambda client: client.call()))


def test_a_body_with_one_byte_per_chunk_is_assembled(run: Any) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    response = run(with_server(Scripted([chunked]), lambda client: client.call()))
    assert response.body == b"x" * 20_000


def test_a_call_that_is_cancelled_closes_its_connection(run: Any) -> None:
    async def scenario() -> None:
        came, gone = asyncio.Event(), asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\nhi")
            came.set()
            with suppress(ConnectionError):
                await reader.read()
            gone.set()
            writer.close()

        async def cancelled(client: Client) -> None:
            task = asyncio.create_task(client.call())
            await came.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await gone.wait()

        await with_server(handler, cancelled)

    run(scenario())


def test_an_error_without_a_connection_is_not_sent(run: Any) -> None:
    [port] = free_ports(1)

    async def scenario() -> None:
        pool = Pool(tls_context(None), system_names())
        with pytest.raises(NotSentError, match=r"no connection: ConnectionRefusedError: Connection refused$"):
            await pool.connection(Origin("http", "127.0.0.1", port), 5)
        with pytest.raises(NotSentError, match="no connection"):
            await pool.connection(Origin("http", "name.invalid", port), 5)
        pool.close()

    run(scenario())


@pytest.mark.parametrize("size", [64, 1024])
def test_a_destination_that_reads_nothing_of_the_body_leaves_the_fate_unknown(run: Any, size: int) -> None:
    ended: list[bool] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            # More than the buffers of both sides hold, in few chunks or in many.
            for _ in range(16 * 1024 // size):
                yield b"x" * size * 1024
        finally:
            ended.append(True)

    async def deaf(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def scenario() -> None:
        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
        pool = Pool(tls_context(None), system_names(), times=Times(stall_seconds=0.5))
        asked = request("POST", "/", {"Host": origin.authority}, pieces(), 16 * 1024 * 1024)
        stuck = pytest.raises(NoAnswerError, match=r"accepted no data of the body for 0\.5 s")
        with await pool.connection(origin, 5) as connection, stuck:
            await connection.exchange(asked, INLINE_BYTES_MAX)
        assert ended == [True]
        pool.close()
        server.close()

    run(scenario())


def test_a_destination_that_reads_the_body_slowly_gets_all_of_it(run: Any) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for _ in range(8):
            yield b"x" * 1024 * 1024

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = 8 * 1024 * 1024
        while left:
            left -= len(await reader.read(256 * 1024))
            await asyncio.sleep(0.02)
        writer.write(OK)
        await reader.read()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(slow, "127.0.0.1", 0)
        origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
        # Less than the whole body takes, and far more than one chunk.
        pool = Pool(tls_context(None), system_names(), times=Times(stall_seconds=1.0))
        asked = request("POST", "/", {"Host": origin.authority}, pieces(), 8 * 1024 * 1024)
        with await pool.connection(origin, 5) as connection:
            assert (await connection.exchange(asked, INLINE_BYTES_MAX)).status == 200
        # The answer is complete and consumed, so the connection is reused.
        with await pool.connection(origin, 5) as again:
            assert again is connection
        pool.close()
        server.close()

    run(scenario())


def test_a_connection_that_takes_too_long_is_not_sent(run: Any) -> None:
    async def scenario() -> None:
        async def never(_: str) -> Sequence[str]:
            await asyncio.Event().wait()
            raise AssertionError

        pool = Pool(tls_context(None), never)
        opening = asyncio.create_task(pool.connection(Origin("http", "slow.example", 80), 0.2))
        await asyncio.sleep(0)
        assert pool.opening == 1
        with pytest.raises(NotSentError, match=r"no connection within 0\.2 s"):
            await opening
        assert pool.opening == 0

    run(scenario())


def test_the_next_address_of_a_name_is_tried(run: Any) -> None:
    async def scenario() -> None:
        server = Scripted([OK])

        async def two(_: str) -> Sequence[str]:
            return ["::1", "127.0.0.1"]

        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        pool = Pool(tls_context(None), two)
        origin = Origin("http", "both.example", listening.sockets[0].getsockname()[1])
        assert (await Client(pool, origin).call()).body == b"ok"
        assert b"Host: both.example:" in server.heads[0]
        pool.close()
        listening.close()

    run(scenario())
