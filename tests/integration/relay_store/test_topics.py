"""URL groups on a real database."""

from __future__ import annotations

from services.relay.protocol.views import EndpointView
from tests.integration.relay_store.conftest import Run, Stores

A = EndpointView("https://a.example", "a")
B = EndpointView("https://b.example", "b")
C = EndpointView("https://c.example")


def test_endpoints_are_added_and_removed_by_url_or_name_and_the_group_with_the_last(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.topics.add_endpoints("g", [A, B])
        await stores.topics.add_endpoints("g", [C])
        group = await stores.topics.get("g")
        assert group is not None
        assert group.endpoints == (A, B, C)
        assert await stores.topics.remove_endpoints("g", [EndpointView("", "a"), EndpointView(C.url)])
        assert [one.endpoints for one in await stores.topics.all()] == [(B,)]
        assert await stores.topics.remove_endpoints("g", [B])
        assert await stores.topics.get("g") is None
        assert not await stores.topics.remove_endpoints("g", [B])

    run(story)


def test_names_may_move_between_urls(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.topics.add_endpoints("g", [A, B])
        await stores.topics.add_endpoints("g", [EndpointView(A.url, "b"), EndpointView(B.url, "a")])
        group = await stores.topics.get("g")
        assert group is not None
        assert set(group.endpoints) == {EndpointView(A.url, "b"), EndpointView(B.url, "a")}
        await stores.topics.add_endpoints("g", [EndpointView("https://new.example", "a")])
        after = await stores.topics.get("g")
        assert after is not None
        assert set(after.endpoints) == {EndpointView(A.url, "b"), EndpointView("https://new.example", "a")}

    run(story)


def test_default_headers_are_sealed_and_returned_with_each_endpoint(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.topics.add_endpoints("g", [A, C])
        await stores.topics.set_headers("g", {"Upstash-Forward-Authorization": "Bearer very-secret"})
        expanded = await stores.topics.expand("g")
        assert [endpoint for endpoint, _ in expanded] == [A, C]
        assert all(headers == {"Upstash-Forward-Authorization": "Bearer very-secret"} for _, headers in expanded)
        [row] = await stores.rows("SELECT sealed FROM relay.topics")
        assert b"very-secret" not in row["sealed"]
        await stores.topics.add_endpoints("g", [B])
        assert len(await stores.topics.expand("g")) == 3
        assert await stores.topics.expand("nobody") == []

    run(story)


def test_deleting_an_unknown_group_is_not_an_error(run: Run) -> None:
    async def story(stores: Stores) -> None:
        assert not await stores.topics.delete("g")
        await stores.topics.add_endpoints("g", [A])
        assert await stores.topics.delete("g")
        assert await stores.topics.all() == []

    run(story)
