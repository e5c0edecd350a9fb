"""Starts a redis-server on a free port, with an append-only file and `appendfsync always`. Has a minimal client."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from stack.ports import free_ports
from stack.servers import die_with_parent
from tests.wait import until

Reply = int | bytes | None


class RedisError(Exception):
    """redis-server is not installed, or has answered `-ERR`."""


@dataclass(frozen=True)
class Redis:
    port: int
    pid: int

    def command(self, *words: str, database: int = 0) -> Reply:
        """The answer to one command: a number, a status, a string or None (RESP 2, without arrays)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            reader = connection.makefile("rb")
            connection.sendall(_encoded(("SELECT", str(database))) + _encoded(words))
            _reply(reader)
            return _reply(reader)


@contextmanager
def redis_server(directory: Path) -> Iterator[Redis]:
    """A server that answers a write when it is on the disk, as Postgres does in this benchmark."""
    program = shutil.which("redis-server")
    if program is None:
        raise RedisError("redis-server is not installed")
    [port] = free_ports(1)
    directory.mkdir(parents=True, exist_ok=True)
    options = {"bind": "127.0.0.1", "port": port, "dir": directory, "appendonly": "yes", "appendfsync": "always"}
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", str(value))), "--save", ""]
    with (directory / "redis.log").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=die_with_parent)  # noqa: PLW1509
    redis = Redis(port, process.pid)
    try:
        until(lambda: _answers(redis), 10)
        yield redis
    finally:
        process.terminate()
        process.wait(20)


def _answers(redis: Redis) -> bool:
    try:
        return redis.command("PING") == b"PONG"
    except OSError:
        return False


def _encoded(words: tuple[str, ...]) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"*%d\r\n" % len(words) + b"".join(parts)


def _reply(reader: BufferedReader) -> Reply:
    line = reader.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    match kind:
        case b":":
            return int(rest)
        case b"+":
            return rest
        case b"$":
            return None if rest == b"-1" else reader.read(int(rest) + 2)[:-2]
        case _:
            raise RedisError(line.decode("latin-1"))
