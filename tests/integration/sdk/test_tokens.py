"""Tokens with the client: a read-only token may read everything and change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from qstash import QStash
from qstash.errors import QStashError

from tests.integration.relay.conftest import TOKEN, Relay
from tests.integration.sdk.seen import sent
from tests.process import ROOT


def create_token(relay: Relay, *options: str) -> str:
    """A new token of the running relay, from the last line that the operator's command prints."""
    finished = subprocess.run(
        [sys.executable, "-m", "tidings", "relay", "token", "create", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | relay.process.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()[-1]


def test_a_second_token_works_like_the_first(relay: Relay, client: QStash) -> None:
    second = QStash(create_token(relay, "second"), base_url=relay.url, retry=False)
    message_id = sent(second.message.publish(url="https://example.com", delay="1h"))
    assert client.message.get(message_id).message_id == message_id


def test_a_read_only_token_reads_and_changes_nothing(relay: Relay, client: QStash) -> None:
    message_id = sent(client.message.publish(url="https://example.com", delay="1h"))
    client.queue.upsert("queue")
    schedule_id = client.schedule.create(cron="1 1 1 1 1", destination="https://example.com")
    client.url_group.upsert_endpoints("group", [{"url": "https://a.example"}])
    reader = QStash(create_token(relay, "reader", "--read-only"), base_url=relay.url, retry=False)
    assert reader.message.get(message_id).message_id == message_id
    assert [queue.name for queue in reader.queue.list()] == ["queue"]
    assert reader.schedule.get(schedule_id).schedule_id == schedule_id
    assert [group.name for group in reader.url_group.list()] == ["group"]
    assert {row.message_id for row in reader.log.list().logs} == {message_id}
    assert reader.dlq.list().messages == []
    changes: list[Callable[[], object]] = [
        lambda: reader.message.publish(url="https://example.com"),
        lambda: reader.message.enqueue(queue="queue", url="https://example.com"),
        lambda: reader.message.batch([{"url": "https://example.com"}]),
        lambda: reader.message.cancel(message_id),
        reader.message.cancel_all,
        lambda: reader.queue.pause("queue"),
        lambda: reader.queue.delete("queue"),
        lambda: reader.schedule.pause(schedule_id),
        lambda: reader.schedule.delete(schedule_id),
        lambda: reader.url_group.delete("group"),
        lambda: reader.dlq.delete_many(["1725323658779-0"]),
        lambda: reader.flow_control.pause("key"),
        reader.signing_key.rotate,
    ]
    for change in changes:
        with pytest.raises(QStashError, match=r"40[13]"):
            change()
    assert client.message.get(message_id).message_id == message_id
    assert (client.queue.get("queue").paused, client.schedule.get(schedule_id).paused) == (False, False)


@pytest.mark.parametrize("token", ["-", "wrong", TOKEN[:-1], f"{TOKEN}x"])
def test_a_wrong_token_is_refused(relay: Relay, token: str) -> None:
    with pytest.raises(QStashError, match=r'status: 401, body: \{"error":'):
        QStash(token, base_url=relay.url, retry=False).message.get("msg_unknown")
