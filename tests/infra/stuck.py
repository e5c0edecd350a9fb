"""Servers that hang: listeners that accept no connection, do not read, or do not complete an answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

# On loopback a connection is accepted without delay.
IN_SECONDS = 0.5
# Small, so that a sender blocks soon when its data is not read.
BUFFER_BYTES = 4096


@contextmanager
def black_hole() -> Iterator[str]:
    """The address of a listener that answers no SYN, as its backlog is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(1000):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(IN_SECONDS)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            raise AssertionError("the backlog is never full")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class Deaf:
    """Accepts all connections, reads the first bytes, and then nothing. `heads` are those bytes."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self._connections: list[socket.socket] = []
        self.heads: list[bytes] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self.heads.append(connection.recv(64))

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.close()


@contextmanager
def deaf() -> Iterator[Deaf]:
    server = Deaf()
    try:
        yield server
    finally:
        server.close()


class Stalled:
    """Reads requests without a body. After `release` each gets `beginning`, and then nothing."""

    def __init__(self, beginning: bytes) -> None:
        self._beginning = beginning
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self.asked = 0
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            await self._released.wait()
            writer.write(self._beginning)
            await reader.read()
        writer.transport.abort()

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._released.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@contextmanager
def stalled(beginning: bytes) -> Iterator[Stalled]:
    server = Stalled(beginning)
    try:
        yield server
    finally:
        server.close()
