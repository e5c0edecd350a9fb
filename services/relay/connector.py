"""The ways out: pools of connections with one TLS context, with a count of the calls that have no connection yet."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

# What aiohttp would add on its own: a delivery has the sender's headers and ours.
_NO_HEADERS_OF_ITS_OWN = frozenset({"Accept", "Accept-Encoding", "User-Agent", "Content-Type"})


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Verifies servers by the system's authorities and those of `ca_bundle` (PEM). Raises `ssl.SSLError` when it is none."""
    context = ssl.create_default_context()
    if ca_bundle is not None:
        context.load_verify_locations(ca_bundle)
    return context


class CountingConnector(aiohttp.TCPConnector):
    """`opening`: calls that look for a connection or make one; nothing of theirs was sent."""

    opening = 0

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        self.opening += 1
        try:
            return await super().connect(*args, **kwargs)
        finally:
            self.opening -= 1


def new_connector(tls: ssl.SSLContext, resolver: AbstractResolver | None) -> CountingConnector:
    """A pool. `resolver`: the system's when None."""
    # No limit of our own on connections: waiting calls are what this process is for. No DNS cache, so that the guard sees
    # each connection's addresses anew.
    return CountingConnector(limit=0, limit_per_host=0, use_dns_cache=False, resolver=resolver, ssl=tls)


def new_session(connector: CountingConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
    )
