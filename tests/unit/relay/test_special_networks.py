"""The table of public addresses, compared with the interpreter's, which differs between releases for the networks
listed here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.egress import special_networks
from services.relay.egress.address_policy import Network
from services.relay.egress.special_networks import is_public

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Networks where some or all releases of Python, 3.11.0 to 3.14, differ from IANA, or which IANA does not list.
DIFFERENCES: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # all of it but .9 and .10 since 3.11.10, 3.12.4 and 3.13
        "192.88.99.0/24",  # global to Python
        "168.63.129.16/32",  # global by form
        "2001::/23",  # its exceptions are known since 3.11.10, 3.12.4 and 3.13
        "2002::/16",  # global to releases before those
        "3fff::/20",  # global to releases before 3.13.1 and 3.14
    )
)


def by_interpreter(address: Address) -> bool:
    """The judgement before the policy had a table."""
    if isinstance(address, ipaddress.IPv6Address) and address not in ipaddress.ip_network("2000::/3"):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def stated(address: Address) -> bool:
    return any(address in network for network in DIFFERENCES if network.version == address.version)


def edges() -> Iterator[Address]:
    """The first and the last address of every network in Python or in the table, and their neighbours."""
    constants = (ipaddress._IPv4Constants, ipaddress._IPv6Constants)  # type: ignore[attr-defined]
    known = [value for constant in constants for value in vars(constant).values()]
    known += [
        value for name, value in vars(special_networks).items() if name.startswith(("_NOT", "_PUBLIC", "_UNICAST"))
    ]
    networks = [item for value in known for item in (value if isinstance(value, list | tuple | frozenset) else [value])]
    for network in networks:
        if not hasattr(network, "network_address"):
            continue
        address = type(network.network_address)
        for number in (int(network.network_address), int(network.broadcast_address)):
            yield from (
                address(near) for near in (number - 1, number, number + 1) if 0 <= near <= int(address._ALL_ONES)
            )


def test_it_agrees_with_the_interpreter_except_for_the_listed_networks() -> None:
    found = list(edges())
    assert len(found) > 200
    assert [address for address in found if is_public(address) != by_interpreter(address) and not stated(address)] == []


@given(st.ip_addresses())
def test_it_agrees_with_the_interpreter_anywhere(address: Address) -> None:
    assert stated(address) or is_public(address) == by_interpreter(address)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("192.0.0.1", False),
        ("192.0.0.8", False),
        ("192.0.0.9", True),
        ("192.0.0.10", True),
        ("192.0.0.11", False),
        ("192.0.0.170", False),
        ("192.0.0.192", False),
        ("192.0.1.0", True),
        ("192.88.99.1", False),
        ("168.63.129.16", False),
        ("168.63.129.15", True),
        ("2001::1", False),
        ("2001:1::1", True),
        ("2001:1::4", False),
        ("2001:3::1", True),
        ("2001:4:112::1", True),
        ("2001:20::1", True),
        ("2001:200::1", True),
        ("2002:808:808::1", False),
        ("3fff::1", False),
        ("3fff:1000::1", True),
        ("fec0::1", False),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_where_they_may_differ_the_table_applies(text: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) == public
