"""Schedules, and their firing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from psycopg import AsyncConnection

from services.relay.message import Draft
from services.relay.store.database import Database
from services.relay.store.topics import Topics
from services.relay.vault import Vault
from services.relay.wire.schedule import ScheduleDraft
from services.relay.wire.views import ScheduleView


class Schedules:
    """Schedules as stored; `fire_once` publishes what is due."""

    def __init__(self, database: Database, vault: Vault, messages: Any, topics: Topics) -> None:
        self._database = database
        self._vault = vault
        self._messages = messages
        self._topics = topics

    async def upsert(self, draft: ScheduleDraft, now: datetime) -> None:
        """Make the schedule or replace it; it fires next after `now`."""
        raise NotImplementedError

    async def get(self, schedule_id: str) -> ScheduleView | None:
        raise NotImplementedError

    async def all(self) -> list[ScheduleView]:
        """The oldest first."""
        raise NotImplementedError

    async def delete(self, schedule_id: str) -> bool:
        """Was it there? Its messages go on."""
        raise NotImplementedError

    async def pause(self, schedule_id: str) -> bool:
        """Was it there?"""
        raise NotImplementedError

    async def resume(self, schedule_id: str, now: datetime) -> bool:
        """It fires next after `now`: times missed meanwhile are not made up for. Was it there?"""
        raise NotImplementedError

    async def fire_once(self, batch_max: int, now: datetime) -> int:
        """Publish the messages of up to `batch_max` due schedules; how many schedules that were."""
        raise NotImplementedError

    async def seconds_to_next(self, now: datetime) -> float | None:
        """Until the next firing, at least 0; None: nothing is scheduled."""
        raise NotImplementedError
