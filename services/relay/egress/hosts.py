"""Lists of hosts and ports, as in the settings, and the normal form of a host in a URL. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_IN_BRACKETS = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?")
_NAMED = re.compile(r"([^\[\]:/]+)(?::([0-9]{1,5}))?")
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def normal_host(host: str) -> str:
    """Lower case, without the final dot. Digits and dots of other scripts, which IDNA maps, become ASCII."""
    return unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower().removesuffix(".")


class HostList:
    """`example.com` matches that host alone. `.example.com` and `*.example.com` match its
    subdomains, but not itself.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        cleaned = [normal_host(pattern).removeprefix("*") for pattern in patterns]
        self._exact = frozenset(pattern for pattern in cleaned if not pattern.startswith("."))
        self._under = tuple(pattern for pattern in cleaned if pattern.startswith("."))

    def __contains__(self, host: str) -> bool:
        """`host` must be in the form of `normal_host`."""
        return host in self._exact or host.endswith(self._under)


def split_port(entry: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, `[::1]:port` or `::1`. Raises `ValueError`."""
    if _BARE_IPV6.fullmatch(entry):
        return entry, None
    found = _IN_BRACKETS.fullmatch(entry) or _NAMED.fullmatch(entry)
    port = None if found is None or found[2] is None else int(found[2])
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise ValueError("must be hosts, each with or without :port, separated by commas")
    return found[1], port


class HostPorts:
    """Entries of a `HostList`. Each is for all ports or, with `:port` after it, for that one."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises `ValueError`."""
        hosts: dict[int | None, list[str]] = {}
        for entry in entries:
            host, port = split_port(entry)
            hosts.setdefault(port, []).append(host)
        self._hosts = {port: HostList(found) for port, found in hosts.items()}

    def have(self, host: str, port: int) -> bool:
        """`host` must be in the form of `normal_host`, an IPv6 address without brackets."""
        return any(host in self._hosts[key] for key in (None, port) if key in self._hosts)
