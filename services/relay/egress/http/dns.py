"""Name lookups as this machine is configured (/etc/hosts, resolv.conf), by c-ares. It works on sockets, so that a
silent name server blocks no thread. See docs/decisions/0010-name-lookups.md.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress

import aiodns
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, ARES_ETIMEOUT

# The timeout for a server that has never answered. For others c-ares waits five times their usual time, but at least
# 0.25 s, and doubles that with each try. 5 tries are then 8 s, which a slow zone behind a quick resolver may need.
TRY_SECONDS = 2.0
TRIES = 5
# Any global address. No packet is sent to it.
_SOMEWHERE = ("2001:db8::1", 9)
_UNKNOWN = frozenset({ARES_ENODATA, ARES_ENOTFOUND})


class SystemNames:
    """Must be created inside a running event loop."""

    def __init__(self) -> None:
        self._resolver = aiodns.DNSResolver(timeout=TRY_SECONDS, tries=TRIES)

    def close(self) -> None:
        """End the lookups in progress."""
        self._resolver.cancel()

    async def __call__(self, name: str) -> Sequence[str]:
        """The addresses of `name`, best first. A family without a local route is used only if the name has no other.
        Raises `OSError`.
        """
        with_ipv6 = _reaches_ipv6()
        try:
            found = await self._resolver.getaddrinfo(name, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise _failure(*error.args) from None
        addresses = list(dict.fromkeys(node.addr[0].decode() for node in found.nodes))
        if with_ipv6 and not _is_local(name):
            return addresses
        return [one for one in addresses if ":" not in one] or addresses


def _is_local(name: str) -> bool:
    """Names for which c-ares also returns ::1 (RFC 6761), whatever /etc/hosts says. An operator who allows 127.0.0.0/8
    means them.
    """
    labels = name.lower().rstrip(".").rsplit(".", 1)
    return labels[-1] == "localhost"


def _reaches_ipv6() -> bool:
    """Whether an IPv6 route exists. Raises `OSError` when no more files can be opened, which c-ares
    would not report.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect(_SOMEWHERE)
            return True
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
    return False


def _failure(code: int, text: str) -> socket.gaierror:
    """The error that `getaddrinfo` would raise."""
    if code in _UNKNOWN:
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if code == ARES_ETIMEOUT:
        return socket.gaierror(socket.EAI_AGAIN, "the name servers did not answer in time")
    return socket.gaierror(socket.EAI_FAIL, text)
