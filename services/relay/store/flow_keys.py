"""Flow-control keys: what counts against their limits, pausing and pinning them."""

from __future__ import annotations

from services.relay.protocol.flow import Pin, Unpin
from services.relay.protocol.views import FlowView
from services.relay.store.database import Database, queries

# One answer holds so many at the most; who has more asks for a part of their names.
KEYS_MAX = 1000


class FlowKeys:
    """All of relay.flow_keys but claiming under a key's lock. Every change makes a key that is unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("flow_keys")

    async def search(self, text: str = "") -> list[FlowView]:
        """The keys that hold `text` (all when empty), by name, at most KEYS_MAX."""
        return await self._select(None, text)

    async def get(self, key: str) -> FlowView | None:
        found = await self._select(key, "")
        return found[0] if found else None

    async def pause(self, key: str) -> None:
        """Nothing with the key begins from now on; its rate window goes on."""
        await self._database.execute(self._q["pause"], {"key": key})

    async def resume(self, key: str) -> None:
        await self._database.execute(self._q["resume"], {"key": key})

    async def pin(self, key: str, pin: Pin) -> None:
        """Limits that messages do not change from now on; the rate window begins anew."""
        limits = {"parallelism": pin.parallelism, "rate": pin.rate, "period_seconds": pin.period_seconds}
        await self._database.execute(self._q["pin"], limits | {"key": key})

    async def unpin(self, key: str, unpin: Unpin) -> None:
        """What is unpinned stays as it is until the next message with the key."""
        parameters = {"key": key, "parallelism": unpin.parallelism, "rate": unpin.rate, "cooling": unpin.cooling}
        await self._database.execute(self._q["unpin"], parameters)

    async def reset_rate(self, key: str) -> None:
        """The rate window begins anew."""
        await self._database.execute(self._q["reset_rate"], {"key": key})

    async def set_cooling(self, key: str, enabled: bool) -> None:  # noqa: FBT001  one switch, named by the method
        """Whether a destination's wish to wait pauses the key, whatever its messages say, until it is unpinned.

        Turning it off ends a pause under way.
        """
        await self._database.execute(self._q["set_cooling"], {"key": key, "enabled": enabled})

    async def cooling_count(self) -> int:
        """How many keys are paused by their destination now."""
        [row] = await self._database.fetch(self._q["cooling_count"], {})
        return int(row["count"])

    async def all_calls(self) -> tuple[int, int]:
        """Calls under way, of all processes, with a key or without; and how many processes there are."""
        [row] = await self._database.fetch(self._q["all_calls"], {})
        return row["active"], row["processes"]

    async def _select(self, key: str | None, text: str) -> list[FlowView]:
        parameters = {"key": key, "text": text, "keys_max": KEYS_MAX}
        return [FlowView(**row) for row in await self._database.fetch(self._q["select"], parameters)]
