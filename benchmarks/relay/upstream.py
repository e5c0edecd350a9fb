"""The slow service that all contestants call: it answers after the time in the query, and counts calls and callbacks by
id.

It is an `asyncio.Protocol` on uvloop, which takes little processor time from the measured process. It is a separate
process, `python -m`, on several loopback addresses. Its clock is `time.time()`, like that of the other processes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs

import uvloop

ANSWER_BYTES = 1000
REQUEST_BYTES_MAX = 8 * 1024 * 1024
# Larger callbacks are judged as they arrive: 10,000 of them would not fit into this process.
KEPT_BYTES_MAX = 64 * 1024
BACKLOG = 16_384


def answer_of(id_: str, size_bytes: int = ANSWER_BYTES) -> bytes:
    """The body of the answer to the call `id_`: JSON of about `size_bytes`. It names the call, so that a mix-up shows."""
    return json.dumps({"id": id_, "text": ""}).encode().replace(b'""', b'"' + b"x" * (size_bytes - 40) + b'"')


@dataclass
class Seen:
    """The times at which the first bytes arrived, by id, and the bodies of callbacks."""

    calls: dict[str, list[float]] = field(default_factory=dict)
    callbacks: dict[str, list[float]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    held: list[tuple[Exchange, bytes]] = field(default_factory=list)
    released: bool = False

    def counts(self) -> dict[str, int]:
        return {"calls": len(self.calls), "callbacks": len(self.callbacks), "held": len(self.held)}

    def report(self) -> dict[str, object]:
        wrong = [id_ for id_, body in self.bodies.items() if not _carries(body, id_)]
        return {"calls": self.calls, "callbacks": self.callbacks, "wrong": self.wrong + wrong}

    def release(self) -> None:
        """Answer all calls that are held, and later calls at once."""
        self.released = True
        for exchange, answer in self.held:
            exchange.write(answer)
        self.held.clear()


class Exchange(asyncio.Protocol):
    """One connection: one request after another, each answered after its delay."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._buffer = bytearray()
        self._head_bytes = 0
        self._length: int | None = None
        self._began = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transport is not a subclass of asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._began = time.time()
        self._buffer += data
        if len(self._buffer) > REQUEST_BYTES_MAX and self._transport is not None:
            self._transport.abort()
            return
        if not self._head_bytes:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head_bytes = end + 4
            self._length = _length(self._buffer[:end].decode("latin-1").lower())
        if self._arrived():
            head = self._buffer[: self._head_bytes].decode("latin-1")
            body = bytes(self._buffer[self._head_bytes :])
            self._buffer = bytearray()  # nobody here sends a second request before the answer to the first
            self._head_bytes = 0
            self._answer(head.split(" ", 2)[1], body)

    def _arrived(self) -> bool:
        """Whether the whole body is here. A chunked one is kept as it came: nobody reads it."""
        if self._length is None:
            return self._buffer.endswith(b"0\r\n\r\n")
        return len(self._buffer) - self._head_bytes >= self._length

    def write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)

    def _answer(self, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        match path:
            case "/call":
                self._call({name: values[0] for name, values in parse_qs(query).items()})
            case "/callback":
                self._callback({name: values[0] for name, values in parse_qs(query).items()}, body)
            case "/control/counts":
                self.write(_response(json.dumps(self._seen.counts()).encode()))
            case "/control/report":
                self.write(_response(json.dumps(self._seen.report()).encode()))
            case "/control/reset":
                self._seen.__init__()  # type: ignore[misc]
                self.write(_response(b"{}"))
            case "/control/release":
                self._seen.release()
                self.write(_response(b"{}"))
            case _:
                self.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def _call(self, asked: dict[str, str]) -> None:
        self._seen.calls.setdefault(asked["id"], []).append(self._began)
        answer = _response(answer_of(asked["id"], int(asked.get("bytes", ANSWER_BYTES))))
        if asked["delay"] == "hold":
            self._held(answer)
        elif (seconds := float(asked["delay"])) > 0:
            asyncio.get_running_loop().call_later(seconds, self.write, answer)
        else:
            self.write(answer)

    def _callback(self, asked: dict[str, str], body: bytes) -> None:
        id_ = asked["id"]
        self._seen.callbacks.setdefault(id_, []).append(self._began)
        if len(body) <= KEPT_BYTES_MAX:
            self._seen.bodies[id_] = body
        elif not _carries(body, id_, int(asked["bytes"])):
            self._seen.wrong.append(id_)
        if asked.get("delay") == "hold":
            self._held(_response(b""))
        else:
            self.write(_response(b""))

    def _held(self, answer: bytes) -> None:
        if self._seen.released:
            self.write(answer)
        else:
            self._seen.held.append((self, answer))


def _length(head: str) -> int | None:
    """The length of the request's body in bytes. `None`: it is chunked."""
    if "\r\ntransfer-encoding: chunked" in head:
        return None
    _, _, value = head.partition("\r\ncontent-length:")
    return int(value.partition("\r\n")[0] or 0)


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _carries(body: bytes, id_: str, size_bytes: int = ANSWER_BYTES) -> bool:
    """Whether a callback of the QStash protocol holds the answer to `id_`, byte by byte."""
    try:
        return base64.b64decode(json.loads(body)["body"]) == answer_of(id_, size_bytes)
    except (ValueError, KeyError, TypeError):
        return False


async def main(listen: str) -> None:
    """Serve on `host,host:port` until the process is killed."""
    hosts, _, port = listen.rpartition(":")
    seen = Seen()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Exchange(seen), hosts.split(","), int(port), backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(os.environ["UPSTREAM_LISTEN"]))
