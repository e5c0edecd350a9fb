"""One attempt over HTTP: builds and signs the request, calls, and reads a bounded answer. Faults of the other side are
results, not exceptions.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, Callable

import psycopg

from services.relay.egress.http.faults import NoAnswerError, NotAttemptedError, NotSentError, StaleError
from services.relay.egress.http.request import Request, request
from services.relay.egress.http.resolving import Resolve
from services.relay.egress.http.response import Response
from services.relay.egress.routes import Route, Routes
from services.relay.engine.bodies import Bodies, Incoming
from services.relay.engine.sending import Sending
from services.relay.memory.places import NoPlaceError
from services.relay.message import INLINE_BYTES_MAX, Claimed
from services.relay.outcome.outcome import Answer, Fate, Spooled
from services.relay.settings import RelaySettings
from services.relay.store.chunks import MissingPieceError
from tidings.contract.signature import sign_digest
from tidings.process.log import fault

CONNECT_TIMEOUT_SECONDS = 30
# The delay for a message with a large body when its destination has no free place. Ten slow transfers take about as
# long.
NO_PLACE_SECONDS = 10.0
# The part of a spooled answer that stays in memory, for the log and the views.
BEGINNING_BYTES = 2048


class HttpAttempt:
    """`make` makes an attempt; `Routes` selects the route."""

    def __init__(
        self,
        settings: RelaySettings,
        bodies: Bodies,
        tls: ssl.SSLContext,
        signing_key: Callable[[], str],
        *,
        resolve: Resolve | None = None,
    ) -> None:
        """`signing_key` is read for each delivery, as keys are rotated. `resolve` replaces this machine's name servers.

        Must be called inside a running event loop.
        """
        self._settings = settings
        self._bodies = bodies
        self._signing_key = signing_key
        self._inline_bytes_max = min(INLINE_BYTES_MAX, settings.body_bytes_max)
        self._routes = Routes(settings, tls, resolve, memory=bodies.memory.calls)

    @property
    def opening(self) -> int:
        """Calls that will have a connection soon, without those to a destination that accepts no connections."""
        return self._routes.opening

    def close(self) -> None:
        self._routes.close()

    async def make(self, message: Claimed, now: int, *, sending: Callable[[], None] = lambda: None) -> Answer:
        """Make one attempt. An answer with `status` 0 says in `error` why no answer came. `sending` is called before
        anything is sent: a call that is broken off earlier has not been made.
        """
        seconds = message.timeout_ms / 1000
        deadline = asyncio.get_running_loop().time() + seconds
        # A request that must not be sent twice never uses a kept connection, which may be closed already: a server that
        # reads the request and closes at once looks the same. This includes the last attempt: 0 retries mean one call.
        fresh = message.on_unknown == "fail" or message.retried >= message.retries_max
        try:
            try:
                return await self._exchange(message, now, deadline, sending, fresh=fresh)
            except StaleError:
                # Other requests may be sent again: the alternative is the same request later, as an attempt of its own.
                return await self._exchange(message, now, deadline, sending, fresh=True)
        except NotSentError as error:
            return _not_sent(error)
        except TimeoutError:
            return _failed(f"no answer within {seconds:g} s", "unknown")
        except (NoAnswerError, MissingPieceError, OSError, ValueError, psycopg.Error) as error:
            return _failed(_reason(error), "unknown")

    async def _exchange(
        self,
        message: Claimed,
        now: int,
        deadline: float,
        sending: Callable[[], None],
        *,
        fresh: bool,
    ) -> Answer:
        route, outgoing, large = self._request(message, now)
        connect_seconds = min(CONNECT_TIMEOUT_SECONDS, message.timeout_ms / 1000)
        with await route.pool.connection(route.origin, connect_seconds, fresh=fresh) as connection:
            if large is not None:
                await self._begin(large, message)
            try:
                sending()
                async with asyncio.timeout_at(deadline) as limit:
                    response = await connection.exchange(
                        outgoing, self._inline_bytes_max, lambda: self._bodies.memory.begin(message.claim)
                    )
                    return await self._read(message, route, response, limit)
            finally:
                if large is not None:
                    large.end()

    async def _begin(self, sending: Sending, message: Claimed) -> None:
        """Take the place that the body's transfer needs. Raises `NotAttemptedError`."""
        try:
            await sending.begin(message.timeout_ms / 2000)
        except NoPlaceError as error:
            raise NotAttemptedError(f"large bodies to the destination: {error}", NO_PLACE_SECONDS) from None

    def _request(self, message: Claimed, now: int) -> tuple[Route, Request, Sending | None]:
        """The route, the request, and for a stored body the transfer to begin before sending. Raises `NotSentError`."""
        route, target = self._routes.to(message.url, public_only=message.options.public_only)
        body: bytes | AsyncGenerator[bytes, None]
        stored, sending = message.stored, None
        if stored is None:
            digest, body, size = hashlib.sha256(message.body).digest(), message.body, len(message.body)
        else:
            sending = self._bodies.sending(stored, route.origin.authority)
            digest, body, size = stored.sha256, sending.pieces(), stored.size
        headers = self._headers(message, now, route, digest)
        return route, request(message.method, target, headers, body, size), sending

    async def _read(self, message: Claimed, route: Route, response: Response, limit: asyncio.Timeout) -> Answer:
        error = "a redirect, which is not followed" if 300 <= response.status <= 399 else None
        rest = response.rest
        if rest is None:
            return Answer(response.status, response.headers, bytes(response.body), error)
        body = response.body if isinstance(response.body, bytearray) else bytearray(response.body)
        incoming = Incoming(message.claim, route.origin.authority, body, rest)
        if await self._bodies.hold(incoming, _content_length(response.headers), limit):
            return Answer(response.status, response.headers, bytes(body), error)
        beginning = bytes(body[:BEGINNING_BYTES])
        spooled, cut = await self._spool(message, incoming, limit)
        if cut:
            error = error or f"the answer was cut: it is larger than {self._settings.answer_bytes_max} bytes"
        return Answer(
            response.status,
            response.headers,
            beginning,
            error,
            truncated=spooled.shown < spooled.size or cut,
            spooled=spooled,
        )

    async def _spool(self, message: Claimed, incoming: Incoming, limit: asyncio.Timeout) -> tuple[Spooled, bool]:
        bytes_max = self._settings.answer_bytes_max
        stored, cut = await self._bodies.spool(incoming, bytes_max, limit)
        shown = min(stored.size, self._settings.body_bytes_max)
        public = self._settings.public_url
        url = None
        if public is not None and shown < stored.size:
            url = f"{public}/v2/messages/{message.id}/body/{message.retried}"
        return Spooled(stored.key, stored.size, shown, url), cut

    def _headers(self, message: Claimed, now: int, route: Route, digest: bytes) -> dict[str, str]:
        # Host comes first (RFC 9110, section 7.2). The relay sets it, whatever the sender's headers say.
        headers = {
            **route.headers,
            "Accept": "*/*",
            # Without this header any coding is acceptable (RFC 9110, section 12.5.3), and no later recipient would
            # decode it.
            "Accept-Encoding": "identity",
            "User-Agent": "Tidings-Relay" if route.third_party else "Upstash-QStash",
            **message.headers,
            **route.headers,
        }
        if route.third_party:
            return headers
        headers |= {
            "Upstash-Signature": sign_digest(self._signing_key(), message.url, digest, now=now),
            "Upstash-Message-Id": message.id,
            "Upstash-Retried": str(message.retried),
            "Upstash-Caller-Ip": message.caller_ip,
            "Upstash-Region": "EU-CENTRAL-1",
        }
        if message.topic is not None:
            headers["Upstash-Topic-Name"] = message.topic
        if message.schedule_id is not None:
            headers["Upstash-Schedule-Id"] = message.schedule_id
        return headers


def _not_sent(error: NotSentError) -> Answer:
    if isinstance(error, NotAttemptedError):
        return Answer(0, (), b"", error=str(error), fate="not attempted", later_seconds=error.seconds)
    return _failed(str(error), "not sent")


def _reason(error: Exception) -> str:
    match error:
        case NoAnswerError() | MissingPieceError():
            return str(error)
        case psycopg.Error():
            return f"the relay's database failed during the call: {type(error).__name__}"
        case _:
            return fault(error)


def _content_length(headers: tuple[tuple[str, str], ...]) -> int | None:
    """None: the head of the answer does not declare a length."""
    found = [value for name, value in headers if name.lower() == "content-length"]
    return int(found[0]) if found and found[0].isdecimal() else None


def _failed(error: str, fate: Fate) -> Answer:
    return Answer(0, (), b"", error=error, fate=fate)
