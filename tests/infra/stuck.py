"""Other sides that are stuck: listeners that let nobody in, do not read, or end no answer, and silent name servers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# On loopback a connection that is let in is there at once.
IN_SECONDS = 0.5
# Small, so that what is not read is soon felt by the sender.
BUFFER_BYTES = 4096
DNS_PORT = 53
_A = 1


@contextmanager
def black_hole() -> Iterator[str]:
    """The address of a listener that answers no SYN: its backlog is full."""
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
    """Lets everybody in and reads the first bytes, then nothing. `heads` are those bytes."""

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
    """Takes requests without a body; after `release` each gets `beginning`, and then nothing more."""

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


class NameServer:
    """Answers for `known` names (to an IPv4 address), says of `absent` ones that they are not there, and of others nothing.
    `asked` are the names it was asked for.
    """

    def __init__(self, address: str, known: Mapping[str, str], absent: Sequence[str]) -> None:
        self._known = known
        self._absent = tuple(absent)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, DNS_PORT))
        self.asked: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                query, sender = self._socket.recvfrom(4096)
                name, end = _name(query)
                self.asked.append(name)
                kind = int.from_bytes(query[end : end + 2], "big")
                question = query[12 : end + 4]
                if name in self._known:
                    address = socket.inet_aton(self._known[name])
                    answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + address if kind == _A else b""
                    count = b"\0\1" if answer else b"\0\0"
                    self._socket.sendto(query[:2] + b"\x85\x80\0\1" + count + b"\0\0\0\0" + question + answer, sender)
                elif name.endswith(self._absent):
                    self._socket.sendto(query[:2] + b"\x85\x83\0\1\0\0\0\0\0\0" + question, sender)

    def close(self) -> None:
        self._socket.close()


def _name(query: bytes) -> tuple[str, int]:
    """The name of the first question, and where its type begins (RFC 1035, section 4.1.2)."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 1


@contextmanager
def name_server(address: str, known: Mapping[str, str], absent: Sequence[str] = ()) -> Iterator[NameServer]:
    server = NameServer(address, known, absent)
    try:
        yield server
    finally:
        server.close()


def own_names(directory: Path, *, hosts: str, resolv_conf: str) -> list[str]:
    """The command that runs another with these instead of /etc/hosts and /etc/resolv.conf, in a mount namespace of its own."""
    script = ["set -e"]
    for name, content in (("hosts", hosts), ("resolv.conf", resolv_conf)):
        (directory / name).write_text(content)
        script.append(f"mount --bind '{directory / name}' /etc/{name}")
    return ["unshare", "--mount", "sh", "-c", "; ".join([*script, 'exec "$@"']), "sh"]


def may_have_own_names(directory: Path) -> bool:
    """Whether this user may make namespaces, and bind port 53."""
    try:
        with name_server("127.0.53.52", {}):
            command = own_names(directory, hosts="", resolv_conf="")
            return subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
