"""A port that speaks TLS to Postgres' clients and passes what they say on to a server without TLS.

The Postgres of our wheel has no TLS. A client asks for it before anything else: SSLRequest in the Postgres manual, chapter
"Message Formats".
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
    """`port` is where clients come; `encrypted` is how many of them asked for TLS and got it."""

    def __init__(self, context: ssl.SSLContext, server_port: int) -> None:
        self._context = context
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.encrypted = 0

    def serve(self) -> None:
        with suppress(OSError):  # the listener is closed at the end
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
                return  # a client that goes on without TLS
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
