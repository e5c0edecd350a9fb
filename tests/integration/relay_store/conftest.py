"""The relay's stores on a real database of its own, without a relay process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr

from services.relay.ending import ending_of
from services.relay.message import Claimed, Draft
from services.relay.options import OPTION_NAMES, Options
from services.relay.outcome.outcome import Answer
from services.relay.schema import create_schema
from services.relay.settings import RelaySettings
from services.relay.store.claims import Claims
from services.relay.store.database import Database
from services.relay.store.dead_letters import DeadLetters
from services.relay.store.encryption import Encryption
from services.relay.store.events import Events
from services.relay.store.flow_keys import FlowKeys
from services.relay.store.message_views import MessageViews
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from services.relay.store.queues import Queues
from services.relay.store.schedules import Schedules
from services.relay.store.tokens import Tokens
from services.relay.store.topics import Topics
from tests.infra.postgres import PostgresServer

T = TypeVar("T")
OWNER = UUID(int=1)
OTHER = UUID(int=3)


class Stores:
    """All stores on one pool, and the steps of a relay's work."""

    def __init__(self, database: Database, encryption: Encryption) -> None:
        self.database = database
        self.encryption = encryption
        self.messages = Messages(database, encryption, owner=OWNER)
        self.claims = Claims(database, encryption, owner=OWNER)
        self.processes = Processes(database, owner=OWNER)
        self.other = Claims(database, encryption, owner=OTHER)
        self.flow_keys = FlowKeys(database)
        self.topics = Topics(database, encryption)
        self.schedules = Schedules(database, encryption, self.messages, self.topics)
        # The keys of stored bodies that dead letters and queues no longer refer to.
        self.discarded: list[str] = []
        self.queues = Queues(database, discard=self.discarded.extend)
        self.dead_letters = DeadLetters(database, encryption, self.messages, discard=self.discarded.extend)
        self.events = Events(database, encryption)
        self.views = MessageViews(database, encryption)
        self.tokens = Tokens(database)

    async def accept(self, *drafts: Draft) -> list[str]:
        return [one.message_id for one in await self.messages.accept(drafts, 600)]

    async def claim(self, batch_max: int = 100) -> list[Claimed]:
        await self.processes.renew(60)
        return [*await self.messages.claim(batch_max), *await self.messages.claim_keyed(batch_max)]

    async def finish(self, claimed: list[Claimed], status: int = 200, body: bytes = b"", *, final: bool = False) -> int:
        answer = Answer(status, (("X-Answer", "yes"),), body)
        endings = [ending_of(one, answer, datetime.now(UTC), final=final) for one in claimed]
        return len(await self.messages.finish(endings))

    async def expire(self) -> int:
        """Another process recovers the claims of dead ones; return their number."""
        await Processes(self.database, owner=OTHER).renew(60)
        return await self.other.expire(10)

    async def rows(self, statement: Any, **parameters: Any) -> list[dict[str, Any]]:
        return await self.database.fetch(statement, parameters)

    async def states(self) -> dict[str, str]:
        return {row["id"]: row["state"] for row in await self.rows("SELECT id, state FROM relay.messages")}


Run = Callable[[Callable[[Stores], Awaitable[Any]]], None]


@pytest.fixture(scope="session")
def relay_template(postgres: PostgresServer) -> Iterator[str]:
    """A template database with the relay's schema."""
    with postgres.database(template="template1") as name:
        create_schema(postgres.url(name))
        yield name


@pytest.fixture
def relay_url(postgres: PostgresServer, relay_template: str) -> Iterator[str]:
    with postgres.database(template=relay_template) as name:
        yield postgres.url(name)


@pytest.fixture
def run(relay_url: str) -> Run:
    """Run a coroutine function with the stores."""

    def runner(story: Callable[[Stores], Awaitable[Any]]) -> None:
        async def main() -> None:
            async with AsyncConnectionPool(relay_url, min_size=1, max_size=6, timeout=10, open=False) as pool:
                await story(Stores(Database(pool), Encryption(Fernet.generate_key().decode())))

        asyncio.run(main())

    return runner


@pytest.fixture
def administrator(relay_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A separate connection, in autocommit."""
    with psycopg.connect(relay_url, autocommit=True) as connection:
        yield connection


def draft(**changes: Any) -> Draft:
    """A draft; `changes` are fields of `Draft` or of its `Options`."""
    options = Options(**{name: changes.pop(name) for name in OPTION_NAMES & changes.keys()})
    given: dict[str, Any] = {
        "url": "https://example.com/path?q=1",
        "method": "POST",
        "headers": {},
        "body": b"{}",
        "options": options,
    }
    return Draft(**given | changes)


def settings(**changes: Any) -> RelaySettings:
    """The stores of a relay that deletes messages at their end."""
    given: dict[str, Any] = {
        "database_url": SecretStr("postgresql://unused"), "token": SecretStr("unused"),
        "current_signing_key": SecretStr("unused"), "next_signing_key": SecretStr("unused"),
        "encryption_keys": SecretStr("unused"), "keep_seconds": 0.0,
    }  # fmt: skip
    return RelaySettings(**(given | changes))


def later(**amount: float) -> datetime:
    return datetime.now(UTC) + timedelta(**amount)
