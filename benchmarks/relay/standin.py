"""The driver of the upstream's process: starts it, asks what it has seen, and judges a run by that."""

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

# 28,000 local ports can lead to one address and port; so many addresses take the largest run.
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")


@dataclass(frozen=True)
class Seen:
    """Arrival times in epoch seconds, by id."""

    calls: dict[str, list[float]]
    callbacks: dict[str, list[float]]
    wrong: list[str]

    def lost(self, ids: Collection[str]) -> int:
        return sum(id_ not in self.calls for id_ in ids)

    def doubled(self) -> int:
        """Calls and callbacks beyond the first of an id."""
        return sum(len(times) - 1 for times in (*self.calls.values(), *self.callbacks.values()))

    def arrived_last(self, ids: Sequence[str], count: int) -> list[int]:
        """Which of `ids` (by their place in it) came last; all of them must have come."""
        return sorted(range(len(ids)), key=lambda number: self.calls[ids[number]][0])[-count:]

    def first(self) -> float:
        return min(times[0] for times in self.calls.values())


@dataclass(frozen=True)
class StandIn:
    port: int

    def origin(self, number: int = 0) -> str:
        """`http://host:port` for the call `number`: they go round all the addresses."""
        return f"http://{HOSTS[number % len(HOSTS)]}:{self.port}"

    def reset(self) -> None:
        self._ask("/control/reset")

    def release(self) -> None:
        """Answer all that is held."""
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
