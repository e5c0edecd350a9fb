"""Starts the upstream's process, and reads the calls and callbacks that it has received."""

from __future__ import annotations

import http.client
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.ports import free_ports
from tests.process import Process, started

# Linux has 28,000 local ports per destination. The largest run needs this many addresses.
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")


@dataclass(frozen=True)
class Seen:
    """The times of arrival, in epoch seconds, by id."""

    calls: dict[str, list[float]]
    callbacks: dict[str, list[float]]
    wrong: list[str]

    def lost(self, ids: Collection[str]) -> int:
        return sum(id_ not in self.calls for id_ in ids)

    def doubled(self) -> int:
        """The number of calls and callbacks after the first of each id."""
        return sum(len(times) - 1 for times in (*self.calls.values(), *self.callbacks.values()))

    def arrived_last(self, ids: Sequence[str], count: int) -> list[int]:
        """The indexes of the `count` of `ids` that arrived last. All of them must have arrived."""
        return sorted(range(len(ids)), key=lambda number: self.calls[ids[number]][0])[-count:]

    def first(self) -> float:
        return min(times[0] for times in self.calls.values())


@dataclass(frozen=True)
class StandIn:
    port: int

    def origin(self, number: int = 0) -> str:
        """`http://host:port` for the call `number`: each address in turn."""
        return f"http://{HOSTS[number % len(HOSTS)]}:{self.port}"

    def reset(self) -> None:
        self._ask("/control/reset")

    def release(self) -> None:
        """Answer all calls that are held."""
        self._ask("/control/release")

    def counts(self) -> dict[str, int]:
        return dict(self._ask("/control/counts"))

    def seen(self) -> Seen:
        return Seen(**self._ask("/control/report"))

    def _ask(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()


@contextmanager
def stand_in(directory: Path) -> Iterator[StandIn]:
    [port] = free_ports(1)
    process = Process(
        "benchmarks.relay.upstream",
        {"UPSTREAM_LISTEN": f"{','.join(HOSTS)}:{port}"},
        directory / "upstream.log",
        ready_url=f"http://127.0.0.1:{port}/control/counts",
    )
    with started(process):
        yield StandIn(port)
