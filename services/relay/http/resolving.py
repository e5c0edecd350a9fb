"""Names to addresses, by the system."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

# The addresses of a name, as text. Raises `OSError`.
Resolve = Callable[[str], Awaitable[Sequence[str]]]


async def system_addresses(name: str) -> Sequence[str]:
    """What the system's resolver says; an address is its own."""
    try:
        return (str(ipaddress.ip_address(name)),)
    except ValueError:
        pass
    # Of families that this host has no address in nothing would be reachable.
    found = await asyncio.get_running_loop().getaddrinfo(
        name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return list(dict.fromkeys(str(info[4][0]) for info in found))
