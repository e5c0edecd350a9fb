"""An outgoing HTTP proxy: it gets plain requests whole, and TLS through a tunnel (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass
from urllib.parse import unquote

from yarl import URL

from services.relay.egress.http.connection import Connection
from services.relay.egress.http.faults import NotSentError
from services.relay.egress.http.request import Origin, request


@dataclass(frozen=True)
class Proxy:
    """`authorization` is the value of Proxy-Authorization, if the proxy requires it."""

    host: str
    port: int
    authorization: str | None

    @property
    def headers(self) -> dict[str, str]:
        """The additional headers of a request to the proxy itself."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}

    async def connect(self, connection: Connection, origin: Origin, tls: ssl.SSLContext) -> None:
        """Connect `connection` to `origin` through the proxy. Raises `OSError`, `NotSentError` and `NoAnswerError`."""
        await asyncio.get_running_loop().create_connection(lambda: connection, self.host, self.port)
        if origin.scheme == "http":
            return
        try:
            host = f"[{origin.host}]" if ":" in origin.host else origin.host
            authority = f"{host}:{origin.port}"
            connect = request("CONNECT", authority, {"Host": authority, **self.headers}, b"", 0)
            response = await connection.exchange(connect, 0)
            if 200 <= response.status <= 299:
                await connection.secure(tls, origin.host)
                return
        except BaseException:
            connection.abort()
            raise
        connection.abort()
        raise NotSentError(f"the proxy answered {response.status}")


def proxy_of(address: str) -> Proxy:
    """The proxy at `http://[user:password@]host:port`. Raises `ValueError`."""
    url = URL(address)
    if url.scheme != "http" or not url.raw_host:
        raise ValueError("must be http://host:port")
    authorization = None
    if url.raw_user is not None:
        pair = f"{unquote(url.raw_user)}:{unquote(url.raw_password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(url.raw_host, url.port or 80, authorization)
