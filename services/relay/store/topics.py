"""URL groups (topics, in the protocol's first version): their endpoints and default headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from services.relay.store.database import Database
from services.relay.vault import Vault
from services.relay.wire.views import EndpointView, TopicView


class Topics:
    """Groups with their endpoints. A group is there as long as it has an endpoint or default headers."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def add_endpoints(self, name: str, endpoints: Sequence[EndpointView]) -> None:
        """Add to the group, made when unknown. A URL that is there gets the name; a name that is there gets the URL."""
        raise NotImplementedError

    async def remove_endpoints(self, name: str, endpoints: Sequence[EndpointView]) -> bool:
        """Remove by URL or by name (an empty `url` matches by name alone); the group goes with its last endpoint. Was the group there?"""
        raise NotImplementedError

    async def set_headers(self, name: str, headers: Mapping[str, str]) -> None:
        """Replace the group's default headers; an unknown group is made."""
        raise NotImplementedError

    async def get(self, name: str) -> TopicView | None:
        """Raises `UnreadableError`."""
        raise NotImplementedError

    async def all(self) -> list[TopicView]:
        """By name. Raises `UnreadableError`."""
        raise NotImplementedError

    async def delete(self, name: str) -> bool:
        """Was it there?"""
        raise NotImplementedError

    async def expand(self, name: str) -> list[tuple[EndpointView, Mapping[str, str]]]:
        """Each endpoint with the group's default headers (lower-case names); empty when unknown. Raises `UnreadableError`."""
        return await self._database.run(lambda connection: self.expand_in(connection, name))

    async def expand_in(
        self, connection: AsyncConnection[Any], name: str
    ) -> list[tuple[EndpointView, Mapping[str, str]]]:
        """`expand` within a transaction."""
        raise NotImplementedError
