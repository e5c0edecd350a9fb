"""The two ports of the api. granian serves them in one event loop until a signal; requests in progress then have a
limited time to finish.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from tidings.process.files import raise_file_limit
from tidings.process.settings import split_listen

# The maximum number of connections on each port, if the limit of open files allows it. granian's default is its
# backlog. An idle connection costs some kilobytes and is closed after 30 s, the time limit for a head in HTTP/1. In
# mode `auto` it would stay open.
CONNECTIONS_MAX = 8192
# File descriptors for Postgres, the log, and files that are open for a moment.
OTHER_FILES = 128
BACKLOG = 1024
HEAD_MILLISECONDS = 30_000
# The buffer of each connection, which limits a head to about this size. The default, 408 KiB, would allow 3 GiB of
# incomplete heads.
BUFFER_BYTES = 64 * 1024
DRAIN_SECONDS = 20.0
# The time for the steps after the drain: the last batch of the committer, and closing the pools.
CLOSE_SECONDS = 10.0


class PortTakenError(Exception):
    """The process cannot listen at an address; the text is a sentence for the operator."""


async def serve(apps: dict[str, Any]) -> int:
    """Serve each app at its address, `HOST:PORT`, until SIGTERM or SIGINT; return the exit status."""
    connections_max = _allow_open_files(len(apps))
    servers = [_server(listen, app, connections_max) for listen, app in apps.items()]
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = [asyncio.create_task(server.serve()) for server in servers]
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([*serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    stop_requested = stopping.is_set()
    end_after(DRAIN_SECONDS + CLOSE_SECONDS)
    for server in servers:
        server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait(serving, timeout=DRAIN_SECONDS)
    return 0 if stop_requested else 1


def end_after(seconds: float) -> None:
    """End this process after `seconds`, even if it still waits for something."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _allow_open_files(ports: int) -> int:
    """Raise the limit of open files; return the number of connections that each port may have."""
    return min(CONNECTIONS_MAX, max(64, (raise_file_limit() - OTHER_FILES) // ports))


def _server(listen: str, app: Any, connections_max: int) -> Server:
    host, port = split_listen(listen)
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=connections_max,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_MILLISECONDS, max_buffer_size=BUFFER_BYTES),
        log_access=False,
        log_enabled=False,
    )


def check_free(listen: str) -> None:
    """Raise `PortTakenError` unless the port is free. granian sets SO_REUSEPORT, so two apis would share a port."""
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortTakenError(f"cannot listen at {listen}: {os.strerror(error.errno or 0)}") from None
