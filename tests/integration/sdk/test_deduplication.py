"""Deduplication as the client shows it: by id and by content."""

from __future__ import annotations

import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.message import BatchResponse, PublishResponse

from tests.destination import Destination
from tests.integration.sdk.seen import delivered


def publish(client: QStash, url: str, body: str = "x", **options: object) -> PublishResponse:
    answer = client.message.publish(url=url, body=body, **options)  # type: ignore[arg-type]
    assert isinstance(answer, PublishResponse)
    return answer


def test_the_same_id_is_the_same_message(client: QStash, site: Destination) -> None:
    first = publish(client, site.url, deduplication_id="once")
    second = publish(client, site.url, "other body", deduplication_id="once")
    other = publish(client, site.url, deduplication_id="other")
    assert (first.deduplicated, second.deduplicated, other.deduplicated) == (False, True, False)
    assert first.message_id == second.message_id != other.message_id
    for message_id in (first.message_id, other.message_id):
        delivered(client, message_id)
    assert len(site.received) == 2


def test_the_same_content_is_the_same_message(client: QStash, site: Destination) -> None:
    first = publish(client, site.url, content_based_deduplication=True, headers={"a": "b"})
    same = publish(client, site.url, content_based_deduplication=True, headers={"a": "b"})
    assert (same.deduplicated, same.message_id) == (True, first.message_id)
    for url, body, headers in (
        (site.url, "y", {"a": "b"}),
        (f"{site.url}/other", "x", {"a": "b"}),
        (site.url, "x", {"a": "c"}),
    ):
        assert not publish(client, url, body, content_based_deduplication=True, headers=headers).deduplicated
    assert not publish(client, site.url, content_based_deduplication=False, headers={"a": "b"}).deduplicated


def test_duplicates_within_a_batch_and_after_it(client: QStash, site: Destination) -> None:
    answers = client.message.batch([{"url": site.url, "body": "x", "deduplication_id": "once"} for _ in range(2)])
    first, second = answers
    assert isinstance(first, BatchResponse)
    assert isinstance(second, BatchResponse)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert first.message_id == second.message_id == publish(client, site.url, deduplication_id="once").message_id
    delivered(client, first.message_id)
    assert len(site.received) == 1


@pytest.mark.parametrize("identity", ["with:colon"])
def test_a_faulty_id_is_refused(client: QStash, identity: str) -> None:
    with pytest.raises(QStashError, match="cannot contain ':'"):
        publish(client, "https://example.com", deduplication_id=identity)
