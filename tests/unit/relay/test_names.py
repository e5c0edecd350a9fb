"""Lookups of names are shared and bounded, and failures are cached for seconds."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.relay.egress.http.resolving import FAILURE_SECONDS, FAILURES_MAX, Names


@dataclass
class NameServers:
    """Answers when the test tells it to. `now` is the time of the clock."""

    now: float = 100.0
    asked: list[str] = field(default_factory=list)
    answers: list[Sequence[str] | OSError] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        await self.go.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def story(work: Callable[[NameServers, Names], Awaitable[Any]]) -> Any:
    async def scenario() -> Any:
        servers = NameServers()
        return await asyncio.wait_for(work(servers, Names(servers, lambda: servers.now)), 20)

    return asyncio.run(scenario())


def unknown() -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_an_ip_address_needs_no_lookup() -> None:
    async def work(servers: NameServers, names: Names) -> None:
        assert [*await names("127.0.0.1"), *await names("::0001")] == ["127.0.0.1", "::1"]
        assert servers.asked == []

    story(work)


def test_calls_to_one_name_share_a_lookup_and_calls_to_others_do_not_wait_for_it() -> None:
    async def work(servers: NameServers, names: Names) -> None:
        dead = [asyncio.create_task(names("dead.example")) for _ in range(700)]
        well = asyncio.create_task(names("well.example"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert servers.asked == ["dead.example", "well.example"]
        servers.answers = [unknown(), ["192.0.2.1"]]
        servers.go.set()
        assert await well == ["192.0.2.1"]
        found = await asyncio.gather(*dead, return_exceptions=True)
        assert {str(one) for one in found} == {str(unknown())}

    story(work)


def test_a_lookup_continues_for_the_others_when_one_caller_gives_up() -> None:
    async def work(servers: NameServers, names: Names) -> None:
        first, second = asyncio.create_task(names("slow.example")), asyncio.create_task(names("slow.example"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        # A later call joins it, so retries of a name that does not resolve do not accumulate.
        third = asyncio.create_task(names("slow.example"))
        servers.answers = [["192.0.2.1"]]
        servers.go.set()
        assert [await second, await third] == [["192.0.2.1"]] * 2
        assert servers.asked == ["slow.example"]

    story(work)


def test_a_failure_is_cached_for_seconds_and_an_address_is_not() -> None:
    async def work(servers: NameServers, names: Names) -> None:
        servers.go.set()
        servers.answers = [unknown(), ["192.0.2.1"], ["192.0.2.2"]]
        for _ in range(2):
            with pytest.raises(socket.gaierror, match="not known"):
                await names("new.example")
        assert len(servers.asked) == 1
        servers.now += FAILURE_SECONDS
        assert [await names("new.example"), await names("new.example")] == [["192.0.2.1"], ["192.0.2.2"]]

    story(work)


def test_a_fault_of_this_machine_is_not_cached_for_the_name() -> None:
    async def work(servers: NameServers, names: Names) -> None:
        servers.go.set()
        servers.answers = [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ["192.0.2.1"]]
        with pytest.raises(OSError, match="Too many open files") as raised:
            await names("well.example")
        assert raised.value.errno == errno.EMFILE
        assert await names("well.example") == ["192.0.2.1"]

    story(work)


def test_the_number_of_cached_failures_is_limited() -> None:
    async def work(servers: NameServers, names: Names) -> None:
        servers.go.set()
        servers.answers = [unknown() for _ in range(FAILURES_MAX + 2)]
        for number in [*range(FAILURES_MAX + 1), 0]:
            with pytest.raises(socket.gaierror):
                await names(f"dead-{number}.example")
        assert servers.answers == []

    story(work)
