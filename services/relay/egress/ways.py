"""The route of calls to a destination: through the guard, through the egress proxy, or to the address in the operator's
map.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from services.relay.egress.guard import ASK_THE_SENDER, ForbiddenAddressError, Guard, GuardedResolver
from services.relay.egress.hosts import HostList, HostPorts, normal_host
from services.relay.egress.http.dns import SystemNames
from services.relay.egress.http.faults import NotSentError
from services.relay.egress.http.opening import SlowCalls
from services.relay.egress.http.pool import Pool
from services.relay.egress.http.proxy import proxy_of
from services.relay.egress.http.request import Origin, origin_of, target_of
from services.relay.egress.http.resolving import Names, Resolve
from services.relay.memory.byte_share import Share
from services.relay.settings import RelaySettings

# The number of destination hosts in the cache.
WAYS_MAX = 1024
# The longest destination that is cached, in characters. A provider has few, and parsing one costs a twentieth of a
# call.
REMEMBERED_CHARACTERS_MAX = 512
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Way:
    """The properties of all destinations with one scheme, host and port. `headers`: Host, and what a proxy needs.
    `prefix`: the text in front of the path, for a proxy or from the map.
    """

    pool: Pool
    origin: Origin
    headers: Mapping[str, str]
    prefix: str
    third_party: bool

    def target(self, path: str) -> str:
        """The request target for the part of a destination after the host. Raises `NotSentError`."""
        if self.prefix.startswith("/") and _climbs(path):
            raise NotSentError("the destination's path has a dot segment, which could lead out of the mapped prefix")
        return self.prefix + target_of(path)


class Ways:
    """Has three pools of connections: behind the address guard, behind the guard of messages for public addresses only,
    and for the operator's own rewrites and hosts. A connection of one pool is never used for messages of another.
    """

    def __init__(
        self,
        settings: RelaySettings,
        tls: ssl.SSLContext,
        resolve: Resolve | None = None,
        *,
        memory: Share | None = None,
    ) -> None:
        """`resolve` replaces the system's resolver. `memory` is the share that counts TLS buffers.

        Must be called inside a running event loop.
        """
        self._third_parties = HostList(settings.third_parties)
        self._guard = Guard(settings.allow_private, HostPorts(settings.allow_hosts))
        self._public_guard = Guard((), HostPorts(()), ASK_THE_SENDER)
        proxy = settings.egress_proxy
        self._proxy = None if proxy is None else proxy_of(proxy.get_secret_value())
        # A proxy resolves the destinations' names itself, and the operator vouches for the proxy's address.
        self._system = SystemNames() if resolve is None else resolve
        names = Names(self._system, asyncio.get_running_loop().time)
        # The limit for all three pools together, so that half of the calls remain for destinations that accept
        # connections.
        slow = SlowCalls(settings.concurrency_max // 2)
        self._guarded = Pool(tls, GuardedResolver(self._guard, names), self._proxy, slow=slow, memory=memory)
        # These destinations are chosen by the senders' customers. They get a part of the limit, so that some is left in
        # any case.
        part = SlowCalls(settings.concurrency_max // 4, slow)
        self._public = Pool(tls, GuardedResolver(self._public_guard, names), self._proxy, slow=part, memory=memory)
        self._trusted = Pool(tls, names, slow=slow, memory=memory)
        self._map = {_place(origin_of(source)): target for source, target in settings.destination_map.items()}
        # Few hosts get most calls. Resolved addresses are not cached here: they are checked for each connection.
        self._way = lru_cache(WAYS_MAX)(self._new_way)
        self._to = lru_cache(WAYS_MAX)(self._new_to)

    @property
    def opening(self) -> int:
        """Calls that will have a connection soon, without those to a destination that accepts no connections."""
        return sum(pool.opening for pool in (self._guarded, self._public, self._trusted))

    def close(self) -> None:
        for pool in (self._guarded, self._public, self._trusted):
            pool.close()
        if isinstance(self._system, SystemNames):
            self._system.close()

    def to(self, url: str, *, public_only: bool) -> tuple[Way, str]:
        """The route to a destination, and the request target. Raises `NotSentError`."""
        return (self._to if len(url) <= REMEMBERED_CHARACTERS_MAX else self._new_to)(url, public_only)

    def _new_to(self, url: str, public_only: bool) -> tuple[Way, str]:  # noqa: FBT001  positional for lru_cache
        scheme, authority, path = _parts(url)
        way = self._way(scheme, authority, public_only)
        return way, way.target(path)

    def _new_way(self, scheme: str, authority: str, public_only: bool) -> Way:  # noqa: FBT001  positional for lru_cache
        text = f"{scheme}://{authority}"
        mapped = self._mapped(text, authority)
        if mapped is not None:
            if public_only:
                raise ForbiddenAddressError(f"RELAY_DESTINATION_MAP leads the destination elsewhere; {ASK_THE_SENDER}")
            return mapped
        origin = (self._public_guard if public_only else self._guard).check_url(text)
        headers, prefix = {"Host": origin.authority}, ""
        if self._proxy is not None and origin.scheme == "http":
            headers, prefix = headers | self._proxy.headers, f"http://{origin.authority}"
        return Way(self._pool(origin, public_only), origin, headers, prefix, self._is_third_party(origin))

    def _pool(self, origin: Origin, public_only: bool) -> Pool:  # noqa: FBT001
        if public_only:
            return self._public
        # With a proxy all calls go through it. It resolves the names, so no guard refuses them here.
        return self._trusted if self._proxy is None and self._guard.allows(origin) else self._guarded

    def _mapped(self, text: str, authority: str) -> Way | None:
        try:
            origin = origin_of(text)
        except ValueError:
            return None
        target = self._map.get(_place(origin))
        if target is None or "@" in authority:
            return None
        # The name as its sender wrote it, if the authority is a name and nothing else.
        host = authority if authority.lower() == origin.authority else origin.authority
        return Way(self._trusted, origin_of(target), {"Host": host}, _parts(target)[2], self._is_third_party(origin))

    def _is_third_party(self, origin: Origin) -> bool:
        return normal_host(origin.host) in self._third_parties


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, authority and the rest, which keeps the sender's bytes."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise NotSentError("the destination is no valid address")
    scheme, authority, path = found.groups()
    return scheme, authority, path


def _place(origin: Origin) -> tuple[str, str, int]:
    """The normal form of an origin, equal for all notations of it."""
    return (origin.scheme, normal_host(origin.host), origin.port)


def _climbs(path: str) -> bool:
    """Whether some server may read a segment of `path` as `..`: encoded, after a backslash, or with parameters."""
    plain = unquote(re.split(r"[?#]", path, maxsplit=1)[0]).replace("\\", "/")
    return any(segment.partition(";")[0] == ".." for segment in plain.split("/"))
