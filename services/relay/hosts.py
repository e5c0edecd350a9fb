"""Lists of hosts as settings have them, and a host as it stands in an address. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def normal_host(host: str) -> str:
    """Lower case, without the dot at the end; digits and dots of other scripts, which IDNA maps, as plain ones."""
    return unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower().removesuffix(".")


class HostList:
    """`example.com` is that host alone; `.example.com` and `*.example.com` are all hosts under it, but not itself."""

    def __init__(self, patterns: Iterable[str]) -> None:
        cleaned = [normal_host(pattern).removeprefix("*") for pattern in patterns]
        self._exact = frozenset(pattern for pattern in cleaned if not pattern.startswith("."))
        self._under = tuple(pattern for pattern in cleaned if pattern.startswith("."))

    def __contains__(self, host: str) -> bool:
        """`host` as `normal_host` gives it."""
        return host in self._exact or host.endswith(self._under)
