"""Which addresses may be called: global ones, and those the operator allows. This prevents server-side request forgery.

A message may require public addresses only. A policy without allowed addresses then decides.

A name is resolved once for each connection. If any of its addresses is forbidden, so is the name. The connection goes
to the checked address, with the name in Host and SNI. Redirects are never followed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from yarl import URL

from services.relay.egress.hosts import HostPorts, normal_host
from services.relay.egress.http.faults import NotSentError
from services.relay.egress.http.request import Origin, origin_of
from services.relay.egress.http.resolving import Resolve
from services.relay.egress.special_networks import is_public

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# For an IPv6 address that leads to an IPv4 one, the embedded address decides: NAT64 (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Interface identifiers of ISATAP (RFC 5214), in front of the IPv4 address.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
# Added to the refusal: the settings that can permit the address.
ASK_THE_OPERATOR = "RELAY_ALLOW_PRIVATE or RELAY_ALLOW_HOSTS can permit it"
ASK_THE_SENDER = "the message is for public addresses only, by its Tidings-Addresses"
# The forms that inet_aton, and so most resolvers, read as an IPv4 address: decimal, octal and hexadecimal, with one to
# four parts.
_NUMBER = re.compile(r"^(?:0x[0-9a-f]*|[0-9]+)$")


class ForbiddenAddressError(NotSentError):
    """This relay does not call the destination's address. The text says why, and names no resolved address."""


def permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether `address` may be called: it is global unicast, or in one of the `allowed` networks.

    For an IPv6 address with embedded IPv4 addresses, those decide.
    """
    return all(_permitted(inner, allowed) for inner in _inner(address))


def _permitted(address: Address, allowed: Sequence[Network]) -> bool:
    if any(address in network for network in allowed if network.version == address.version):
        return True
    return is_public(address)


def _inner(address: Address) -> Sequence[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if (ipv4 := address.ipv4_mapped or address.sixtofour) is not None:
        return (ipv4,)
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:
        return (low,)
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return (address, low)
    return address.teredo or (address,)


class AddressPolicy:
    """Checks destinations and resolved addresses. `hosts` may be called whatever address they resolve to."""

    def __init__(self, allowed: Sequence[Network], hosts: HostPorts, remedy: str = ASK_THE_OPERATOR) -> None:
        """`remedy` is added to each refusal."""
        self._allowed = allowed
        self._hosts = hosts
        self._remedy = remedy

    def allows(self, origin: Origin) -> bool:
        """Whether the operator allows this host and port. Its resolved addresses then need no check."""
        return self._hosts.have(normal_host(origin.host), origin.port)

    def check_url(self, url: str) -> Origin:
        """The origin of `url`. Refuses what the URL alone shows to be forbidden; names are checked when they are
        resolved.

        Raises `ForbiddenAddressError`.
        """
        try:
            parts = URL(url, encoded=True)
            host, port = parts.raw_host or "", parts.port or 0
        except ValueError:
            raise ForbiddenAddressError("the destination is not a valid address") from None
        if parts.scheme not in {"http", "https"}:
            raise ForbiddenAddressError(f"the destination's scheme {parts.scheme[:20]!r} is neither http nor https")
        if "@" in parts.raw_authority:
            raise ForbiddenAddressError("the destination holds a user name or password before its host")
        self._check_host(host, port)
        try:
            origin = origin_of(url)
        except ValueError:
            raise ForbiddenAddressError("the destination is not a valid address") from None
        # The host as written may differ from the one after IDNA, which is called. A proxy uses it as written, so both
        # are checked.
        self._check_host(origin.host, origin.port)
        return origin

    def _check_host(self, host: str, port: int) -> None:
        host = normal_host(host)
        if not host:
            raise ForbiddenAddressError("the destination has no host")
        if "%" in host:
            raise ForbiddenAddressError("the destination has a zone or an escape in its host")
        if host.startswith(".") or host.endswith(".") or ".." in host:
            raise ForbiddenAddressError("the destination's host has an empty label")
        if not self._hosts.have(host.strip("[]"), port):
            self.check_literal(host.strip("[]"))

    def check_literal(self, host: str) -> None:
        """Check the host of a URL if it is an IP address. Raises `ForbiddenAddressError`."""
        address = _literal(normal_host(host))
        if address is not None and not permitted(address, self._allowed):
            raise ForbiddenAddressError(f"the destination {address} is not a public address; {self._remedy}")

    def check_resolved(self, name: str, addresses: Sequence[str]) -> None:
        """Check all addresses of a name. Raises `ForbiddenAddressError` if any of them is not permitted."""
        for text in addresses:
            if not permitted(ipaddress.ip_address(text.split("%", 1)[0]), self._allowed):
                # The error does not name the address, as publishers must not learn a private network's names.
                raise ForbiddenAddressError(
                    f"the destination {name} leads to an address that is not public; {self._remedy}"
                )


def _literal(host: str) -> Address | None:
    """The IP address that `host` is; None: it is a name. Raises `ForbiddenAddressError` for other notations of an
    address.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if ":" in host or _NUMBER.match(host.rsplit(".", 1)[-1]):
            raise ForbiddenAddressError(
                "the destination's host is a number that is not a dotted IPv4 address"
            ) from None
        return None


class CheckedResolver:
    """Resolves names, and refuses those with an address that is not permitted."""

    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve

    async def __call__(self, name: str) -> Sequence[str]:
        """The addresses of `name`, which may be an address itself. Raises `ForbiddenAddressError`, and the resolver's
        errors.
        """
        self._policy.check_literal(name)
        addresses = await self._resolve(name)
        self._policy.check_resolved(name, addresses)
        return addresses
