"""The connections of one route: kept while they are reusable, and opened when none is free."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohappyeyeballs

from services.relay.egress.http.connection import STALL_SECONDS, Connection, new_buffers
from services.relay.egress.http.faults import NoAnswerError, NotAttemptedError, NotSentError
from services.relay.egress.http.opening import LOOK_SECONDS, Openings, SlowCalls
from services.relay.egress.http.proxy import Proxy
from services.relay.egress.http.request import Origin
from services.relay.egress.http.resolving import Resolve
from services.relay.memory.byte_budget import ByteBudget

# Servers close idle connections after 5 s (Node) to 75 s (nginx). Connections idle for longer than this are mostly
# closed.
IDLE_SECONDS = 15.0
# A kept connection uses the address that its name had when it was opened. So it is closed at this age, between
# exchanges. Connections opened together are closed at different times.
AGE_SECONDS = 300.0
_AGE_SPREAD = 0.2
# The memory of the TLS library for an idle connection (measured: 45 KiB with uvloop). It needs more when much data
# arrives at once.
TLS_BYTES = 48 * 1024
# A destination that computes for minutes sends nothing meanwhile, and hops on the path (NAT, load balancers: 60 to 350
# s) drop silent connections. Keepalive prevents that, and detects a dead peer.
KEEPALIVE_SECONDS = 45
# Half of the calls that a process holds by default.
SLOW_MAX = 5000
# RFC 8305, section 8.
_NEXT_ADDRESS_SECONDS = 0.25
# Open files are freed when other calls end.
FILES_SECONDS = 1.0
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Limits:
    """`slow`: see `Openings`; pools may share it. `memory` is the share that counts TLS buffers."""

    slow: SlowCalls | None = None
    memory: ByteBudget | None = None


@dataclass(frozen=True)
class Times:
    """`jitter` gives random numbers from 0 to 1."""

    stall_seconds: float = STALL_SECONDS
    age_seconds: float = AGE_SECONDS
    jitter: Callable[[], float] = random.random


class Pool:
    """`connection` gives one for an exchange. Calls with a connection are bounded where they start. Calls that wait for
    one are bounded by origin: see `Openings`. Names are resolved for each new connection.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        resolve: Resolve,
        proxy: Proxy | None = None,
        *,
        limits: Limits | None = None,
        times: Times | None = None,
    ) -> None:
        """`resolve` is not called when there is a proxy, which resolves names itself.

        Must be created inside a running event loop.
        """
        self._tls = tls
        self._resolve = resolve
        self._proxy = proxy
        limits, times = limits or Limits(), times or Times()
        self._memory = limits.memory
        self._stall_seconds = times.stall_seconds
        self._age_seconds = times.age_seconds
        self._jitter = times.jitter
        self._buffers = new_buffers()
        self._idle: dict[_Key, deque[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._openings = Openings(limits.slow or SlowCalls(SLOW_MAX), asyncio.get_running_loop().time)
        self._check_timer: asyncio.TimerHandle | None = None

    @property
    def opening(self) -> int:
        """Calls that will soon have a connection, a new one or one that another call released."""
        return self._openings.counted

    def close(self) -> None:
        """Close idle connections. Calls in flight belong to their callers."""
        for timer in (self._sweeper, self._check_timer):
            if timer is not None:
                timer.cancel()
        self._close_idle()

    async def connection(self, origin: Origin, seconds: float, *, fresh: bool = False) -> Connection:
        """The free connection used last, or a new one within `seconds`; with `fresh`, always a new one.

        Raises `NotSentError`, including `NotAttemptedError`.
        """
        key = (origin.scheme, origin.host, origin.port)
        idle = self._idle.get(key)
        while idle and not fresh:
            connection = idle.pop()
            if connection.open:
                return connection
        return await self._opened(origin, key, seconds, fresh=fresh)

    async def _opened(self, origin: Origin, key: _Key, seconds: float, *, fresh: bool) -> Connection:
        opening = self._openings.begin(key)
        if self._check_timer is None:
            self._check_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._check_openings)
        connection = None
        try:
            async with asyncio.timeout(seconds) as opening.limit:
                connection = await self._open(origin, key)
                connection.fresh = fresh
                return connection
        except TimeoutError:
            if opening.put_off:
                raise self._openings.later(key) from None
            raise NotSentError(f"no connection within {seconds:g} s") from None
        except (OSError, NoAnswerError, ValueError) as error:
            raise self._not_sent(error) from error
        finally:
            self._openings.end(key, opening, came=connection is not None)

    def _not_sent(self, error: Exception) -> NotSentError:
        if isinstance(error, OSError) and error.errno in _NO_FILES:
            self._close_idle()
            return NotAttemptedError("this relay has too many open files", FILES_SECONDS)
        return NotSentError(f"no connection: {type(error).__name__}: {_description(error)}")

    async def _open(self, origin: Origin, key: _Key) -> Connection:
        connection = Connection(lambda free: self._keep(key, free), self._buffers, self._stall_seconds)
        if self._proxy is None:
            addresses = await self._resolve(origin.host)
            await self._connect(connection, addresses, origin)
        else:
            await self._proxy.connect(connection, origin, self._tls)
        connection.keep_alive(KEEPALIVE_SECONDS)
        age_seconds = self._age_seconds * (1 - _AGE_SPREAD * self._jitter())
        connection.ends_at = asyncio.get_running_loop().time() + age_seconds
        if self._memory is not None and origin.scheme == "https" and connection.open:
            connection.closed = self._memory.give
            self._memory.hold(connection, TLS_BYTES)
        return connection

    async def _connect(self, connection: Connection, addresses: Sequence[str], origin: Origin) -> None:
        loop = asyncio.get_running_loop()
        tls = self._tls if origin.scheme == "https" else None
        name = origin.host if tls else None
        if len(addresses) == 1:
            await loop.create_connection(lambda: connection, addresses[0], origin.port, ssl=tls, server_hostname=name)
            return
        found = [_address_info(address, origin.port) for address in addresses]
        sock = await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
        try:
            await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise

    def _keep(self, key: _Key, connection: Connection) -> None:
        if connection.fresh and self._idle.get(key):
            # Calls that use no kept connection would fill the pool with these.
            connection.abort()
            return
        connection.fresh = False
        loop = asyncio.get_running_loop()
        connection.idle_since = now = loop.time()
        if now >= connection.ends_at:
            connection.abort()
            return
        self._idle.setdefault(key, deque()).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def _check_openings(self) -> None:
        self._openings.look()
        self._check_timer = (
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._check_openings) if self._openings else None
        )

    def _close_idle(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for key, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since <= oldest or not idle[0].open):
                idle.popleft().abort()
            if not idle:
                del self._idle[key]
        self._sweeper = loop.call_later(IDLE_SECONDS / 3, self._sweep) if self._idle else None


def _address_info(address: str, port: int) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    """In the form of `socket.getaddrinfo`."""
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


def _description(error: Exception) -> str:
    """The reason, without the resolved address, which the sender must not learn."""
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error)
    return os.strerror(error.errno) if error.errno else "each of the name's addresses, for a reason of its own"
