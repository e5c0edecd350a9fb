"""The pump's choice of what is claimed; its calls are tested on the real process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from prometheus_client import CollectorRegistry

from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.pump import CLAIM_MAX, Pump
from services.relay.settings import RelaySettings
from services.relay.waking import Waking
from tidings import log


@dataclass
class Backlog:
    """Stands for `Messages`: both kinds have more than anybody asks for. `asked` is (kind, how many)."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    async def claim(self, batch_max: int, _bytes_max: int) -> list[Claimed]:
        return self._take("plain", batch_max)

    async def claim_keyed(self, batch_max: int, _bytes_max: int) -> list[Claimed]:
        return self._take("keyed", batch_max)

    def _take(self, kind: str, batch_max: int) -> list[Claimed]:
        self.asked.append((kind, batch_max))
        return [cast("Claimed", _Message(f"{kind}-{len(self.asked)}-{n}")) for n in range(batch_max)]


@dataclass(frozen=True)
class _Message:
    id: str
    fault: None = None
    body: bytes = b""


class Writer:
    unwritten = 0
    full = False


class Courier:
    """Holds every call for ever."""

    opening = 0

    async def deliver(self, _message: Claimed, _now: int) -> Any:
        await asyncio.Event().wait()


def pump(messages: Backlog) -> Pump:
    environment = {
        "RELAY_DATABASE_URL": "x",
        "QSTASH_TOKEN": "x",
        "QSTASH_CURRENT_SIGNING_KEY": "x",
        "QSTASH_NEXT_SIGNING_KEY": "x",
        "RELAY_ENCRYPTION_KEYS": "x",
        "RELAY_CONCURRENCY_MAX": 4 * CLAIM_MAX,
    }
    settings = RelaySettings.model_validate(environment)
    parts: Any = (messages, None, Courier(), Writer(), settings, RelayMetrics(CollectorRegistry()), log.get("test"))
    return Pump(*parts, waking=Waking())


def test_neither_a_long_queue_without_keys_nor_one_with_keys_starves_the_other() -> None:
    async def story() -> list[tuple[str, int]]:
        backlog = Backlog()
        claiming = pump(backlog)
        assert [await claiming.claim_once() for _ in range(5)] == [CLAIM_MAX] * 4 + [0]
        return backlog.asked

    assert asyncio.run(story()) == [(kind, CLAIM_MAX) for kind in ("keyed", "plain", "keyed", "plain")]
