"""`client.message`: publish, get and cancel."""

from __future__ import annotations

import json
import time

import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.log import LogState
from qstash.message import FlowControlProperties

from tests.destination import Destination, Reply
from tests.integration.relay.conftest import TOKEN, Relay
from tests.integration.sdk.seen import buried, delivered, sent, states
from tests.wait import until


def test_a_published_message_arrives_as_it_was_sent(client: QStash, site: Destination) -> None:
    answer = client.message.publish(url=f"{site.url}/a?b=c", body="text", headers={"test-header": "v", "other": "w"})
    message_id = sent(answer)
    delivered(client, message_id)
    [received] = site.received
    assert (received.method, received.path, received.body) == ("POST", "/a?b=c", b"text")
    assert (received.headers["Test-Header"], received.headers["Other"]) == ("v", "w")
    assert received.headers["User-Agent"] == "Upstash-QStash"
    assert received.headers["Upstash-Message-Id"] == message_id
    assert received.headers["Upstash-Retried"] == "0"


def test_json_is_serialised_and_typed(client: QStash, site: Destination) -> None:
    delivered(client, sent(client.message.publish_json(url=site.url, body={"key": "välue"})))
    [received] = site.received
    assert json.loads(received.body) == {"key": "välue"}
    assert received.headers["Content-Type"] == "application/json"


def test_bytes_are_sent_unchanged(client: QStash, site: Destination) -> None:
    body = bytes(range(256))
    message_id = sent(client.message.publish(url=site.url, body=body, content_type="application/octet-stream"))
    delivered(client, message_id)
    assert site.received[0].body == body
    message = client.message.get(message_id)
    assert message.body is None
    assert message.body_base64 is not None


def test_a_content_type_among_the_headers_takes_precedence(client: QStash, site: Destination) -> None:
    delivered(client, sent(client.message.publish_json(url=site.url, body={}, headers={"content-type": "text/plain"})))
    assert site.received[0].headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_every_method_is_used_and_carries_the_body(client: QStash, site: Destination, method: str) -> None:
    delivered(client, sent(client.message.publish(url=site.url, body="x", method=method)))  # type: ignore[arg-type]
    assert [(received.method, received.body) for received in site.received] == [(method, b"x")]


def test_get_shows_the_options_of_the_message(client: QStash) -> None:
    message_id = sent(
        client.message.publish(
            url="https://example.com/work",
            body="text",
            content_type="text/plain",
            method="PUT",
            headers={"test-header": "v", "Upstash-Forward-bypass-tunnel-reminder": "w"},
            callback="https://example.com/callback?foo=bar",
            failure_callback="https://example.com/failure?bar=baz",
            callback_headers={"Forward-Of": "callback"},
            failure_callback_headers={"Forward-Of": "failure"},
            retries=5,
            retry_delay="1000 * (1 + retried)",
            delay="1h",
            timeout=90,
            label="one",
            flow_control={"key": "flow-key", "parallelism": 3, "rate": 4, "period": 2},
        )
    )
    message = client.message.get(message_id)
    assert (message.message_id, message.url, message.method) == (message_id, "https://example.com/work", "PUT")
    assert message.headers == {
        "Bypass-Tunnel-Reminder": ["w"],
        "Content-Type": ["text/plain"],
        "Test-Header": ["v"],
    }
    assert (message.body, message.body_base64) == ("text", None)
    assert message.callback == "https://example.com/callback?foo=bar"
    assert message.failure_callback == "https://example.com/failure?bar=baz"
    assert message.callback_headers == {"Of": ["callback"]}
    assert message.failure_callback_headers == {"Of": ["failure"]}
    assert (message.max_retries, message.retry_delay_expression) == (5, "1000 * (1 + retried)")
    assert message.label == "one"
    assert message.caller_ip == "127.0.0.1"
    assert message.flow_control == FlowControlProperties("flow-key", parallelism=3, rate=4, period=2)
    assert (message.queue, message.url_group, message.endpoint, message.schedule_id) == (None, None, None, None)


def test_options_that_were_not_given_are_absent(client: QStash) -> None:
    message = client.message.get(sent(client.message.publish(url="https://example.com", delay=60)))
    assert (message.method, message.max_retries) == ("POST", 3)
    assert (message.callback, message.failure_callback) == (None, None)
    assert (message.flow_control, message.label, message.retry_delay_expression) == (None, None, None)


def test_delays_and_times_are_obeyed(client: QStash) -> None:
    now_ms = time.time() * 1000
    delayed = client.message.get(sent(client.message.publish(url="https://example.com", delay="1d10h30m")))
    assert delayed.not_before - delayed.created_at == pytest.approx(124_200_000, abs=2_000)
    assert delayed.created_at == pytest.approx(now_ms, abs=60_000)
    at_seconds = int(time.time()) + 3600
    placed = client.message.get(sent(client.message.publish(url="https://example.com", not_before=at_seconds, delay=1)))
    assert placed.not_before == pytest.approx(at_seconds * 1000, abs=2_000)


def test_a_delayed_message_arrives_after_its_delay(client: QStash, site: Destination) -> None:
    started = time.monotonic()
    delivered(client, sent(client.message.publish(url=site.url, delay=1)))
    assert site.received[0].at - started >= 1


def test_a_delivered_message_can_still_be_read(client: QStash, site: Destination) -> None:
    message_id = sent(client.message.publish(url=site.url))
    delivered(client, message_id)
    assert client.message.get(message_id).url == site.url


def test_attempts_are_made_until_one_succeeds(client: QStash, site: Destination) -> None:
    site.answer = lambda received: Reply(200 if received.headers["Upstash-Retried"] == "2" else 500)
    delivered(client, sent(client.message.publish(url=site.url, retries=3, retry_delay="10")))
    assert [received.headers["Upstash-Retried"] for received in site.received] == ["0", "1", "2"]


def test_a_call_beyond_its_timeout_fails(client: QStash, site: Destination) -> None:
    message_id = sent(client.message.publish(url=f"{site.url}/slow", timeout=1, retries=0))
    assert buried(client, message_id).message_id == message_id


def test_a_cancelled_message_is_not_sent(client: QStash, site: Destination) -> None:
    cancelled = sent(client.message.publish(url=f"{site.url}/cancelled", delay=6))
    client.message.cancel(cancelled)
    until(lambda: states(client, cancelled)[-1:] == [LogState.CANCELED])
    delivered(client, sent(client.message.publish(url=f"{site.url}/later", delay=7)))
    assert [received.path for received in site.received] == ["/later"]


def test_cancelling_an_unknown_message_is_an_error(client: QStash) -> None:
    with pytest.raises(QStashError, match="404"):
        client.message.cancel("msg_unknown")
    with pytest.raises(QStashError, match="404"):
        client.message.get("msg_unknown")


def test_cancelling_many_returns_their_number(client: QStash) -> None:
    ids = [sent(client.message.publish(url="https://example.com", delay="1h")) for _ in range(3)]
    assert client.message.cancel_many([*ids[:2], "msg_unknown"]) == 2
    assert client.message.cancel_many(ids) == 1
    assert client.message.cancel_many(ids) == 0


def test_messages_between_retries_can_be_cancelled(client: QStash, site: Destination) -> None:
    ids = [sent(client.message.publish(url=f"{site.url}/404", retries=3)) for _ in range(2)]
    until(lambda: len(site.received) == 2)
    assert client.message.cancel_many(ids) == 2


def test_cancelling_all_leaves_none(client: QStash, site: Destination) -> None:
    for _ in range(2):
        client.message.publish(url="https://example.com", delay="1h")
    client.message.publish(url=f"{site.url}/slow")
    until(lambda: site.received)
    assert client.message.cancel_all() == 3
    assert client.message.cancel_all() == 0


@pytest.mark.parametrize("url", ["ftp://example.com", "https://", "http://user:password@example.com"])
def test_a_faulty_destination_is_refused_with_a_reason(client: QStash, url: str) -> None:
    with pytest.raises(QStashError, match=r'status: 400, body: \{"error":'):
        client.message.publish(url=url)


def test_a_unit_that_is_unknown_is_refused(client: QStash) -> None:
    for option in ({"delay": "ten"}, {"timeout": "1y"}, {"retry_delay": "open('/etc/passwd')"}):
        with pytest.raises(QStashError, match="400"):
            client.message.publish(url="https://example.com", **option)  # type: ignore[arg-type]


def test_an_address_that_ends_in_publish_is_tolerated(relay: Relay, site: Destination) -> None:
    client = QStash(TOKEN, base_url=f"{relay.url}/v2/publish/", retry=False)
    client.message.publish(url=site.url, body="x")
    [received] = until(lambda: site.received)
    assert received.body == b"x"
