"""`client.url_group`: endpoints, default headers, and one message for every endpoint."""

from __future__ import annotations

import json

import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.message import PublishUrlGroupResponse

from tests.destination import Destination
from tests.integration.sdk.seen import delivered


def endpoints(client: QStash, group: str) -> dict[str, str | None]:
    return {endpoint.url: endpoint.name for endpoint in client.url_group.get(group).endpoints}


def test_a_group_from_creation_to_deletion(client: QStash) -> None:
    client.url_group.delete("group")
    client.url_group.upsert_endpoints(
        "group", [{"url": "https://a.example"}, {"url": "https://b.example", "name": "b"}]
    )
    assert endpoints(client, "group") == {"https://a.example": None, "https://b.example": "b"}
    found = client.url_group.get("group")
    assert (found.name, 0 < found.created_at <= found.updated_at) == ("group", True)
    assert [group.name for group in client.url_group.list()] == ["group"]
    client.url_group.delete("group")
    assert client.url_group.list() == []
    with pytest.raises(QStashError, match="404"):
        client.url_group.get("group")


def test_endpoints_are_added_and_updated(client: QStash) -> None:
    client.url_group.upsert_endpoints("group", [{"url": "https://a.example", "name": "a"}])
    client.url_group.upsert_endpoints("group", [{"url": "https://b.example", "name": "b"}])
    client.url_group.upsert_endpoints("group", [{"url": "https://new.example", "name": "a"}])
    assert endpoints(client, "group") == {"https://new.example": "a", "https://b.example": "b"}
    client.url_group.upsert_endpoints("group", [{"url": "https://b.example", "name": "c"}])
    assert endpoints(client, "group") == {"https://new.example": "a", "https://b.example": "c"}


def test_endpoints_are_removed_by_address_or_name_and_with_the_last_the_group(client: QStash) -> None:
    urls = {name: f"https://{name}.example" for name in "abc"}
    client.url_group.upsert_endpoints("group", [{"url": url, "name": name} for name, url in urls.items()])
    client.url_group.remove_endpoints("group", [{"url": urls["a"]}])
    assert set(endpoints(client, "group")) == {urls["b"], urls["c"]}
    client.url_group.remove_endpoints("group", [{"name": "b"}])
    assert set(endpoints(client, "group")) == {urls["c"]}
    client.url_group.remove_endpoints("group", [{"url": urls["c"]}])
    with pytest.raises(QStashError, match="404"):
        client.url_group.get("group")


def test_a_message_goes_to_every_endpoint(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints(
        "group", [{"url": f"{site.url}/200", "name": "first"}, {"url": f"{site.url}/201"}]
    )
    answers = client.message.publish(url_group="group", body="text", headers={"test-header": "v"})
    assert isinstance(answers, list)
    assert all(isinstance(answer, PublishUrlGroupResponse) for answer in answers)
    assert {answer.url for answer in answers} == {f"{site.url}/200", f"{site.url}/201"}
    assert len({answer.message_id for answer in answers}) == 2
    for answer in answers:
        row = delivered(client, answer.message_id)
        message = client.message.get(answer.message_id)
        assert (row.url_group, message.url_group, message.url) == ("group", "group", answer.url)
        assert row.endpoint == message.endpoint == ("first" if answer.url.endswith("/200") else None)
    assert sorted((received.path, received.body) for received in site.received) == [
        ("/200", b"text"),
        ("/201", b"text"),
    ]
    assert {received.headers["Upstash-Topic-Name"] for received in site.received} == {"group"}
    assert {received.headers["Test-Header"] for received in site.received} == {"v"}


def test_default_headers_apply_where_the_message_has_none(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints("group", [{"url": site.url}])
    # The client has no method for this route: its transport sends the request of the documentation.
    client.http.request(
        path="/v2/topics/group",
        method="PATCH",
        headers={"Content-Type": "application/json"},
        body=json.dumps({"headers": {"Upstash-Retries": "7", "Upstash-Forward-Default": ["from-group"]}}),
        parse_response=False,
    )
    [plain] = client.message.publish(url_group="group")  # type: ignore[misc]
    [own] = client.message.publish(url_group="group", retries=1, headers={"default": "own"})  # type: ignore[misc]
    delivered(client, plain.message_id)
    delivered(client, own.message_id)
    assert [client.message.get(item.message_id).max_retries for item in (plain, own)] == [7, 1]
    by_id = {received.headers["Upstash-Message-Id"]: received.headers["Default"] for received in site.received}
    assert by_id == {plain.message_id: "from-group", own.message_id: "own"}


def test_a_group_that_does_not_exist_is_refused(client: QStash) -> None:
    with pytest.raises(QStashError, match=r"40[04]"):
        client.message.publish(url_group="unknown", body="x")
