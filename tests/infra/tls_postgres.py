"""A port that speaks TLS with Postgres' clients, and forwards their traffic to a server without TLS.

The Postgres of our wheel has no TLS. A client first asks for it with SSLRequest (Postgres manual, "Message Formats").
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_WAIT_SECONDS = 10


class TlsPostgres:
    """`port` is the address for clients. `encrypted` is the number of connections with TLS."""

    def __init__(self, context: ssl.SSLContext, server_port: int) -> None:
        self._context = context
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.encrypted = 0

    def serve(self) -> None:
        with suppress(OSError):  # the listener was closed at the end of the test
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _carry(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(_WAIT_SECONDS)
            if client.recv(8, socket.MSG_WAITALL) != _SSL_REQUEST:
                return  # a client that continues without TLS
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(("127.0.0.1", self._server_port)) as server,
            ):
                self.encrypted += 1
                secure.settimeout(None)
                threading.Thread(target=_copy, args=(server, secure), daemon=True).start()
                _copy(secure, server)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_postgres(context: ssl.SSLContext, server_port: int) -> Iterator[TlsPostgres]:
    made = TlsPostgres(context, server_port)
    threading.Thread(target=made.serve, daemon=True).start()
    try:
        yield made
    finally:
        made.close()
