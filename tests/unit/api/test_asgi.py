"""The answer of a port when too many requests wait for its threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, cast

from services.api.asgi import QUEUE_PER_THREAD, AsgiApp, Listener
from services.api.authentication import Authentication


def test_the_relay_gets_no_retry_after() -> None:
    """The callback's own growing delays apply. A delay of one second would repeat all callbacks again and again."""
    released = threading.Event()

    def behind(_environ: Any, start: Any) -> Iterable[bytes]:
        released.wait(30)
        start("200 OK", [])
        return [b""]

    async def asked() -> list[dict[str, str]]:
        listener = Listener(lambda _path: True, {}, 1)
        app = AsgiApp(behind, listener, authentication=cast(Authentication, None), log=logging.getLogger("test"))
        waiting = [asyncio.create_task(answered(app, "/metrics")) for _ in range(QUEUE_PER_THREAD)]
        await asyncio.sleep(0)
        refused = [await answered(app, path) for path in ("/v1/submissions", "/callbacks/relay", "/image-callback")]
        released.set()
        await asyncio.gather(*waiting)
        return refused

    client, *relay = asyncio.run(asked())
    assert (client["status"], client["retry-after"]) == ("503", "1")
    assert [(answer["status"], answer.get("retry-after")) for answer in relay] == [("503", None)] * 2


async def answered(app: AsgiApp, path: str) -> dict[str, str]:
    """The status and the headers of an answer."""
    found: dict[str, str] = {}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Mapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            found["status"] = str(event["status"])
            found.update({name.decode().lower(): value.decode() for name, value in event["headers"]})

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"a.example")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    return found
