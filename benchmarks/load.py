"""A load maker: keep-alive connections that each send the same POST again as soon as it is answered. Its own process."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop


async def repeat(
    port: int,
    request: bytes,
    until: float,
    delays: list[float],
    faults: list[str],
    *,
    accepted: bytes = b"HTTP/1.1 202",
) -> None:
    """Send `request` again and again until that time; any answer that does not begin with `accepted` is a fault."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields[b"content-length"]))
        delays.append(time.perf_counter() - begin)
        if not head.startswith(accepted):
            faults.append(head[:40].decode("latin-1"))
    writer.close()


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
    return summary(delays, faults, time.perf_counter() - begin)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_load(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))))
