"""The bytes of a client before its request is complete are bounded: in size, in time, and for all clients together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvloop
from aiohttp import web

from services.relay.api.connection import Limits
from services.relay.api.reply import RefusedError
from services.relay.api.server import build_runner

# Short enough for a test to wait for, and long enough for a busy machine to send its data within it.
QUICK = Limits(
    head_bytes_max=256 * 1024,
    heads_bytes_max=1024 * 1024,
    head_seconds=1.0,
    idle_seconds=2.0,
    stalled_seconds=1.0,
    linger_seconds=1.0,
    idle_max=16,
)
PATIENT = Limits(head_seconds=600.0, idle_seconds=600.0, stalled_seconds=600.0)
# The maximum wait, which only a failing test reaches.
DEADLINE_SECONDS = 60.0
HEAD = b"POST /x HTTP/1.1\r\nHost: relay\r\n"


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def says(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def hears(self) -> bytes:
        """All bytes until the other side closes."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def hears_answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return int(head.split()[1]), await self.reader.readexactly(int(length.split(b":")[1]))


class Server:
    """Answers with the size of what it read. It reads nothing until `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.port = 0
        self.clients: list[Client] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await self.open.wait()
        try:
            return web.Response(text=str(len(await request.read())))
        except RefusedError as error:
            return web.Response(status=error.status, text=str(error), headers=error.headers)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Server]:
    server = Server()
    runner = build_runner(server.answer, 64 * 1024 * 1024, limits)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        for client in server.clients:
            client.writer.close()
        server.open.set()
        await runner.cleanup()


Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def on_loop(scenario: Coroutine[Any, Any, Any]) -> Any:
        return uvloop.run(scenario) if request.param == "uvloop" else asyncio.run(scenario)

    return on_loop


def refused(content: bytes) -> tuple[int, str]:
    """The status and the error of the single answer before the connection was closed."""
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_head_that_is_too_large_is_431_and_closed_whether_it_ends_or_not(run: Run) -> None:
    async def scenario() -> None:
        async with serving(PATIENT) as server:
            for end in (b"", b"\r\n"):
                client = await server.connect()
                await client.says(HEAD + b"".join(b"A%d: %b\r\n" % (n, b"x" * 60_000) for n in range(5)) + end)
                status, error = refused(await client.hears())
                assert (status, "larger than 262144 bytes" in error) == (431, True)

    run(scenario())


def test_a_head_below_the_limit_is_served_also_in_small_pieces_and_after_a_large_body(run: Run) -> None:
    async def scenario() -> None:
        async with serving(PATIENT) as server:
            client = await server.connect()
            large = HEAD + b"".join(b"A%d: %b\r\n" % (n, b"x" * 60_000) for n in range(4))
            for _ in range(2):
                await client.says(large + b"Content-Length: 900000\r\n\r\n" + b"b" * 900_000 + HEAD)
                assert await client.hears_answer() == (200, b"900000")
                for byte in b"Content-Length: 3\r\n\r\nabc":
                    await client.says(bytes([byte]))
                assert await client.hears_answer() == (200, b"3")

    run(scenario())


@pytest.mark.parametrize("start", [b"", b"POST", HEAD])
def test_a_connection_without_a_request_in_time_is_closed(run: Run, start: bytes) -> None:
    async def scenario() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            await client.says(start)
            content = await client.hears()
            assert (refused(content)[0] == 408) if start else not content

    run(scenario())


def test_a_head_that_arrives_a_byte_at_a_time_gets_no_more_time(run: Run) -> None:
    async def scenario() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            await client.says(HEAD + b"A: ")
            heard = asyncio.ensure_future(client.hears())
            while not heard.done():
                with suppress(ConnectionError):
                    await client.says(b"x")
                await asyncio.wait([heard], timeout=0.1)
            assert refused(heard.result())[0] == 408

    run(scenario())


def test_an_idle_connection_is_closed_after_its_answer(run: Run) -> None:
    async def scenario() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            await client.says(HEAD + b"Content-Length: 1\r\n\r\nx")
            assert await client.hears_answer() == (200, b"1")
            assert await client.hears() == b""

    run(scenario())


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_body_that_stalls_is_408_and_its_connection_closed(run: Run, framing: bytes) -> None:
    async def scenario() -> None:
        async with serving(QUICK) as server:
            client = await server.connect()
            await client.says(HEAD + framing + b"\r\n\r\n1\r\nx")
            content = await client.hears()
            assert content.startswith(b"HTTP/1.1 408 ")
            assert content.endswith(b"the body stood still for 1 s")

    run(scenario())


def test_a_body_that_waits_for_the_relay_does_not_stall(run: Run) -> None:
    async def scenario() -> None:
        async with serving(QUICK) as server:
            server.open.clear()
            client = await server.connect()
            size = 8 * 1024 * 1024
            sending = asyncio.ensure_future(client.says(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size))
            await asyncio.sleep(QUICK.stalled_seconds * 3)
            server.open.set()
            await sending
            assert await client.hears_answer() == (200, b"%d" % size)

    run(scenario())


def test_a_body_may_take_longer_than_the_stall_timeout(run: Run) -> None:
    async def scenario() -> None:
        async with serving(replace(QUICK, stalled_seconds=5.0)) as server:
            client = await server.connect()
            await client.says(HEAD + b"Content-Length: 30\r\n\r\n")
            for _ in range(30):
                await client.says(b"x")
                await asyncio.sleep(0.2)
            assert await client.hears_answer() == (200, b"30")

    run(scenario())


def test_heads_are_bounded_together_and_the_oldest_is_closed(run: Run) -> None:
    async def scenario() -> None:
        async with serving(replace(PATIENT, heads_bytes_max=1024 * 1024)) as server:
            piece = HEAD + b"A: " + b"x" * 60_000 + b"\r\nB: " + b"x" * 60_000
            clients = [await server.connect() for _ in range(12)]
            for client in clients:
                await client.says(piece)
            assert refused(await clients[0].hears())[0] == 503
            await clients[-1].says(b"\r\nContent-Length: 1\r\n\r\nx")
            assert await clients[-1].hears_answer() == (200, b"1")

    run(scenario())


def test_the_oldest_of_too_many_connections_without_a_request_are_closed(run: Run) -> None:
    async def scenario() -> None:
        async with serving(replace(PATIENT, idle_max=16)) as server:
            server.open.clear()
            busy = await server.connect()
            await busy.says(HEAD + b"Content-Length: 1\r\n\r\nx")
            silent = [await server.connect() for _ in range(60)]
            for client in silent[:30]:
                assert await client.hears() == b""
            server.open.set()
            assert await busy.hears_answer() == (200, b"1")
            await silent[-1].says(HEAD + b"Content-Length: 2\r\n\r\nxy")
            assert await silent[-1].hears_answer() == (200, b"2")

    run(scenario())
