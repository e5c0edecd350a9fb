"""URL groups (topics, in the protocol's first version): their endpoints and default headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cryptography.fernet import InvalidToken
from psycopg import AsyncConnection

from services.relay.protocol.address import encoded
from services.relay.protocol.views import EndpointView, TopicView
from services.relay.store.database import Database, Row, queries, rows
from services.relay.store.encryption import Encryption
from services.relay.store.sealing import UnreadableError


class Topics:
    """Groups with their endpoints. A group is removed with its last endpoint."""

    def __init__(self, database: Database, encryption: Encryption) -> None:
        self._database = database
        self._encryption = encryption
        self._q = queries("topics")

    async def make(self, name: str) -> None:
        """Create a group without endpoints, unless it exists."""
        await self._database.execute(self._q["make"], {"name": name, "sealed": self._encryption.seal({"headers": {}})})

    async def rename(self, name: str, new_name: str) -> bool:
        """Rename the group, with its endpoints and headers. False when `name` is unknown, or
        `new_name` exists already.
        """
        names = {"name": name, "new_name": new_name}

        async def work(connection: AsyncConnection[Any]) -> bool:
            if (await connection.execute(self._q["make_as"], names)).rowcount == 0:
                return False
            await connection.execute(self._q["follow"], names)
            await connection.execute(self._q["delete"], {"name": name})
            return True

        return await self._database.run(work)

    async def add_endpoints(self, name: str, endpoints: Sequence[EndpointView]) -> None:
        """Add to the group, which is created when unknown. A URL that exists gets the name; a name that exists gets the
        URL.
        """
        by_url = {endpoint.url: endpoint.name for endpoint in endpoints}
        parameters = {
            "name": name,
            "sealed": self._encryption.seal({"headers": {}}),
            "urls": list(by_url),
            "endpoint_names": list(by_url.values()),
            "names": [name for name in by_url.values() if name is not None],
        }

        async def work(connection: AsyncConnection[Any]) -> None:
            for statement in ("make", "free_names", "unname", "add"):
                await connection.execute(self._q[statement], parameters)

        await self._database.run(work)

    async def remove_endpoints(self, name: str, endpoints: Sequence[EndpointView]) -> bool:
        """Remove endpoints by URL, or by name where the URL is empty. The group is removed with its last endpoint.

        Returns whether the group existed.
        """
        parameters = {
            "name": name,
            "urls": [endpoint.url for endpoint in endpoints if endpoint.url],
            "names": [endpoint.name for endpoint in endpoints if endpoint.name and not endpoint.url],
        }

        async def work(connection: AsyncConnection[Any]) -> bool:
            if not await rows(connection, self._q["lock"], {"name": name}):
                return False
            for statement in ("remove", "changed", "delete_empty"):
                await connection.execute(self._q[statement], parameters)
            return True

        return await self._database.run(work)

    async def set_headers(self, name: str, headers: Mapping[str, str]) -> None:
        """Replace the group's default headers. An unknown group is created."""
        sealed = self._encryption.seal({"headers": dict(headers)})
        await self._database.execute(self._q["set_headers"], {"name": name, "sealed": sealed})

    async def get(self, name: str) -> TopicView | None:
        """The group, or None. Raises `UnreadableError`."""
        found = await self._database.fetch(self._q["select"], {"name": name})
        return self._view(found[0]) if found else None

    async def all(self) -> list[TopicView]:
        """All groups, by name. Raises `UnreadableError`."""
        return [self._view(row) for row in await self._database.fetch(self._q["select"], {"name": None})]

    async def delete(self, name: str) -> bool:
        """Remove the group. Returns whether it existed."""
        return await self._database.execute(self._q["delete"], {"name": name}) == 1

    async def expand(self, name: str) -> list[tuple[EndpointView, Mapping[str, str]]]:
        """Each endpoint with the group's default headers; empty when unknown. Raises `UnreadableError`."""
        return await self._database.run(lambda connection: self.expand_in(connection, name))

    async def expand_in(
        self, connection: AsyncConnection[Any], name: str
    ) -> list[tuple[EndpointView, Mapping[str, str]]]:
        """`expand` within a transaction."""
        found = await rows(connection, self._q["select"], {"name": name})
        view = self._view(found[0]) if found else None
        # An older group may have addresses that were stored unencoded.
        return [] if view is None else [(replace(one, url=encoded(one.url)), view.headers) for one in view.endpoints]

    def _view(self, row: Row) -> TopicView:
        try:
            headers = self._encryption.open(row["sealed"])["headers"]
        except InvalidToken:
            raise UnreadableError(f"URL group {row['name']}: its key is not in RELAY_ENCRYPTION_KEYS") from None
        endpoints = tuple(EndpointView(url, name) for url, name in zip(row["urls"], row["names"], strict=True))
        return TopicView(row["name"], row["created_at"], row["updated_at"], endpoints, headers)
