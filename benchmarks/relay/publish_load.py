"""The load of the figure `publish`, a separate process: each of its keep-alive connections publishes again after each
answer.
"""

from __future__ import annotations

import json
import sys
import time
from asyncio import gather

import orjson
import uvloop

from benchmarks.load import repeat, summary
from benchmarks.relay import ours

# Due long after the run, so that only the acceptance of messages is measured.
DELAY = "1h"
BODY = '{"prompt": "' + "x" * 985 + '"}'
DESTINATION = "http://127.0.0.1:9/call?id=publish&delay=0"


def single(label: str) -> bytes:
    headers = {
        "Host": "localhost",
        "Authorization": f"Bearer {ours.TOKEN}",
        "Content-Type": "application/json",
        "Upstash-Delay": DELAY,
        "Upstash-Label": label,
    }
    return _request(f"/v2/publish/{DESTINATION}", headers, BODY.encode())


def batch(label: str) -> bytes:
    item = ours.message(DESTINATION, BODY, Upstash_Delay=DELAY, Upstash_Label=label)
    headers = {"Host": "localhost", "Authorization": f"Bearer {ours.TOKEN}", "Content-Type": "application/json"}
    return _request("/v2/batch", headers, orjson.dumps([item] * ours.BATCHES.batch))


def _request(path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


async def load(port: int, seconds: float, clients: int, request: bytes) -> dict[str, float]:
    delays: list[float] = []
    faults: list[str] = []
    begin = time.perf_counter()
    work = [repeat(port, request, begin + seconds, delays, faults, accepted=b"HTTP/1.1 200") for _ in range(clients)]
    await gather(*work)
    return summary(delays, faults, time.perf_counter() - begin)


if __name__ == "__main__":
    kind, label = sys.argv[4], sys.argv[5]
    asked = {"single": single, "batch": batch}[kind](label)
    print(json.dumps(uvloop.run(load(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), asked))))
