"""Webhook addresses that never answer: a full backlog, a closed port, an unresolved name, and a receiver that does not
read.
"""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from typing import Self

from stack.ports import free_ports

READERS_MAX = 200


class Sinks:
    """`urls` has one address of each of the four kinds, until the end of the block."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._closed = threading.Event()
        self.urls: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        hole, slow = self._listening(1), self._listening(READERS_MAX)
        [closed] = free_ports(1)
        reading = threading.Thread(target=self._read_slowly, args=(slow,), daemon=True)
        reading.start()
        self._stack.callback(reading.join, 10)
        self._stack.callback(self._closed.set)
        ports = (hole.getsockname()[1], closed, slow.getsockname()[1])
        self.urls = (*(f"http://127.0.0.1:{port}/" for port in ports), "http://nobody.invalid/")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listening(self, backlog: int) -> socket.socket:
        sock = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))
        sock.settimeout(0.2)
        return sock

    def _read_slowly(self, server: socket.socket) -> None:
        """Accept up to READERS_MAX connections, and read one byte per second from each."""
        with ExitStack() as stack:
            readers: list[socket.socket] = []
            while not self._closed.wait(0.8):
                with suppress(OSError):
                    while len(readers) < READERS_MAX:
                        reader = stack.enter_context(server.accept()[0])
                        reader.setblocking(False)
                        readers.append(reader)
                for reader in readers:
                    with suppress(OSError):
                        reader.recv(1)
