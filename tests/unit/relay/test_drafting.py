"""From destinations to messages: one for a URL, and one for each endpoint of a group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from services.relay.api.drafting import Asked, Drafted, Drafter
from services.relay.message import Draft
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.views import EndpointView
from services.relay.store.topics import Topics


class Groups:
    """URL groups in memory; counts the lookups."""

    def __init__(self) -> None:
        self.lookups = 0

    async def expand(self, name: str) -> list[tuple[EndpointView, Mapping[str, str]]]:
        self.lookups += 1
        if name != "pair":
            return []
        defaults = {"upstash-retries": "7", "upstash-forward-x": "default"}
        return [(EndpointView("https://a.example", "a"), defaults), (EndpointView("https://b.example"), defaults)]


def drafted(
    address: str, options: Mapping[str, str] | None = None, *, body: bytes = b"", queue: str | None = None
) -> Drafted:
    drafter = Drafter(cast("Topics", Groups()), 1_700_000_000.0)
    return asyncio.run(drafter.draft(Asked(address, options or {}, body, "1.2.3.4", queue=queue)))


def test_a_url_is_one_message() -> None:
    answer = drafted("https://a.example/x?y=1", {"upstash-label": "l"}, body=b"b")
    [draft] = answer.drafts
    assert not answer.group
    assert (draft.url, draft.body, draft.labels, draft.caller_ip) == (
        "https://a.example/x?y=1",
        b"b",
        ("l",),
        "1.2.3.4",
    )
    assert (draft.topic, draft.queue) == (None, None)


def test_a_group_is_a_message_for_each_endpoint_and_the_senders_headers_override_the_groups() -> None:
    answer = drafted("pair", {"upstash-forward-x": "own"})
    assert answer.group
    assert [(d.url, d.endpoint, d.topic) for d in answer.drafts] == [
        ("https://a.example", "a", "pair"),
        ("https://b.example", None, "pair"),
    ]
    assert {d.retries_max for d in answer.drafts} == {7}
    assert {d.headers["X"] for d in answer.drafts} == {"own"}


def test_a_name_that_is_not_a_group_is_a_host_when_it_can_be_one() -> None:
    assert [draft.url for draft in drafted("my.app").drafts] == ["https://my.app"]
    with pytest.raises(InvalidRequestError, match="no URL group 'nothing'"):
        drafted("nothing")


def test_a_group_is_looked_up_once_for_a_batch() -> None:
    groups = Groups()
    drafter = Drafter(cast("Topics", groups), 0.0)

    async def twice() -> None:
        for _ in range(2):
            await drafter.draft(Asked("pair", {}, b"", ""))

    asyncio.run(twice())
    assert groups.lookups == 1


@pytest.mark.parametrize("option", [{"upstash-delay": "10s"}, {"upstash-not-before": "1800000000"}])
def test_a_delay_in_a_queue_is_refused_and_not_ignored(option: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="not supported on enqueue"):
        drafted("https://a.example", option, queue="q")


def test_a_cron_on_publish_is_refused_and_not_sent_at_once() -> None:
    with pytest.raises(InvalidRequestError, match="/v2/schedules"):
        drafted("https://a.example", {"upstash-cron": "* * * * *"})


@pytest.mark.parametrize("text", ["a\0b", "caf\ud800"])
@pytest.mark.parametrize(
    "option",
    [
        "upstash-label", "upstash-deduplication-id", "upstash-forward-x", "tidings-error-field", "tidings-final-error",
        "content-type", "upstash-callback-forward-x", "upstash-flow-control-key",
    ],
)  # fmt: skip
def test_a_value_that_the_database_cannot_hold_is_refused_before_it_fails_the_batch(option: str, text: str) -> None:
    others = {"upstash-callback": "https://c.example"}
    if option == "upstash-flow-control-key":
        others["upstash-flow-control-value"] = "rate=1"
    with pytest.raises(InvalidRequestError):
        drafted("https://a.example", others | {option: text})


def test_messages_of_a_batch_with_the_same_options_keep_their_own_address_and_body() -> None:
    drafter = Drafter(cast("Topics", Groups()), 1_700_000_000.0)
    options = {"upstash-label": "l", "content-type": "text/plain"}

    async def story() -> list[Drafted]:
        asked = [Asked(f"https://a.example/{n}", dict(options), b"%d" % n, "") for n in range(3)]
        return [await drafter.draft(one) for one in [*asked, Asked("https://a.example/o", {}, b"o", "")]]

    found = [draft for one in asyncio.run(story()) for draft in one.drafts]
    assert [(d.url, d.body, d.labels) for d in found] == [
        ("https://a.example/0", b"0", ("l",)),
        ("https://a.example/1", b"1", ("l",)),
        ("https://a.example/2", b"2", ("l",)),
        ("https://a.example/o", b"o", ()),
    ]


def test_content_is_compared_for_each_message_of_a_batch() -> None:
    drafter = Drafter(cast("Topics", Groups()), 1_700_000_000.0)

    async def story() -> list[Drafted]:
        options = {"upstash-content-based-deduplication": "true"}
        return [await drafter.draft(Asked("https://a.example/", options, body, "")) for body in (b"1", b"2", b"1")]

    first, second, third = (one.drafts[0].deduplication_id for one in asyncio.run(story()))
    assert first == third != second


def test_a_copy_for_another_destination_differs_only_in_address_and_body() -> None:
    first = Draft(url="https://a.example", method="PUT", headers={"X": "y"}, body=b"1", labels=("l",), retries_max=7)
    other = first.sent_to("https://b.example", b"2")
    assert other == replace(first, url="https://b.example", body=b"2")
    assert (first.url, first.body) == ("https://a.example", b"1")
