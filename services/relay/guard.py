"""Which addresses may be called: global ones, and those the operator allows. Against server-side request forgery.

Resolved once for each connection; if any address of a name is forbidden the name is; the connection goes to what was
checked (aiohttp connects to what this resolver gives and keeps Host and SNI).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IPv4 inside IPv6 (RFC 6052): what counts is the address inside.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddressError(OSError):
    """The destination is at an address that this relay does not call."""


def permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether `address` may be called: it is global unicast, or in one of the `allowed` networks."""
    inner = _inner(address)
    if any(inner in network for network in allowed if network.version == inner.version):
        return True
    return inner.is_global and not inner.is_multicast


def _inner(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class GuardedResolver(AbstractResolver):
    """A resolver that refuses names with an address that is not permitted."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            self.check(result["host"])
        return results

    def check(self, host: str) -> None:
        """Refuse a literal address that is not permitted; names pass, as they are checked when resolved."""
        try:
            address = ipaddress.ip_address(host.split("%", 1)[0].strip("[]"))
        except ValueError:
            return
        if not permitted(address, self._allowed):
            raise ForbiddenAddressError("the destination is at a private address; RELAY_ALLOW_PRIVATE can permit it")

    async def close(self) -> None:
        await self._resolver.close()
