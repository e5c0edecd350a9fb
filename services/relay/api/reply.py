"""Answers: JSON by orjson, and errors as the protocol writes them: `{"error": "…"}`."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from services.relay.protocol.invalid import InvalidRequestError
from services.relay.store.messages import UnstorableError


class RefusedError(Exception):
    """The request is not served, with this status; the text is for its sender. `headers` go onto the answer."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


# What is refused was not committed. After any other fault nobody knows whether it was: pieces of bodies then go later, by
# the janitor.
REFUSALS = (InvalidRequestError, RefusedError, UnstorableError)


def json_reply(content: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json")


def error_reply(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=error_body(text), headers=headers, content_type="application/json")


def error_body(text: str) -> bytes:
    # A text may quote what came, and that may hold half a surrogate pair, which JSON cannot.
    return orjson.dumps({"error": text.encode(errors="replace").decode()})


def done_reply() -> web.Response:
    """Where the protocol answers nothing: an empty object, for clients that parse whatever comes."""
    return json_reply({})


def not_found(what: str) -> RefusedError:
    return RefusedError(404, f"{what} not found")
