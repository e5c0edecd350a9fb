"""The load generator, a separate process: each of its keep-alive connections repeats the same POST after each answer.

It is an `asyncio.Protocol`, because it shares the processors with the server that it measures: asyncio's streams took
as much processor time as the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
ANSWER_SECONDS_MAX = 60


async def repeat(
    port: int,
    request: bytes,
    until: float,
    delays: list[float],
    faults: list[str],
    *,
    accepted: bytes = b"HTTP/1.1 202",
) -> None:
    """Repeat `request` until the time is over. An answer that does not begin with `accepted` is a fault."""
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: _Client(request, until, delays, faults, accepted), "127.0.0.1", port
    )
    await asyncio.wait_for(client.ended, max(0.0, until - time.perf_counter()) + ANSWER_SECONDS_MAX)


class _Client(asyncio.Protocol):
    """One connection. It appends to `delays` (seconds) and `faults` (heads of answers that do not begin with
    `accepted`).
    """

    def __init__(self, request: bytes, until: float, delays: list[float], faults: list[str], accepted: bytes) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._until = until
        self._delays = delays
        self._faults = faults
        self._accepted = accepted
        self._received = b""
        self._begin = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transport is not a subclass of asyncio.Transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head + b"\r\n")
        if length is not None and len(body) < int(length[1]):
            return
        now = time.perf_counter()
        self._delays.append(now - self._begin)
        if length is None or not head.startswith(self._accepted):
            self._faults.append(head[:40].decode("latin-1"))
        self._received = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self._faults.append(f"connection lost: {exc}")
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        self._begin = time.perf_counter()
        self._transport.write(self._request)


def summary(delays: list[float], faults: list[str], seconds: float) -> dict[str, float]:
    ordered = sorted(delays)
    return {
        "per_second": round(len(delays) / seconds, 1),
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "answered": len(delays) - len(faults),
        "faults": len(faults),
    }


async def _load(port: int, seconds: float, clients: int, key: str) -> dict[str, float]:
    body = json.dumps({"target": "demo-images", "input": {"prompt": "x" * 900}}).encode()
    head = (
        "POST /v1/submissions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    delays: list[float] = []
    faults: list[str] = []
    begin = time.perf_counter()
    work = [repeat(port, head.encode() + body, begin + seconds, delays, faults) for _ in range(clients)]
    await asyncio.gather(*work)
    load_cpu = round(time.process_time() / max(1, len(delays)) * 1000, 3)
    return summary(delays, faults, time.perf_counter() - begin) | {"load_cpu_seconds_per_1000": load_cpu}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_load(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))))
