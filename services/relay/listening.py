"""The sockets of RELAY_LISTEN, bound before anything else is begun, so that a taken port is told at once."""

from __future__ import annotations

import socket
from collections.abc import Sequence


class CannotListenError(Exception):
    """The address is taken, or is none of this machine's. The text says which and why."""


def bind(host: str, port: int) -> Sequence[socket.socket]:
    """One for each address of `host`; nobody can connect yet. Raises `CannotListenError`."""
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
    """From now on connections may be made. Raises `CannotListenError`: until here another process could take the port.
    The event loop would listen by itself, but uvloop does not tell of a failure.
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
        # A port whose last connections are in TIME_WAIT is free.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The IPv4 addresses have sockets of their own.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setblocking(False)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one
