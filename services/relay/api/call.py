"""One request as the handlers see it: the parts of its path, its query and body, and its sender."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from services.relay.api.reply import RefusedError
from services.relay.engine.bodies import Bodies, TooLargeError
from services.relay.memory.memory import JSON_COPIES, SMALL_BYTES_MAX, Holding
from services.relay.memory.places import NoPlaceError
from services.relay.message import INLINE_BYTES_MAX, Body
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.json_values import UNSEEN_BYTES_MAX, check_values
from services.relay.protocol.storable import check_text
from services.relay.store.tokens import Token

# Except for a batch no JSON is large: 500 ids, or the endpoints of a group.
JSON_BYTES_MAX = 1024 * 1024
# A body of 50 MB takes this long at 1.4 Mbit/s. A slower client holds memory that others need.
BODY_SECONDS = 300.0
# Large JSON is counted as it arrives: a client that announces much and sends little holds little. The reservation
# doubles the bytes received, within these limits. Each step must be full within STEP_SECONDS, which a slow line needs
# for a few hundred KB.
STEP_BYTES_MIN = SMALL_BYTES_MAX // JSON_COPIES
STEP_BYTES_MAX = 1024 * 1024
STEP_SECONDS = 30.0
PARAMETERS_MAX = 1000


@dataclass(frozen=True)
class Call:
    """`parts` are the matches of the route's pattern, percent-encoded as received. `query` is the raw query.

    `token` is None on open routes only.
    """

    request: web.Request
    parts: tuple[str, ...]
    query: str
    token: Token | None
    holding: Holding

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def caller_ip(self) -> str:
        return self.request.remote or ""

    @property
    def owner(self) -> str:
        """The name under which places are taken."""
        return "" if self.token is None else self.token.name

    def name(self, index: int = 0) -> str:
        """A part of the path that is a name, decoded. Raises `InvalidRequestError`."""
        name = unquote(self.parts[index])
        check_text("the name in the path", name)
        return name

    async def body(self, bytes_max: int) -> bytearray:
        """The whole body. Twice its size is reserved as it arrives. Raises `RefusedError` and `NoRoomError`."""
        bytes_max = min(bytes_max, self.request.client_max_size)
        length = self.request.content_length
        if length is not None and length > bytes_max:
            raise _too_large(bytes_max)
        if not self.request.body_exists:
            return bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read(bytes_max, bytes_max if length is None else length)
        except TimeoutError:
            raise RefusedError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None

    async def _read(self, bytes_max: int, expected: int) -> bytearray:
        # The library's `read` is not used, as it has the body in memory twice at the end.
        body = bytearray()
        pieces = self.request.content.iter_any()
        while True:
            room = min(expected, len(body) + min(max(len(body), STEP_BYTES_MIN), STEP_BYTES_MAX))
            await self.holding.grow(JSON_COPIES * room)
            try:
                async with asyncio.timeout(STEP_SECONDS):
                    async for piece in pieces:
                        body += piece
                        if len(body) > bytes_max:
                            raise _too_large(bytes_max)
                        if room <= len(body) < expected:
                            break
                    else:
                        return body
            except TimeoutError:
                raise RefusedError(408, f"too little of the body came within {STEP_SECONDS:.0f} s") from None

    async def take(self, bodies: Bodies) -> Body:
        """The body of a message. A large one is stored. Raises `RefusedError` and `NoRoomError`."""
        length = self.request.content_length
        if self.request.body_exists:
            await self.holding.take(INLINE_BYTES_MAX if length is None else min(length, INLINE_BYTES_MAX))
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await bodies.take(self.request.content.iter_any(), length, self.owner)
        except TooLargeError as error:
            raise RefusedError(413, str(error)) from None
        except NoPlaceError as error:
            raise RefusedError(429, str(error), {"Retry-After": "1"}) from None
        except TimeoutError:
            raise RefusedError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None

    async def json_body(self, bytes_max: int = JSON_BYTES_MAX) -> bytearray:
        """A body that must be JSON. Raises `RefusedError` when it is compressed."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in {"", "identity"}:
            raise RefusedError(415, f"this body must be JSON without an encoding, not {encoding[:50]!r}")
        return await self.body(bytes_max)

    async def json(self, bytes_max: int = JSON_BYTES_MAX) -> Any:
        """The body as JSON. Raises `InvalidRequestError`."""
        body = await self.json_body(bytes_max)
        if len(body) > UNSEEN_BYTES_MAX:
            # The largest body takes a second, which would block the event loop.
            await asyncio.to_thread(check_values, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise InvalidRequestError("the body is not JSON") from None

    async def json_object(self) -> dict[str, Any]:
        content = await self.json()
        if not isinstance(content, dict):
            raise InvalidRequestError("the body must be a JSON object")
        return content

    def parameters(self, *known: str) -> dict[str, str]:
        """The query's parameters; the last one if a name is repeated. Raises `InvalidRequestError` for a name not in
        `known`.
        """
        try:
            given = dict(parse_qsl(self.query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
        except ValueError:
            raise InvalidRequestError(f"more than {PARAMETERS_MAX} query parameters") from None
        given.pop("qstash_token", None)
        if unknown := given.keys() - set(known):
            raise InvalidRequestError(f"unknown parameter {min(unknown)[:50]!r}")
        return given


def _too_large(bytes_max: int) -> RefusedError:
    return RefusedError(413, f"the body is larger than {bytes_max} bytes")
