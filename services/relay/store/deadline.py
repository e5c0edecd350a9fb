"""A limit on the time for which a connection is used, independent of the server and the network."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from contextlib import suppress
from types import TracebackType
from typing import Any

import psycopg
from psycopg import AsyncConnection


class DeadlineError(psycopg.OperationalError):
    """The database did not answer in time. It is unknown whether a commit took effect."""


class Deadline:
    """`with Deadline(connection, seconds)`: after `seconds` the connection is shut down, and `DeadlineError` is raised.

    The shutdown of the socket ends the waiting statement as if the server had disappeared. The statement's task is not
    cancelled: psycopg answers a cancellation with a cancel request over a new connection to the same silent server, and
    waits.
    """

    __slots__ = ("_connection", "_passed", "_seconds", "_timer")

    def __init__(self, connection: AsyncConnection[Any], seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._passed = False

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._pass)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        if self._passed and isinstance(error, Exception):
            raise DeadlineError(f"the database did not answer within {self._seconds:g} s") from error

    def _pass(self) -> None:
        self._passed = True
        if not self._connection.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)


def usable(connection: AsyncConnection[Any]) -> bool:
    """Whether an idle connection still has its server. Such a connection is readable only when the server has closed
    it, or when the kernel reports that keepalive got no answer. The check costs no round trip.
    """
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
