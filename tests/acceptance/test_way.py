"""The whole system from outside, as a user sees it: a submission is called, answered and completed."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import time
from datetime import UTC, datetime

import pytest
import requests

from tests.acceptance.stacks import Stack
from tests.wait import until
from tidings.contract.topics import PARTITIONS


def test_a_submission_becomes_one_completion_with_the_pictures_address(stack: Stack) -> None:
    id_ = stack.submit("a lighthouse", call_id="way")
    [event] = stack.completions({id_})[id_]
    assert event["headers"]["ce_type"] == "dev.tidings.submission.succeeded"
    assert event["headers"]["ce_subject"] == id_
    picture = requests.get(event["output"]["data"][0]["url"], timeout=10)
    assert picture.content.startswith(b"\x89PNG")
    result = stack.call("GET", f"/v1/submissions/{id_}/result")
    assert hashlib.sha256(result.content).hexdigest() == event["result"]["sha256"]
    assert len(result.content) == event["result"]["size"]
    assert stack.calls("way")["received"] == 1
    assert stack.call("GET", f"/v1/submissions/{id_}/images/0").status_code == 302


def test_the_articles_three_endpoints(stack: Stack) -> None:
    answer = stack.call("GET", "/generate-image?prompt=a+cat", headers={"Accept": "text/plain"})
    assert answer.text.startswith("Generating image. Your submission id: ")
    id_ = answer.text.rsplit(" ", 1)[1]
    ready = until(
        lambda: found if (found := _ready(stack, id_))["status"] != "pending" else None,
        30,
    )
    assert ready is not None
    assert ready["status"] == "completed"
    assert requests.get(str(ready["imageUrl"]), timeout=10).content.startswith(b"\x89PNG")
    asked = stack.call("POST", "/generate-image", json={"prompt": "a dog"}, headers={"Accept": "application/json"})
    assert set(asked.json()) == {"submissionId"}
    assert stack.call("GET", "/generate-image").status_code == 400
    assert _ready(stack, "nobody") == {"status": "notFound"}


def _ready(stack: Stack, id_: str) -> dict[str, object]:
    return dict(stack.call("GET", f"/get-image-is-ready?submissionId={id_}").json())


def test_the_articles_curl_works_against_the_stacks_relay(stack: Stack) -> None:
    home = stack.home
    url = f"{home.url('relay')}/v1/publish/{home.url('provider')}/v1/images/generations"
    headers = {
        "Authorization": f"Bearer {home.secrets['relay_token']}",
        "Upstash-Forward-My-Custom-Header": "my-value",
        "Upstash-forward-Authorization": "Bearer OPENAI_API_KEY",
        "Content-type": "application/json",
        "Upstash-Retries": "3",
    }
    body = json.dumps({"prompt": "some prompt", "x_provider": {"call_id": "curl", "latency_seconds": 0}})
    assert requests.post(url, data=body, headers=headers, timeout=10).status_code == 201
    until(lambda: stack.calls("curl")["answered"] == 1)


def test_two_server_errors_then_success_are_three_attempts_and_one_event(stack: Stack) -> None:
    id_ = stack.submit(faults=["500", "500"], call_id="retried")
    shown = stack.ended(id_)
    assert shown["status"] == "succeeded"
    attempts = until(lambda: found if len(found := stack.shown(id_)["attempts"]) == 3 else None) or []
    assert [attempt["status_code"] for attempt in attempts] == [500, 500, 200]
    assert len(stack.completions({id_})[id_]) == 1
    assert stack.calls("retried")["received"] == 3
    assert stack.count("SELECT count(*) FROM tidings.results WHERE submission_id = %s", id_) == 1


@pytest.mark.parametrize("fault", ["400", "401", "quota"])
def test_a_final_error_fails_at_once(stack: Stack, fault: str) -> None:
    id_ = stack.submit(faults=[fault, fault], call_id=f"final-{fault}")
    [event] = stack.completions({id_})[id_]
    assert event["outcome"] == "failed"
    assert event["reason"]
    assert stack.calls(f"final-{fault}")["received"] == 1
    assert _ready(stack, id_)["status"] == "unableToGenerate"


def test_a_success_with_an_error_in_it_is_retried(stack: Stack) -> None:
    id_ = stack.submit(faults=["200-error"], call_id="hidden")
    assert stack.ended(id_)["status"] == "succeeded"
    assert stack.calls("hidden")["received"] == 2


def test_an_inline_picture_is_served_by_us(stack: Stack) -> None:
    content = {
        "target": "demo-images",
        "input": {"prompt": "inline", "response_format": "b64_json", "x_provider": {"latency_seconds": 0}},
    }
    id_ = stack.call("POST", "/v1/submissions", json=content).json()["id"]
    stack.ended(id_)
    picture = stack.call("GET", f"/v1/submissions/{id_}/images/0")
    assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/png")
    encoded = json.loads(stack.call("GET", f"/v1/submissions/{id_}/result").content)["data"][0]["b64_json"]
    assert base64.b64decode(encoded) == picture.content
    url = str(_ready(stack, id_)["imageUrl"])
    assert stack.session.get(url, timeout=10).content == picture.content


def test_an_answer_of_twenty_megabytes_arrives_complete(stack: Stack) -> None:
    content = {
        "target": "demo-chat",
        "input": {"messages": [{"role": "user", "content": "long"}], "x_provider": {"bytes": 20_000_000}},
    }
    id_ = stack.call("POST", "/v1/submissions", json=content).json()["id"]
    [event] = stack.completions({id_})[id_]
    assert event["output"] is None
    assert event["result"]["size"] > 20_000_000
    body = stack.call("GET", f"/v1/submissions/{id_}/result").content
    assert hashlib.sha256(body).hexdigest() == event["result"]["sha256"]


@pytest.mark.parametrize("during", [False, True])
def test_cancelling_ends_a_submission_and_its_call(stack: Stack, during: bool) -> None:
    call_id = f"cancel-{during}"
    dispatcher = stack.process("services.dispatcher")
    if not during:
        # The notifier reads the submission's change after its result was committed.
        dispatcher.suspend()
    try:
        id_ = stack.submit(latency_seconds=60, call_id=call_id)
        if during:
            until(lambda: stack.calls(call_id)["received"] == 1)
        assert stack.call("DELETE", f"/v1/submissions/{id_}").json()["status"] == "cancelled"
        assert stack.call("DELETE", f"/v1/submissions/{id_}").status_code == 409
    finally:
        dispatcher.resume()
    [event] = stack.completions({id_})[id_]
    assert event["headers"]["ce_type"] == "dev.tidings.submission.cancelled"
    if during:
        until(lambda: stack.calls(call_id)["cut"] == 1)
    # The dispatcher has read all changes that were committed before these, in every partition.
    later = {stack.submit() for _ in range(4 * PARTITIONS)}
    assert set(stack.completions(later)) == later
    until(lambda: stack.count("SELECT count(*) FROM relay.messages WHERE label = %s AND ended_at IS NULL", id_) == 0)
    assert stack.calls(call_id)["received"] == during


def test_a_submission_is_running_while_the_provider_works(stack: Stack) -> None:
    accepted = stack.call("POST", "/v1/submissions", json={"target": "demo-images", "input": _held("running")}).json()
    assert accepted["status"] == "queued"
    until(lambda: stack.calls("running")["received"] == 1)
    shown = until(lambda: found if (found := stack.shown(accepted["id"]))["status"] != "queued" else None) or {}
    assert stack.calls("running")["answered"] == 0
    assert (shown["status"], shown["outcome"]) == ("running", None)
    [attempt] = shown["attempts"]
    assert (attempt["number"], attempt["started_at"], attempt["ended_at"]) == (1, shown["running_since"], None)
    since, created = (datetime.fromisoformat(shown[name]) for name in ("running_since", "created_at"))
    assert created <= since <= datetime.now(UTC)
    listed = stack.call("GET", "/v1/submissions?status=running&limit=100").json()["submissions"]
    assert [each["running_since"] for each in listed if each["id"] == accepted["id"]] == [shown["running_since"]]
    stack.call("DELETE", f"/v1/submissions/{accepted['id']}")
    shown = stack.shown(accepted["id"])
    assert (shown["status"], shown["running_since"], shown["attempts"]) == ("cancelled", None, [])


def test_a_submission_is_queued_before_its_dispatch_and_when_its_start_is_not_reported(stack: Stack) -> None:
    """The dispatcher is stopped, and this test sends the calls: one without the header, as the hosted service would
    hold it, and one with the header, whose start is the later one.
    """
    from tidings.contract.callback_token import callback_token  # noqa: PLC0415

    dispatcher = stack.process("services.dispatcher")
    dispatcher.send_signal(signal.SIGSTOP)
    try:
        ids = {
            call_id: stack.call(
                "POST", "/v1/submissions", json={"target": "demo-images", "input": _held(call_id)}
            ).json()["id"]
            for call_id in ("untold", "told")
        }
        assert [stack.shown(id_)["status"] for id_ in ids.values()] == ["queued", "queued"]
        _dispatch(stack, ids["untold"], "untold")
        until(lambda: stack.calls("untold")["received"] == 1)
        _dispatch(
            stack,
            ids["told"],
            "told",
            **{
                "Tidings-Started-Callback": f"{stack.home.url('internal')}/callbacks/relay/starts",
                "Tidings-Started-Data": callback_token(stack.home.secrets["internal_token"], ids["told"]),
            },
        )
        until(lambda: stack.shown(ids["told"])["status"] == "running")
        shown = stack.shown(ids["untold"])
        assert (shown["status"], shown["running_since"], shown["attempts"]) == ("queued", None, [])
    finally:
        dispatcher.send_signal(signal.SIGCONT)
    for id_ in ids.values():
        stack.call("DELETE", f"/v1/submissions/{id_}")
    until(lambda: stack.calls("untold")["cut"] == 1)


def _dispatch(stack: Stack, id_: str, call_id: str, **headers: str) -> None:
    """Send a submission's call as the dispatcher does, which later finds it already sent."""
    common = {
        "Authorization": f"Bearer {stack.home.secrets['relay_token']}",
        "Content-Type": "application/json",
        "Upstash-Forward-Authorization": "Bearer demo",
        "Upstash-Deduplication-Id": id_,
        "Upstash-Label": id_,
    }
    url = f"{stack.home.url('relay')}/v2/publish/{stack.home.url('provider')}/v1/images/generations"
    answer = requests.post(url, json=_held(call_id), headers=common | headers, timeout=10)
    assert answer.status_code == 200, answer.text


def _held(call_id: str) -> dict[str, object]:
    """A call that takes the provider longer than the test observes it."""
    return {"prompt": "a boat", "x_provider": {"latency_seconds": 60, "call_id": call_id}}


def test_a_channel_has_its_own_topic(stack: Stack) -> None:
    from kafka import KafkaConsumer  # noqa: PLC0415

    content = {"target": "demo-images", "input": {"prompt": "c"}, "channel": "team-a", "metadata": {"order": 7}}
    id_ = stack.call("POST", "/v1/submissions", json=content).json()["id"]
    [event] = stack.completions({id_})[id_]
    assert (event["channel"], event["metadata"]) == ("team-a", {"order": 7})
    consumer = KafkaConsumer(
        "tidings.completions.team-a",
        bootstrap_servers=f"127.0.0.1:{stack.home.ports['kafka']}",
        auto_offset_reset="earliest", isolation_level="read_committed", consumer_timeout_ms=60_000,
    )  # fmt: skip
    try:
        assert next(consumer).key.decode() == id_
    finally:
        consumer.close()


def test_a_forged_callback_is_401_and_changes_nothing(stack: Stack) -> None:
    id_ = stack.submit(latency_seconds=20)
    forged = {"status": 200, "body": "e30=", "sourceMessageId": "x"}
    for path in ("/callbacks/relay", "/image-callback"):
        for headers in ({}, {"Upstash-Signature": "e30.e30.e30"}):
            url = f"{stack.home.url('api')}{path}?submission={id_}"
            assert requests.post(url, json=forged, headers=headers, timeout=10).status_code == 401
    assert stack.shown(id_)["outcome"] is None
    stack.call("DELETE", f"/v1/submissions/{id_}")


def test_repeated_callbacks_make_one_result_and_one_event(stack: Stack) -> None:
    from tidings.contract.callback_token import callback_token  # noqa: PLC0415
    from tidings.contract.signature import sign  # noqa: PLC0415

    id_ = stack.submit(latency_seconds=20)
    address = f"{stack.home.url('api')}/callbacks/relay?submission={id_}"
    content = {"status": 200, "body": "e30=", "retried": 0, "maxRetries": 3, "sourceMessageId": "m", "header": {}}
    body = json.dumps(content).encode()
    token = sign(stack.home.secrets["next_signing_key"], address, body, now=int(time.time()))
    proof = callback_token(stack.home.secrets["internal_token"], id_)
    answers = [
        requests.post(
            address, data=body, headers={"Upstash-Signature": token, "Authorization": f"Bearer {proof}"}, timeout=10
        ).status_code
        for _ in range(3)
    ]
    assert answers == [200, 200, 200]
    assert len(stack.completions({id_})[id_]) == 1
    assert len(stack.shown(id_)["attempts"]) == 1
