"""Answers: JSON by orjson, and errors in the protocol's form: `{"error": "…"}`."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from services.relay.protocol.invalid import InvalidRequestError
from services.relay.store.messages import UnstorableError


class RefusedError(Exception):
    """The request is refused with this status. The text is for its sender. `headers` are added to the answer."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


# A request refused by one of these was not committed. After any other error that is unknown, so the janitor removes the
# pieces of its body later.
REFUSALS = (InvalidRequestError, RefusedError, UnstorableError)


def json_reply(content: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json")


def error_reply(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=error_body(text), headers=headers, content_type="application/json")


def error_body(text: str) -> bytes:
    # The text may quote the request, which may contain a lone surrogate. JSON cannot represent that.
    return orjson.dumps({"error": text.encode(errors="replace").decode()})


def done_reply() -> web.Response:
    """The answer where the protocol has none: an empty object, for clients that always parse one."""
    return json_reply({})


def not_found(what: str) -> RefusedError:
    return RefusedError(404, f"{what} not found")
