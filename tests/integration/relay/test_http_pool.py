"""The age of kept connections, and the memory of those with TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.relay.egress.http.faults import NotSentError
from services.relay.egress.http.pool import AGE_SECONDS, TLS_BYTES, Limits, Pool, Times
from services.relay.egress.http.proxy import proxy_of
from services.relay.egress.http.request import Origin
from services.relay.egress.http.tls import tls_context
from services.relay.memory.byte_budget import ByteBudget
from stack.ports import free_ports
from tests.certificates import authority
from tests.integration.relay.test_http_attempt import Proxy
from tests.integration.relay.test_http_client import OK, Client, Scripted, system_names

MEMORY = 10_000_000
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def on_loop(scenario: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await scenario

        return uvloop.run(bounded()) if request.param == "uvloop" else asyncio.run(bounded())

    return on_loop


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("age_seconds", "connections"), [(AGE_SECONDS, 1), (0.0, 3)])
def test_a_connection_is_kept_until_it_is_old(run: Run, age_seconds: float, connections: int) -> None:
    server = Scripted([OK] * 3)

    async def scenario() -> None:
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        pool = Pool(tls_context(None), system_names(), times=Times(age_seconds=age_seconds))
        client = Client(pool, Origin("http", "127.0.0.1", listening.sockets[0].getsockname()[1]))
        for _ in range(3):
            assert (await client.call()).body == b"ok"
        pool.close()
        listening.close()

    run(scenario())
    assert server.connections == connections


@pytest.mark.parametrize(("age_seconds", "moved"), [(AGE_SECONDS, False), (0.0, True)])
def test_a_name_with_a_new_address_is_followed_once_the_connection_is_old(
    run: Run, age_seconds: float, moved: bool
) -> None:
    before, after = Scripted([OK] * 2), Scripted([OK] * 2)
    addresses = ["127.0.0.1"]

    async def resolve(_: str) -> list[str]:
        return addresses

    async def scenario() -> None:
        [port] = free_ports(1)
        servers = [
            await asyncio.start_server(one, address, port)
            for one, address in ((before, "127.0.0.1"), (after, "127.0.0.2"))
        ]
        pool = Pool(tls_context(None), resolve, times=Times(age_seconds=age_seconds))
        client = Client(pool, Origin("http", "name.example", port))
        await client.call()
        addresses[:] = ["127.0.0.2"]
        await client.call()
        pool.close()
        for one in servers:
            one.close()

    run(scenario())
    assert (before.connections, after.connections) == (1, int(moved))


def test_connections_that_were_opened_together_do_not_end_together(run: Run) -> None:
    server = Scripted([OK] * 3)
    chances = iter([0.0, 0.5, 1.0])

    async def scenario() -> list[float]:
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        pool = Pool(tls_context(None), system_names(), times=Times(jitter=lambda: next(chances)))
        origin = Origin("http", "127.0.0.1", listening.sockets[0].getsockname()[1])
        now = asyncio.get_running_loop().time()
        opened = [await pool.connection(origin, 5, fresh=True) for _ in range(3)]
        for one in opened:
            one.abort()
        pool.close()
        listening.close()
        return [one.ends_at - now for one in opened]

    first, second, third = run(scenario())
    assert AGE_SECONDS / 2 < third < second < first < AGE_SECONDS + 20
    assert first - third > AGE_SECONDS / 10 - 20


def test_a_connection_over_tls_counts_until_it_is_closed(run: Run, tmp_path: Path) -> None:
    bundle, tls = authority(tmp_path)
    server, memory = Scripted([OK] * 2), ByteBudget(MEMORY)

    async def scenario() -> None:
        listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
        pool = Pool(tls_context(bundle), system_names(), limits=Limits(memory=memory))
        client = Client(pool, Origin("https", "127.0.0.1", listening.sockets[0].getsockname()[1]))
        for _ in range(2):
            await client.call()
            assert memory.left == MEMORY - TLS_BYTES, "also while it is kept"
        pool.close()
        await until(lambda: memory.left == MEMORY)
        listening.close()

    run(scenario())
    assert server.connections == 1


def test_a_connection_through_a_proxys_tunnel_counts_too(run: Run, tmp_path: Path) -> None:
    bundle, tls = authority(tmp_path, "provider.example")
    memory = ByteBudget(MEMORY)

    async def scenario() -> None:
        listening = await asyncio.start_server(Scripted([OK]), "127.0.0.1", 0, ssl=tls)
        between = await asyncio.start_server(Proxy(listening.sockets[0].getsockname()[1]).serve, "127.0.0.1", 0)
        proxy = proxy_of(f"http://127.0.0.1:{between.sockets[0].getsockname()[1]}")
        pool = Pool(tls_context(bundle), system_names(), proxy, limits=Limits(memory=memory))
        await Client(pool, Origin("https", "provider.example", 443)).call()
        assert memory.left == MEMORY - TLS_BYTES
        pool.close()
        await until(lambda: memory.left == MEMORY)
        listening.close()
        between.close()

    run(scenario())


def test_a_plain_connection_and_a_refused_one_do_not_count(run: Run, tmp_path: Path) -> None:
    _, tls = authority(tmp_path)
    memory = ByteBudget(MEMORY)

    async def scenario() -> None:
        plain = await asyncio.start_server(Scripted([OK]), "127.0.0.1", 0)
        unknown = await asyncio.start_server(Scripted([OK]), "127.0.0.1", 0, ssl=tls)
        pool = Pool(tls_context(None), system_names(), limits=Limits(memory=memory))
        await Client(pool, Origin("http", "127.0.0.1", plain.sockets[0].getsockname()[1])).call()
        with pytest.raises(NotSentError, match="certificate"):
            await Client(pool, Origin("https", "127.0.0.1", unknown.sockets[0].getsockname()[1])).call()
        assert memory.left == MEMORY
        pool.close()
        plain.close()
        unknown.close()

    run(scenario())
