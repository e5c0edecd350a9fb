"""One attempt over HTTP: builds the request, signs it, calls, reads a bounded answer. Never raises for the other side's faults."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import aiohttp
import psycopg
from aiohttp.abc import AbstractResolver
from yarl import URL

from services.relay.bodies import ANSWER_INLINE_BYTES_MAX, Bodies
from services.relay.connector import new_connector, new_session
from services.relay.guard import ForbiddenAddressError, Guard, GuardedResolver
from services.relay.hosts import HostList, normal_host
from services.relay.message import Claimed
from services.relay.settings import RelaySettings
from services.relay.store.chunks import MissingPieceError
from services.relay.wire.outcome import Answer, Fate, Spooled
from tidings.log import fault
from tidings.signature import sign_digest

CONNECT_TIMEOUT_SECONDS = 30
# Of a spooled answer so much is kept beside it, for the log and the views.
BEGINNING_BYTES = 2048
# Destinations' hosts that are remembered.
WAYS_MAX = 1024
_OURS = (ForbiddenAddressError, MissingPieceError)
# Raised when there is no connection yet. With any other the request may have arrived, and been worked on.
_BEFORE_SENDING = (aiohttp.ClientConnectorError, aiohttp.InvalidURL, ForbiddenAddressError, ValueError)


@dataclass(frozen=True)
class Way:
    """What holds for all destinations of one scheme, host and port. `host`: of the Host header when the operator's map
    leads to another server; None: none but what the address says."""

    session: aiohttp.ClientSession
    proxy: URL | None
    origin: str
    host: str | None
    third_party: bool


class Courier:
    """Holds two pools of connections: one behind the address guard, one for the operator's own rewrites."""

    def __init__(
        self,
        settings: RelaySettings,
        bodies: Bodies,
        tls: ssl.SSLContext,
        signing_key: Callable[[], str],
        *,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`signing_key` is asked for each delivery, as keys are rotated; `resolver` is the system's when None.

        Made inside a running event loop.
        """
        self._settings = settings
        self._bodies = bodies
        self._signing_key = signing_key
        self._inline_bytes_max = min(ANSWER_INLINE_BYTES_MAX, settings.body_bytes_max)
        self._third_parties = HostList(settings.third_parties)
        self._guard = Guard(settings.allow_private, HostList(settings.allow_hosts))
        proxy = settings.egress_proxy
        self._proxy = None if proxy is None else URL(proxy.get_secret_value())
        # A proxy resolves the destinations' names itself, and its own address is the operator's word.
        guarded = GuardedResolver(self._guard, resolver) if self._proxy is None else None
        self._connectors = (new_connector(tls, guarded), new_connector(tls, resolver))
        self._guarded, self._trusted = map(new_session, self._connectors)
        # Few hosts get most calls. What a name resolves to is not in here: that is looked at for each connection.
        self._way = lru_cache(WAYS_MAX)(self._new_way)

    @property
    def opening(self) -> int:
        """Calls that are not sent yet: they look for a connection, or make one."""
        return self._connectors[0].opening + self._connectors[1].opening

    async def close(self) -> None:
        await self._guarded.close()
        await self._trusted.close()

    async def deliver(self, message: Claimed, now: int) -> Answer:
        """Make one attempt. An answer with `status` 0 says in `error` why there was none."""
        try:
            return await self._attempt(message, now)
        except ForbiddenAddressError as error:
            return _failed(str(error), "not sent")
        except MissingPieceError as error:
            return _failed(str(error), "unknown")
        except TimeoutError as error:
            fate: Fate = "not sent" if isinstance(error, aiohttp.ConnectionTimeoutError) else "unknown"
            return _failed(f"no answer within {message.timeout_ms / 1000:g} s", fate)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # aiohttp wraps what the resolver and the body's iterator raise.
            cause = error.__cause__
            shown = str(cause) if isinstance(cause, _OURS) else fault(error)
            return _failed(shown, "not sent" if isinstance(error, _BEFORE_SENDING) else "unknown")
        except psycopg.Error as error:
            return _failed(f"the relay's database failed during the call: {type(error).__name__}", "unknown")

    async def _attempt(self, message: Claimed, now: int) -> Answer:
        parts = urlsplit(message.url)
        way = self._way(parts.scheme, parts.netloc)
        headers = self._headers(message, now, way)
        path = message.url[len(parts.scheme) + len("://") + len(parts.netloc) :]
        if path and path[0] not in "/?#":
            # Never so for what publish accepts; else the host would be another one than was checked.
            return _failed("the destination is no valid address", "not sent")
        async with way.session.request(
            message.method,
            URL(way.origin + path, encoded=True),
            data=self._content(message, headers),
            headers=headers,
            allow_redirects=False,
            proxy=way.proxy,
            timeout=aiohttp.ClientTimeout(total=message.timeout_ms / 1000, sock_connect=CONNECT_TIMEOUT_SECONDS),
        ) as response:
            return await self._read(message, response)

    def _new_way(self, scheme: str, netloc: str) -> Way:
        origin = f"{scheme}://{netloc}"
        third_party = normal_host(urlsplit(origin).hostname or "") in self._third_parties
        rewritten = self._settings.destination_map.get(origin.lower())
        if rewritten is not None:
            return Way(self._trusted, None, rewritten, netloc, third_party)
        self._guard.check_url(origin)
        return Way(self._guarded, self._proxy, origin, None, third_party)

    def _content(self, message: Claimed, headers: dict[str, str]) -> bytes | AsyncIterator[bytes] | None:
        stored = message.stored
        if stored is None:
            return message.body or None
        # Known, so that it is not sent in chunks, which some servers refuse.
        headers["Content-Length"] = str(stored.size)
        return self._bodies.send(stored)

    async def _read(self, message: Claimed, response: aiohttp.ClientResponse) -> Answer:
        # The names are of a class of aiohttp's own, which JSON does not take.
        headers = tuple((str(name), value) for name, value in response.headers.items())
        error = "a redirect, which is not followed" if 300 <= response.status <= 399 else None
        start = bytearray()
        pieces = response.content.iter_any()
        async for piece in pieces:
            start += piece
            if len(start) > self._inline_bytes_max:
                break
        else:
            return Answer(response.status, headers, bytes(start), error)
        beginning = bytes(start[:BEGINNING_BYTES])
        spooled, cut = await self._spool(message, bytes(start), pieces)
        if cut:
            response.close()
            error = error or f"the answer was cut: it is larger than {self._settings.answer_bytes_max} bytes"
        return Answer(
            response.status, headers, beginning, error, truncated=spooled.shown < spooled.size or cut, spooled=spooled
        )

    async def _spool(self, message: Claimed, start: bytes, rest: AsyncIterator[bytes]) -> tuple[Spooled, bool]:
        stored, cut = await self._bodies.spool(start, rest, self._settings.answer_bytes_max)
        shown = min(stored.size, self._settings.body_bytes_max)
        public = self._settings.public_url
        url = None
        if public is not None and shown < stored.size:
            url = f"{public}/v2/messages/{message.id}/body/{message.retried}"
        return Spooled(stored.key, stored.size, shown, url), cut

    def _headers(self, message: Claimed, now: int, way: Way) -> dict[str, str]:
        host = {} if way.host is None else {"Host": way.host}
        if way.third_party:
            return {"Accept": "*/*", "User-Agent": "Tidings-Relay", **message.headers, **host}
        stored = message.stored
        digest = hashlib.sha256(message.body).digest() if stored is None else stored.sha256
        headers = {
            "Accept": "*/*",
            "User-Agent": "Upstash-QStash",
            **message.headers,
            **host,
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


def _failed(error: str, fate: Fate) -> Answer:
    return Answer(0, (), b"", error=error, fate=fate)
