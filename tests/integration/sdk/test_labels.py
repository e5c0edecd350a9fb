"""Labels: one or several, shown and filtered by on all routes."""

from __future__ import annotations

from qstash import QStash

from tests.destination import Destination
from tests.integration.sdk.seen import buried, delivered, sent


def test_a_label_is_shown_by_message_log_and_dead_letter(client: QStash, site: Destination) -> None:
    fine = sent(client.message.publish_json(url=site.url, body={}, label="mine"))
    failing = sent(client.message.publish(url=f"{site.url}/404", retries=0, label="mine"))
    assert client.message.get(fine).label == "mine"
    assert delivered(client, fine).label == "mine"
    assert buried(client, failing).label == "mine"
    rows = client.log.list(filter={"label": "mine"}).logs
    assert {row.message_id for row in rows} == {fine, failing}
    assert {row.label for row in rows} == {"mine"}
    assert client.log.list(filter={"label": "other"}).logs == []


def test_each_of_several_labels_finds_the_message_and_the_first_is_shown(client: QStash) -> None:
    both = sent(client.message.publish(url="https://example.com", delay="1h", label="a,b"))
    second = sent(client.message.publish(url="https://example.com", delay="1h", label="b"))
    assert client.message.get(both).label == "a"

    def found(label: str) -> set[str]:
        return {row.message_id for row in client.log.list(filter={"label": label}).logs}

    assert [found(label) for label in ("a", "b", "a,b")] == [{both}, {both, second}, {both, second}]
    raw = client.http.request(path=f"/v2/messages/{both}", method="GET")
    assert (raw["label"], raw["labels"]) == ("a", ["a", "b"])
