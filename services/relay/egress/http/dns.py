"""Lookups as this machine is configured (/etc/hosts, resolv.conf), by c-ares: on sockets, so that a name server that is
silent holds no thread. See docs/decisions/0010-name-lookups.md.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress

import aiodns
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, ARES_ETIMEOUT

# Of a server that has never answered. Of one that has, c-ares waits for five times what it usually takes, but 0.25 s at the
# least, and doubles that with each try: 5 tries are then 8 s, which a slow zone behind a quick resolver may need.
TRY_SECONDS = 2.0
TRIES = 5
# Any address that is global: no packet is sent to it.
_SOMEWHERE = ("2001:db8::1", 9)
_UNKNOWN = frozenset({ARES_ENODATA, ARES_ENOTFOUND})


class SystemNames:
    """Made inside a running event loop."""

    def __init__(self) -> None:
        self._resolver = aiodns.DNSResolver(timeout=TRY_SECONDS, tries=TRIES)

    def close(self) -> None:
        """End the lookups under way."""
        self._resolver.cancel()

    async def __call__(self, name: str) -> Sequence[str]:
        """The addresses of `name`, the best ones first; of a family without a route here only if it has no other. Raises `OSError`."""
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
    """Of these names c-ares says ::1 too (RFC 6761), whatever /etc/hosts has; who allows 127.0.0.0/8 means them."""
    labels = name.lower().rstrip(".").rsplit(".", 1)
    return labels[-1] == "localhost"


def _reaches_ipv6() -> bool:
    """Whether there is a route. Raises `OSError` when no more files can be opened, which c-ares would not tell."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect(_SOMEWHERE)
            return True
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
    return False


def _failure(code: int, text: str) -> socket.gaierror:
    """As `getaddrinfo` says it."""
    if code in _UNKNOWN:
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if code == ARES_ETIMEOUT:
        return socket.gaierror(socket.EAI_AGAIN, "the name servers did not answer in time")
    return socket.gaierror(socket.EAI_FAIL, text)
