"""One attempt over HTTP: builds the request, signs it, calls, reads a bounded answer. Never raises for the other side's faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from services.relay.guard import ForbiddenAddressError, GuardedResolver
from services.relay.message import Claimed
from services.relay.settings import RelaySettings
from services.relay.wire.outcome import Answer
from tidings.signature import sign

CONNECT_TIMEOUT_SECONDS = 30
CHUNK_BYTES = 65_536


class Courier:
    """Holds two pools of connections: one behind the address guard, one for the operator's own rewrites."""

    def __init__(self, settings: RelaySettings, *, signing_key: Callable[[], str]) -> None:
        """`signing_key` answers the current one, which may be rotated at any time."""
        self._settings = settings
        self._signing_key = signing_key
        self._opening: set[str] = set()
        self._resolver = GuardedResolver(settings.allow_private)
        self._guarded = self._session(self._resolver)
        self._trusted = self._session(None)

    @property
    def opening(self) -> int:
        """Calls that are not sent yet: they look for a connection, or make one."""
        return len(self._opening)

    def _session(self, resolver: GuardedResolver | None) -> aiohttp.ClientSession:
        # No limit of our own on connections: waiting calls are what this process is for. No DNS cache, so that the
        # guard sees each connection's addresses anew.
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, use_dns_cache=False, resolver=resolver)
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[self._trace()],
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers={"Accept", "Accept-Encoding", "User-Agent", "Content-Type"},
        )

    def _trace(self) -> aiohttp.TraceConfig:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._sent)
        return trace

    async def _sent(self, _session: object, context: SimpleNamespace, _params: object) -> None:
        self._opening.discard(context.trace_request_ctx)

    async def close(self) -> None:
        await self._guarded.close()
        await self._trusted.close()

    async def deliver(self, message: Claimed, now: int) -> Answer:
        """Make one attempt. An answer with `status` 0 says in `error` why there was none."""
        target = rewritten(message.url, self._settings.destination_map)
        session = self._guarded if target == message.url else self._trusted
        headers = self._headers(message, now)
        if target != message.url:
            headers["Host"] = urlsplit(message.url).netloc
        self._opening.add(message.id)
        try:
            if session is self._guarded:
                self._resolver.check(urlsplit(target).hostname or "")
            async with session.request(
                message.method,
                URL(target, encoded=True),
                data=message.body or None,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=message.id,
                timeout=aiohttp.ClientTimeout(total=message.timeout_ms / 1000, sock_connect=CONNECT_TIMEOUT_SECONDS),
            ) as response:
                body, truncated = await self._read(response)
                headers_in = tuple((str(name), value) for name, value in response.headers.items())
                return Answer(response.status, headers_in, body, truncated=truncated)
        except ForbiddenAddressError as error:
            return Answer(0, (), b"", error=str(error))
        except TimeoutError:
            return Answer(0, (), b"", error=f"no answer within {message.timeout_ms / 1000:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, ForbiddenAddressError):
                return Answer(0, (), b"", error=str(error.__cause__))
            return Answer(0, (), b"", error=f"{type(error).__name__}: {error}"[:300])
        finally:
            self._opening.discard(message.id)

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            size += len(chunk)
            if size > self._settings.body_bytes_max:
                chunks.append(chunk[: len(chunk) - (size - self._settings.body_bytes_max)])
                response.close()
                return b"".join(chunks), True
            chunks.append(chunk)
        return b"".join(chunks), False

    def _headers(self, message: Claimed, now: int) -> dict[str, str]:
        headers = {"Accept": "*/*"} | message.headers
        if (urlsplit(message.url).hostname or "") in self._settings.third_parties:
            return {"User-Agent": "Tidings-Relay"} | headers
        return {
            "User-Agent": "Upstash-QStash",
            **headers,
            "Upstash-Signature": sign(self._signing_key(), message.url, message.body, now=now),
            "Upstash-Message-Id": message.id,
            "Upstash-Retried": str(message.retried),
            "Upstash-Caller-Ip": message.caller_ip,
            "Upstash-Region": "EU-CENTRAL-1",
            **({} if message.topic is None else {"Upstash-Topic-Name": message.topic}),
            **({} if message.schedule_id is None else {"Upstash-Schedule-Id": message.schedule_id}),
        }


def rewritten(url: str, rewrites: Mapping[str, str]) -> str:
    """`url` with its scheme and host exchanged where the operator's map says so; path and query stay as they are."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    target = rewrites.get(origin)
    return url if target is None else target + url[len(origin) :]
