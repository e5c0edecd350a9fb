"""Where the calls to a destination go: through the guard, the egress proxy, or where the operator's map leads."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from services.relay.guard import Guard, GuardedResolver
from services.relay.hosts import HostList, normal_host
from services.relay.http.dns import SystemNames
from services.relay.http.faults import NotSentError
from services.relay.http.pool import Pool
from services.relay.http.proxy import proxy_of
from services.relay.http.request import Origin, origin_of, target_of
from services.relay.http.resolving import Names, Resolve
from services.relay.settings import RelaySettings

# Destinations' hosts that are remembered.
WAYS_MAX = 1024
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Way:
    """What holds for all destinations of one scheme, host and port. `headers`: Host, and what a proxy wants to know;
    `prefix`: what stands before the path, for a proxy or by the map.
    """

    pool: Pool
    origin: Origin
    headers: Mapping[str, str]
    prefix: str
    third_party: bool

    def target(self, path: str) -> str:
        """The request target for what follows the host in a destination. Raises `NotSentError`."""
        if self.prefix.startswith("/") and _climbs(path):
            raise NotSentError("the destination's path has a dot segment, which could lead out of the mapped prefix")
        return self.prefix + target_of(path)


class Ways:
    """Holds two pools of connections: one behind the address guard, one for the operator's own rewrites."""

    def __init__(self, settings: RelaySettings, tls: ssl.SSLContext, resolve: Resolve | None = None) -> None:
        """`resolve` stands in for the system's names. Made inside a running event loop."""
        self._third_parties = HostList(settings.third_parties)
        self._guard = Guard(settings.allow_private, HostList(settings.allow_hosts))
        proxy = settings.egress_proxy
        self._proxy = None if proxy is None else proxy_of(proxy.get_secret_value())
        # A proxy resolves the destinations' names itself, and its own address is the operator's word.
        self._system = SystemNames() if resolve is None else resolve
        names = Names(self._system, asyncio.get_running_loop().time)
        slow_max = settings.concurrency_max // 2
        self._guarded = Pool(tls, GuardedResolver(self._guard, names), self._proxy, slow_max=slow_max)
        self._trusted = Pool(tls, names, slow_max=slow_max)
        self._map = {_place(origin_of(source)): target for source, target in settings.destination_map.items()}
        # Few hosts get most calls. What a name resolves to is not in here: that is looked at for each connection.
        self._way = lru_cache(WAYS_MAX)(self._new_way)

    @property
    def opening(self) -> int:
        """Calls that will soon have a connection: not those to a destination that lets nobody in."""
        return self._guarded.opening + self._trusted.opening

    def close(self) -> None:
        self._guarded.close()
        self._trusted.close()
        if isinstance(self._system, SystemNames):
            self._system.close()

    def to(self, url: str) -> tuple[Way, str]:
        """The way to a destination, and its request target. Raises `NotSentError`."""
        scheme, authority, path = _parts(url)
        way = self._way(scheme, authority)
        return way, way.target(path)

    def _new_way(self, scheme: str, authority: str) -> Way:
        text = f"{scheme}://{authority}"
        mapped = self._mapped(text, authority)
        if mapped is not None:
            return mapped
        origin = self._guard.check_url(text)
        headers, prefix = {"Host": origin.authority}, ""
        if self._proxy is not None and origin.scheme == "http":
            headers, prefix = headers | self._proxy.headers, f"http://{origin.authority}"
        return Way(self._guarded, origin, headers, prefix, self._is_third_party(origin))

    def _mapped(self, text: str, authority: str) -> Way | None:
        try:
            origin = origin_of(text)
        except ValueError:
            return None
        target = self._map.get(_place(origin))
        if target is None or "@" in authority:
            return None
        # The name as its sender wrote it, where that is the name and nothing else.
        host = authority if authority.lower() == origin.authority else origin.authority
        return Way(self._trusted, origin_of(target), {"Host": host}, _parts(target)[2], self._is_third_party(origin))

    def _is_third_party(self, origin: Origin) -> bool:
        return normal_host(origin.host) in self._third_parties


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, authority and the rest, which is byte by byte the sender's."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise NotSentError("the destination is no valid address")
    scheme, authority, path = found.groups()
    return scheme, authority, path


def _place(origin: Origin) -> tuple[str, str, int]:
    """What two ways to write one origin have in common."""
    return (origin.scheme, normal_host(origin.host), origin.port)


def _climbs(path: str) -> bool:
    """Whether some server may take a segment of `path` for `..`: encoded, after a backslash, or with parameters."""
    plain = unquote(re.split(r"[?#]", path, maxsplit=1)[0]).replace("\\", "/")
    return any(segment.partition(";")[0] == ".." for segment in plain.split("/"))
