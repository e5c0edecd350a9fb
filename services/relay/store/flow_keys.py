"""Flow-control keys: the usage of their limits, pausing and pinning."""

from __future__ import annotations

from services.relay.protocol.flow import Pin, Unpin
from services.relay.protocol.views import FlowView
from services.relay.store.database import Database, queries

# The most keys of one answer. A client with more keys searches by a part of their names.
KEYS_MAX = 1000


class FlowKeys:
    """All access to relay.flow_keys except claims under a key's lock. Every change creates a key that is unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("flow_keys")

    async def search(self, text: str = "") -> list[FlowView]:
        """The keys whose names contain `text` (all when empty), by name, at most KEYS_MAX."""
        return await self._select(None, text)

    async def get(self, key: str) -> FlowView | None:
        found = await self._select(key, "")
        return found[0] if found else None

    async def pause(self, key: str) -> None:
        """Start no further call with the key. Its rate window continues."""
        await self._database.execute(self._q["pause"], {"key": key})

    async def resume(self, key: str) -> None:
        await self._database.execute(self._q["resume"], {"key": key})

    async def pin(self, key: str, pin: Pin) -> None:
        """Set limits that messages do not change from now on. The rate window restarts."""
        limits = {"parallelism": pin.parallelism, "rate": pin.rate, "period_seconds": pin.period_seconds}
        await self._database.execute(self._q["pin"], limits | {"key": key})

    async def unpin(self, key: str, unpin: Unpin) -> None:
        """Remove the pin. The limits stay as they are until the next message with the key."""
        parameters = {"key": key, "parallelism": unpin.parallelism, "rate": unpin.rate, "cooling": unpin.cooling}
        await self._database.execute(self._q["unpin"], parameters)

    async def reset_rate(self, key: str) -> None:
        """Restart the rate window."""
        await self._database.execute(self._q["reset_rate"], {"key": key})

    async def set_cooling(self, key: str, enabled: bool) -> None:  # noqa: FBT001  one switch, named by the method
        """Set whether a destination's request to wait pauses the key, whatever its messages say, until it is unpinned.

        Turning it off ends a pause in progress.
        """
        await self._database.execute(self._q["set_cooling"], {"key": key, "enabled": enabled})

    async def all_calls(self) -> tuple[int, int]:
        """The calls in flight of all processes, with or without a key, and the number of processes."""
        [row] = await self._database.fetch(self._q["all_calls"], {})
        return row["active"], row["processes"]

    async def _select(self, key: str | None, text: str) -> list[FlowView]:
        parameters = {"key": key, "text": text, "keys_max": KEYS_MAX}
        return [FlowView(**row) for row in await self._database.fetch(self._q["select"], parameters)]
