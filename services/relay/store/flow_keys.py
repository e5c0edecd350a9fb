"""Flow-control keys: what counts against their limits, pausing and pinning them."""

from __future__ import annotations

from services.relay.store.database import Database
from services.relay.wire.flow import Pin, Unpin
from services.relay.wire.views import FlowView


class FlowKeys:
    """All of relay.flow_keys but claiming under a key's lock. Every change makes a key that is unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, text: str = "") -> list[FlowView]:
        """The keys that hold `text` (all when empty), by name, at most KEYS_MAX."""
        raise NotImplementedError

    async def get(self, key: str) -> FlowView | None:
        raise NotImplementedError

    async def pause(self, key: str) -> None:
        raise NotImplementedError

    async def resume(self, key: str) -> None:
        raise NotImplementedError

    async def pin(self, key: str, pin: Pin) -> None:
        """Limits that messages do not change from now on; the rate window begins anew."""
        raise NotImplementedError

    async def unpin(self, key: str, unpin: Unpin) -> None:
        raise NotImplementedError

    async def reset_rate(self, key: str) -> None:
        """The rate window begins anew."""
        raise NotImplementedError

    async def set_cooling(self, key: str, enabled: bool) -> None:
        """Whether a destination's wish to wait pauses the key; turning it off ends a pause under way."""
        raise NotImplementedError

    async def cooling_count(self) -> int:
        """How many keys are paused by their destination now."""
        raise NotImplementedError

    async def active_count(self) -> int:
        """Calls under way, of all processes, with a key or without."""
        raise NotImplementedError
