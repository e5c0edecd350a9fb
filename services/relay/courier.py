"""One attempt over HTTP: builds the request, signs it, calls, reads a bounded answer. Never raises for the other side's faults."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import psycopg

from services.relay.bodies import Bodies
from services.relay.guard import Guard, GuardedResolver
from services.relay.hosts import HostList, normal_host
from services.relay.http.faults import NoAnswerError, NotSentError, StaleError
from services.relay.http.pool import Pool
from services.relay.http.proxy import proxy_of
from services.relay.http.reading import Response
from services.relay.http.request import Origin, Request, origin_of, request, target_of
from services.relay.http.resolving import Resolve, system_addresses
from services.relay.message import INLINE_BYTES_MAX, Claimed
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
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Way:
    """What holds for all destinations of one scheme, host and port. `headers`: Host, and what a proxy wants to know;
    `prefix`: what a proxy wants before the path.
    """

    pool: Pool
    origin: Origin
    headers: Mapping[str, str]
    prefix: str
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
        resolve: Resolve = system_addresses,
    ) -> None:
        """`signing_key` is asked for each delivery, as keys are rotated. Made inside a running event loop."""
        self._settings = settings
        self._bodies = bodies
        self._signing_key = signing_key
        self._inline_bytes_max = min(INLINE_BYTES_MAX, settings.body_bytes_max)
        self._third_parties = HostList(settings.third_parties)
        self._guard = Guard(settings.allow_private, HostList(settings.allow_hosts))
        proxy = settings.egress_proxy
        self._proxy = None if proxy is None else proxy_of(proxy.get_secret_value())
        # A proxy resolves the destinations' names itself, and its own address is the operator's word.
        self._guarded = Pool(tls, GuardedResolver(self._guard, resolve), self._proxy)
        self._trusted = Pool(tls, resolve)
        # Few hosts get most calls. What a name resolves to is not in here: that is looked at for each connection.
        self._way = lru_cache(WAYS_MAX)(self._new_way)

    @property
    def opening(self) -> int:
        """Calls that have no connection yet."""
        return self._guarded.opening + self._trusted.opening

    def close(self) -> None:
        self._guarded.close()
        self._trusted.close()

    async def deliver(self, message: Claimed, now: int) -> Answer:
        """Make one attempt. An answer with `status` 0 says in `error` why there was none."""
        try:
            return await self._attempt(message, now)
        except NotSentError as error:
            return _failed(str(error), "not sent")
        except (NoAnswerError, MissingPieceError) as error:
            return _failed(str(error), "unknown")
        except TimeoutError:
            return _failed(f"no answer within {message.timeout_ms / 1000:g} s", "unknown")
        except (OSError, ValueError) as error:
            return _failed(fault(error), "unknown")
        except psycopg.Error as error:
            return _failed(f"the relay's database failed during the call: {type(error).__name__}", "unknown")

    async def _attempt(self, message: Claimed, now: int) -> Answer:
        seconds = message.timeout_ms / 1000
        deadline = asyncio.get_running_loop().time() + seconds
        connect_seconds = min(CONNECT_TIMEOUT_SECONDS, seconds)
        # What must not be sent twice does not go over a connection that may be closed already.
        fresh = message.on_unknown == "fail"
        try:
            return await self._exchange(message, now, deadline, connect_seconds, fresh=fresh)
        except StaleError:
            # The rest may: whoever leaves on_unknown at its default has it sent again in any case, only later.
            return await self._exchange(message, now, deadline, connect_seconds, fresh=True)

    async def _exchange(
        self, message: Claimed, now: int, deadline: float, connect_seconds: float, *, fresh: bool
    ) -> Answer:
        way, asked = self._asked(message, now)
        with await way.pool.connection(way.origin, connect_seconds, fresh=fresh) as connection:
            async with asyncio.timeout_at(deadline):
                response = await connection.exchange(asked, self._inline_bytes_max)
                return await self._read(message, response)

    def _asked(self, message: Claimed, now: int) -> tuple[Way, Request]:
        """Where to, and what. Raises `NotSentError`."""
        found = _ADDRESS.fullmatch(message.url)
        if found is None:
            raise NotSentError("the destination is no valid address")
        scheme, authority, path = found.groups()
        way = self._way(scheme, authority)
        body: bytes | AsyncGenerator[bytes, None]
        stored = message.stored
        if stored is None:
            digest, body, size = hashlib.sha256(message.body).digest(), message.body, len(message.body)
        else:
            digest, body, size = stored.sha256, self._bodies.send(stored), stored.size
        headers = self._headers(message, now, way, digest)
        return way, request(message.method, way.prefix + target_of(path), headers, body, size)

    def _new_way(self, scheme: str, authority: str) -> Way:
        text = f"{scheme}://{authority}"
        rewritten = self._settings.destination_map.get(text.lower())
        try:
            if rewritten is None:
                self._guard.check_url(text)
            origin = origin_of(text)
            third_party = normal_host(origin.host) in self._third_parties
            if rewritten is not None:
                target = _ADDRESS.fullmatch(rewritten)
                prefix = "" if target is None else target.group(3)
                return Way(self._trusted, origin_of(rewritten), {"Host": authority}, prefix, third_party)
        except ValueError:
            raise NotSentError("the destination is no valid address") from None
        headers = {"Host": origin.authority}
        if self._proxy is None or scheme.lower() == "https":
            return Way(self._guarded, origin, headers, "", third_party)
        return Way(self._guarded, origin, headers | self._proxy.headers, f"http://{origin.authority}", third_party)

    async def _read(self, message: Claimed, response: Response) -> Answer:
        error = "a redirect, which is not followed" if 300 <= response.status <= 399 else None
        body, whole = response.body, response.rest is None
        if response.rest is not None:
            host, size = urlsplit(message.url).netloc, _content_length(response.headers)
            body, whole = await self._bodies.hold(message.id, host, body, response.rest, size)
        if whole or response.rest is None:
            return Answer(response.status, response.headers, body, error)
        beginning = body[:BEGINNING_BYTES]
        spooled, cut = await self._spool(message, body, response.rest)
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

    async def _spool(self, message: Claimed, start: bytes, rest: AsyncIterator[bytes]) -> tuple[Spooled, bool]:
        stored, cut = await self._bodies.spool(start, rest, self._settings.answer_bytes_max)
        shown = min(stored.size, self._settings.body_bytes_max)
        public = self._settings.public_url
        url = None
        if public is not None and shown < stored.size:
            url = f"{public}/v2/messages/{message.id}/body/{message.retried}"
        return Spooled(stored.key, stored.size, shown, url), cut

    def _headers(self, message: Claimed, now: int, way: Way, digest: bytes) -> dict[str, str]:
        # Host stands first (RFC 9110, section 7.2), and is ours whatever the sender's headers say.
        headers = {
            **way.headers,
            "Accept": "*/*",
            "User-Agent": "Tidings-Relay" if way.third_party else "Upstash-QStash",
            **message.headers,
            **way.headers,
        }
        if way.third_party:
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


def _content_length(headers: tuple[tuple[str, str], ...]) -> int | None:
    """None: the answer's head does not say."""
    found = [value for name, value in headers if name.lower() == "content-length"]
    return int(found[0]) if found and found[0].isdecimal() else None


def _failed(error: str, fate: Fate) -> Answer:
    return Answer(0, (), b"", error=error, fate=fate)
