"""The client's options for model providers: a message to the provider, with its key, and a callback with the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from qstash import QStash
from qstash.chat import custom, openai
from qstash.message import BatchResponse

from tests.destination import Received, Reply, destination
from tests.integration.relay.conftest import TOKEN, Relay
from tests.integration.sdk.seen import delivered, sent
from tests.wait import until

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "hello"}}]}
QUESTION = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "just say hello"}]}


def complete(received: Received) -> Reply:
    if received.path != "/v1/chat/completions":
        return Reply()
    return Reply(body=json.dumps(ANSWER).encode()) if received.headers["Authorization"] == "Bearer key" else Reply(401)


def test_a_custom_provider_is_called_by_publish_enqueue_and_batch(new_relay: Callable[..., Relay]) -> None:
    with destination(complete) as site:
        client = QStash(TOKEN, base_url=new_relay().url)
        callback = f"{site.url}/callback"
        provider = custom(base_url=f"{site.url}/v1/chat/completions", token="key")
        ids = [
            sent(
                client.message.publish_json(api={"name": "llm", "provider": provider}, body=QUESTION, callback=callback)
            ),
            sent(
                client.message.enqueue_json(
                    queue="llm", api={"name": "llm", "provider": provider}, body=QUESTION, callback=callback
                )
            ),
        ]
        [item] = client.message.batch_json(
            [{"api": {"name": "llm", "provider": provider}, "body": QUESTION, "callback": callback}]
        )
        assert isinstance(item, BatchResponse)
        ids.append(item.message_id)
        for message_id in ids:
            delivered(client, message_id)
        calls = until(lambda: found if len(found := site.to("/callback")) == 3 else [])
        contents = [json.loads(call.body) for call in calls]
    assert {content["sourceMessageId"] for content in contents} == set(ids)
    assert [json.loads(base64.b64decode(content["body"])) for content in contents] == [ANSWER] * 3


def test_a_known_provider_gets_its_key_and_no_header_of_the_relay(new_relay: Callable[..., Relay]) -> None:
    with destination(complete) as site:
        relay = new_relay(RELAY_DESTINATION_MAP=f"https://api.openai.com={site.url}")
        client = QStash(TOKEN, base_url=relay.url)
        delivered(
            client, sent(client.message.publish_json(api={"name": "llm", "provider": openai("key")}, body=QUESTION))
        )
        [received] = site.received
    assert (received.path, received.headers["Host"]) == ("/v1/chat/completions", "api.openai.com")
    assert json.loads(received.body) == QUESTION
    assert not [name for name in received.headers if name.lower().startswith("upstash")]
