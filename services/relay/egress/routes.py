"""The route of calls to a destination: through the address policy, through the egress proxy, or to the address in the
operator's map.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from services.relay.egress.address_policy import ASK_THE_SENDER, AddressPolicy, CheckedResolver, ForbiddenAddressError
from services.relay.egress.hosts import HostList, HostPorts, normal_host
from services.relay.egress.http.dns import SystemNames
from services.relay.egress.http.faults import NotSentError
from services.relay.egress.http.opening import SlowCalls
from services.relay.egress.http.pool import Limits, Pool
from services.relay.egress.http.proxy import proxy_of
from services.relay.egress.http.request import Origin, origin_of, target_of
from services.relay.egress.http.resolving import Names, Resolve
from services.relay.memory.byte_budget import ByteBudget
from services.relay.settings import RelaySettings

# The number of destination hosts in the cache.
ROUTES_MAX = 1024
# The longest destination that is cached, in characters. A provider has few, and parsing one costs a twentieth of a
# call.
CACHED_CHARACTERS_MAX = 512
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Route:
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
        if self.prefix.startswith("/") and _may_leave_prefix(path):
            raise NotSentError("the destination's path has a dot segment, which could lead out of the mapped prefix")
        return self.prefix + target_of(path)


class Routes:
    """Has three pools of connections: behind the address policy, behind that of messages for public addresses only, and
    for the operator's own rewrites and hosts. A connection of one pool is never used for messages of another.
    """

    def __init__(
        self,
        settings: RelaySettings,
        tls: ssl.SSLContext,
        resolve: Resolve | None = None,
        *,
        memory: ByteBudget | None = None,
    ) -> None:
        """`resolve` replaces the system's resolver. `memory` is the share that counts TLS buffers.

        Must be called inside a running event loop.
        """
        self._third_parties = HostList(settings.third_parties)
        self._policy = AddressPolicy(settings.allow_private, HostPorts(settings.allow_hosts))
        self._public_policy = AddressPolicy((), HostPorts(()), ASK_THE_SENDER)
        proxy = settings.egress_proxy
        self._proxy = None if proxy is None else proxy_of(proxy.get_secret_value())
        # A proxy resolves the destinations' names itself, and the operator vouches for the proxy's address.
        self._system = SystemNames() if resolve is None else resolve
        names = Names(self._system, asyncio.get_running_loop().time)
        # The limit for all three pools together, so that half of the calls remain for destinations that accept
        # connections.
        slow = SlowCalls(settings.concurrency_max // 2)
        limits = Limits(slow, memory)
        self._checked = Pool(tls, CheckedResolver(self._policy, names), self._proxy, limits=limits)
        # These destinations are chosen by the senders' customers. They get a part of the limit, so that some is left in
        # any case.
        part = SlowCalls(settings.concurrency_max // 4, slow)
        self._public = Pool(tls, CheckedResolver(self._public_policy, names), self._proxy, limits=Limits(part, memory))
        self._trusted = Pool(tls, names, limits=limits)
        self._map = {_normal_origin(origin_of(source)): target for source, target in settings.destination_map.items()}
        # Few hosts get most calls. Resolved addresses are not cached here: they are checked for each connection.
        self._route = lru_cache(ROUTES_MAX)(self._new_route)
        self._to = lru_cache(ROUTES_MAX)(self._new_to)

    @property
    def opening(self) -> int:
        """Calls that will have a connection soon, without those to a destination that accepts no connections."""
        return sum(pool.opening for pool in (self._checked, self._public, self._trusted))

    def close(self) -> None:
        for pool in (self._checked, self._public, self._trusted):
            pool.close()
        if isinstance(self._system, SystemNames):
            self._system.close()

    def to(self, url: str, *, public_only: bool) -> tuple[Route, str]:
        """The route to a destination, and the request target. Raises `NotSentError`."""
        return (self._to if len(url) <= CACHED_CHARACTERS_MAX else self._new_to)(url, public_only)

    def _new_to(self, url: str, public_only: bool) -> tuple[Route, str]:  # noqa: FBT001  positional for lru_cache
        scheme, authority, path = _parts(url)
        route = self._route(scheme, authority, public_only)
        return route, route.target(path)

    def _new_route(self, scheme: str, authority: str, public_only: bool) -> Route:  # noqa: FBT001  positional for lru_cache
        text = f"{scheme}://{authority}"
        mapped = self._mapped(text, authority)
        if mapped is not None:
            if public_only:
                raise ForbiddenAddressError(
                    f"RELAY_DESTINATION_MAP maps the destination to another address; {ASK_THE_SENDER}"
                )
            return mapped
        origin = (self._public_policy if public_only else self._policy).check_url(text)
        headers, prefix = {"Host": origin.authority}, ""
        if self._proxy is not None and origin.scheme == "http":
            headers, prefix = headers | self._proxy.headers, f"http://{origin.authority}"
        return Route(self._pool(origin, public_only), origin, headers, prefix, self._is_third_party(origin))

    def _pool(self, origin: Origin, public_only: bool) -> Pool:  # noqa: FBT001
        if public_only:
            return self._public
        # With a proxy all calls go through it. It resolves the names, so no policy refuses them here.
        return self._trusted if self._proxy is None and self._policy.allows(origin) else self._checked

    def _mapped(self, text: str, authority: str) -> Route | None:
        try:
            origin = origin_of(text)
        except ValueError:
            return None
        target = self._map.get(_normal_origin(origin))
        if target is None or "@" in authority:
            return None
        # The name as its sender wrote it, if the authority is a name and nothing else.
        host = authority if authority.lower() == origin.authority else origin.authority
        return Route(self._trusted, origin_of(target), {"Host": host}, _parts(target)[2], self._is_third_party(origin))

    def _is_third_party(self, origin: Origin) -> bool:
        return normal_host(origin.host) in self._third_parties


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, authority and the rest, which keeps the sender's bytes."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise NotSentError("the destination is not a valid address")
    scheme, authority, path = found.groups()
    return scheme, authority, path


def _normal_origin(origin: Origin) -> tuple[str, str, int]:
    """The normal form of an origin, equal for all notations of it."""
    return (origin.scheme, normal_host(origin.host), origin.port)


def _may_leave_prefix(path: str) -> bool:
    """Whether some server may read a segment of `path` as `..`: encoded, after a backslash, or with parameters."""
    plain = unquote(re.split(r"[?#]", path, maxsplit=1)[0]).replace("\\", "/")
    return any(segment.partition(";")[0] == ".." for segment in plain.split("/"))
