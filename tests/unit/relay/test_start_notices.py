"""Which addresses get a place when more addresses wait for notices than there are places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from services.relay.engine.start_notices import StartNotices
from services.relay.engine.start_queue import URLS_MAX
from services.relay.metrics import RelayMetrics
from services.relay.options import Options, StartedCallback
from tidings.process import log
from tidings.process.telemetry import Telemetry

ALIVE = "http://alive"


class Routes:
    """Connections to receivers that never answer, and to one that does."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.asked: list[str] = []

    def to(self, url: str, *, public_only: bool) -> tuple[Any, str]:
        assert not public_only
        return SimpleNamespace(pool=self, third_party=False, headers={}, origin=url), "/starts"

    async def connection(self, origin: str, seconds: float) -> Any:
        assert seconds > 0
        return self._connection(origin)

    @contextmanager
    def _connection(self, url: str) -> Iterator[Any]:
        async def exchange(_asked: object, _bytes_max: int) -> Any:
            self.asked.append(url)
            if url != ALIVE:
                await asyncio.Event().wait()
            return SimpleNamespace(status=200)

        self.open.append(url)
        try:
            yield SimpleNamespace(exchange=exchange)
        finally:
            self.open.remove(url)

    def close(self) -> None:
        """There is nothing to close."""


class Telling:
    def __init__(self) -> None:
        self.routes, self.registry = Routes(), CollectorRegistry()
        routes: Any = self.routes
        self.notices = StartNotices(routes, lambda: "k" * 32, Telemetry(RelayMetrics(self.registry), log.get("test")))

    def tell(self, url: str) -> None:
        callback = StartedCallback(url)
        message: Any = SimpleNamespace(
            id="msg",
            label=None,
            retried=0,
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            options=Options(started_callback=callback),
        )
        self.notices.notify(message, lambda: False)

    def counted(self, outcome: str) -> float:
        return self.registry.get_sample_value("relay_start_notices_total", {"outcome": outcome}) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  its tasks do all the work
                await asyncio.sleep(0.001)


def test_addresses_that_never_answer_are_replaced_by_one_that_does_and_their_connections_closed() -> None:
    async def run() -> None:
        telling = Telling()
        telling.tell(ALIVE)
        await telling.until(lambda: telling.counted("told") == 1 and not telling.notices._senders)
        dead = [f"http://dead-{number}" for number in range(URLS_MAX)]
        for url in dead:
            telling.tell(url)
        await telling.until(lambda: telling.routes.open == dead)
        telling.tell(ALIVE)
        await telling.until(lambda: telling.counted("told") == 2)
        assert telling.routes.open == dead[1:]
        assert telling.counted("dropped") == 1
        # The free place may be that of the replaced address.
        telling.tell(dead[0])
        await telling.until(lambda: telling.routes.asked.count(dead[0]) == 2)
        telling.notices.close()

    asyncio.run(run())
