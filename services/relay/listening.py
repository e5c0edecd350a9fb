"""The sockets of RELAY_LISTEN. They are bound before anything else starts, so that a port in use is
reported at once.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence


class CannotListenError(Exception):
    """The address is in use, or does not belong to this machine. The text says which and why."""


def bind(host: str, port: int) -> Sequence[socket.socket]:
    """Bind one socket for each address of `host`, without listening yet. Raises `CannotListenError`."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in dict.fromkeys(found):
            sockets.append(_bound(family, address))
    except OSError as error:
        for one in sockets:
            one.close()
        raise CannotListenError(
            f"RELAY_LISTEN: {host}:{port} cannot be listened at: {error.strerror or error}"
        ) from None
    return sockets


def listen(sockets: Sequence[socket.socket], backlog: int) -> None:
    """Accept connections from now on. Raises `CannotListenError`, as another process could take the port until here.

    The event loop could listen by itself, but uvloop does not report a failure.
    """
    for one in sockets:
        try:
            one.listen(backlog)
        except OSError as error:
            host, port = one.getsockname()[:2]
            raise CannotListenError(
                f"RELAY_LISTEN: {host}:{port} cannot be listened at: {error.strerror or error}"
            ) from None


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last connections are in TIME_WAIT can be bound.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 addresses have their own sockets.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setblocking(False)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one
