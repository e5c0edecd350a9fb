"""A name server for tests, and a process that uses it with its own /etc/hosts and resolv.conf."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

DNS_PORT = 53
QUERY_BYTES_MAX = 4096
# The number of recorded queries; a chaos run sends some thousands.
ASKED_MAX = 100_000
# The time within which a closed server has released its port.
LOOK_SECONDS = 0.2
_A = 1
# Flags of an answer (RFC 1035, section 4.1.1): authoritative, recursion available, and the code.
_NO_ERROR, _SERVER_FAILURE, _NO_SUCH_NAME = b"\x85\x80", b"\x85\x82", b"\x85\x83"

Mode = Literal["answers", "silent", "fails"]


class NameServer:
    """Answers for `known` names with an IPv4 address, says of `absent` ones that they do not exist, and gives no answer
    for others.

    `mode` may be set at any time by any thread: `silent` answers nothing, `fails` answers SERVFAIL to all. `asked` are
    the names in queries. `counts` is the number of queries by mode. Answers must not be cached: their TTL is 0.
    """

    def __init__(self, address: str, known: Mapping[str, str], absent: Sequence[str]) -> None:
        """Raises `OSError` when port 53 of the address is in use or not permitted."""
        self._known = known
        self._absent = tuple(absent)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, DNS_PORT))
        self._socket.settimeout(LOOK_SECONDS)
        self._closed = threading.Event()
        self.address = address
        self.mode: Mode = "answers"
        self.asked: list[str] = []
        self._held: list[tuple[bytes, tuple[str, int]]] = []
        self.counts: Counter[Mode] = Counter()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed.is_set():
            with suppress(TimeoutError):
                self._one()

    def _one(self) -> None:
        query, sender = self._socket.recvfrom(QUERY_BYTES_MAX)
        name, _ = _name(query)
        if len(self.asked) < ASKED_MAX:
            self.asked.append(name)
        mode = self.mode
        self.counts[mode] += 1
        if mode != "silent":
            self._send(mode, query, sender)
        elif len(self._held) < ASKED_MAX:
            self._held.append((query, sender))

    def answer_held(self) -> None:
        """Set the mode back, and answer the queries that arrived while it was silent."""
        self.mode = "answers"
        for query, sender in self._held:
            self._send("answers", query, sender)

    def _send(self, mode: Mode, query: bytes, sender: tuple[str, int]) -> None:
        name, end = _name(query)
        # The client may have closed its socket.
        with suppress(OSError):
            if (answer := self._answer(mode, query, name, end)) is not None:
                self._socket.sendto(answer, sender)

    def _answer(self, mode: Mode, query: bytes, name: str, end: int) -> bytes | None:
        kind = int.from_bytes(query[end : end + 2], "big")
        if mode == "fails":
            flags, records = _SERVER_FAILURE, b""
        elif name in self._known:
            address = socket.inet_aton(self._known[name])
            flags, records = _NO_ERROR, b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + address if kind == _A else b""
        elif name.endswith(self._absent):
            flags, records = _NO_SUCH_NAME, b""
        else:
            return None
        count = b"\0\1" if records else b"\0\0"
        return query[:2] + flags + b"\0\1" + count + b"\0\0\0\0" + query[12 : end + 4] + records

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._socket.close()


def _name(query: bytes) -> tuple[str, int]:
    """The name in the first question, and the position of its type (RFC 1035, section 4.1.2)."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 1


@contextmanager
def name_server(address: str, known: Mapping[str, str], absent: Sequence[str] = ()) -> Iterator[NameServer]:
    server = NameServer(address, known, absent)
    try:
        yield server
    finally:
        server.close()


def own_names(directory: Path, *, hosts: str, resolv_conf: str) -> list[str]:
    """The command that runs another with these files as /etc/hosts and /etc/resolv.conf, in its own mount namespace."""
    script = ["set -e"]
    for name, content in (("hosts", hosts), ("resolv.conf", resolv_conf)):
        (directory / name).write_text(content)
        script.append(f"mount --bind '{directory / name}' /etc/{name}")
    return ["unshare", "--mount", "sh", "-c", "; ".join([*script, 'exec "$@"']), "sh"]


def may_have_own_names(directory: Path) -> bool:
    """Whether this user may create namespaces and bind port 53."""
    try:
        with name_server("127.0.53.52", {}):
            command = own_names(directory, hosts="", resolv_conf="")
            return subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
