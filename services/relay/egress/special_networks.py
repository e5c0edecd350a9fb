"""Which addresses are public: global unicast, by a table of our own. Pure.

`ipaddress.is_global` is not used, as it changes between patch releases of the interpreter. The table has IANA's
special-purpose registries of IPv4 and IPv6 (RFC 6890) as of 2026, and other ranges without hosts on the Internet.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_NOT_PUBLIC_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers; Alibaba's metadata are at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent: public by its form alone
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata are at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4, withdrawn (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# The two addresses of 192.0.0.0/24 that are globally reachable: anycast of PCP and TURN (RFC 7723, RFC 8155).
_PUBLIC_4 = frozenset({IPv4Address("192.0.0.9"), IPv4Address("192.0.0.10")})

# All globally routed IPv6 is in this network (RFC 4291). Loopback, unique local, link-local, multicast and SRv6 are
# outside.
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: the guard asks about the address inside
        "3fff::/20",  # documentation
    )
)
_PUBLIC_6 = tuple(
    IPv6Network(text)
    for text in (
        "2001:1::1/128",  # anycast of PCP
        "2001:1::2/128",  # anycast of TURN
        "2001:3::/32",  # AMT
        "2001:4:112::/48",  # AS112
        "2001:20::/28",  # ORCHIDv2
        "2001:30::/28",  # drone remote ID
    )
)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` is global unicast. For an IPv6 address with an embedded IPv4 address, only the IPv6 form is
    judged.
    """
    if isinstance(address, IPv4Address):
        return address in _PUBLIC_4 or not any(address in network for network in _NOT_PUBLIC_4)
    if address not in _UNICAST_6:
        return False
    return any(address in network for network in _PUBLIC_6) or not any(address in network for network in _NOT_PUBLIC_6)
