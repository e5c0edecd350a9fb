"""The notifier process on a real broker: channels, undecodable changes, and another process with the same name."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from services.notifier.__main__ import CHANNELS_GROUP
from tests.integration.notifier.conftest import ROW, Message, Notifying, Topics
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, DEAD_LETTERS, RESULTS
from tidings.kafka.transactions import discard, transactional_producer

Notify = Callable[..., Notifying]


def test_a_channels_topic_is_created_on_first_use_up_to_the_limit(topics: Topics, notify: Notify) -> None:
    present = len([name for name in topics.names() if name.startswith(f"{COMPLETIONS}.")])
    notifying = notify(NOTIFIER_CHANNELS_MAX=str(present + 1))
    first, second = f"c-{uuid.uuid4().hex}", f"c-{uuid.uuid4().hex}"
    told = topics.change(channel=first)
    until(lambda: topics.completions(told) == [told], 30)
    until(lambda: f"{COMPLETIONS}.{first}" in topics.names(), 30)
    refused, wrong = topics.change(channel=second), topics.change(channel="No Such/Name")
    again = topics.change(channel=first)
    ids = sorted([told, refused, wrong, again])
    until(lambda: topics.completions(*ids) == ids, 30)
    until(lambda: sorted(m.key for m in topics.read(f"{COMPLETIONS}.{first}")) == sorted([told, again]), 30)
    until(lambda: notifying.metric("tidings_notifier_channels_refused_total") == 2, 30)
    assert f"{COMPLETIONS}.{second}" not in topics.names()
    assert {line["channel"] for line in notifying.said("channel_refused")} == {second, "No Such/Name"}


def test_an_undecodable_change_is_a_dead_letter_with_its_reason_and_stops_nothing(
    topics: Topics, notify: Notify
) -> None:
    notifying = notify()
    key = str(uuid.uuid4())
    ids_of_row = {"submission_id": key, "event_id": str(uuid.uuid4())}
    unheard = json.dumps({"op": "c", "after": ROW | ids_of_row | {"outcome": "unheard-of"}}).encode()
    topics.write(RESULTS, key, unheard)
    topics.write(RESULTS, key, b"\xff\xfe")
    ids = sorted(topics.change() for _ in range(8))  # On most partitions, so probably also after those two.
    until(lambda: topics.completions(*ids) == ids, 30)

    def put_aside() -> dict[bytes, Message]:
        return {message.value: message for message in topics.read(DEAD_LETTERS) if message.key == key}

    # Partitions are read independently: the completions of the others may all be written before these two.
    until(lambda: len(put_aside()) == 2, 30)
    letters = put_aside()
    assert set(letters) == {unheard, b"\xff\xfe"}
    assert "unheard-of" in letters[unheard].headers["reason"]
    assert "not JSON" in letters[b"\xff\xfe"].headers["reason"]
    assert all(letter.headers["source"].startswith(f"{RESULTS}/") for letter in letters.values())
    assert topics.completions(key) == []
    until(lambda: notifying.metric("tidings_notifier_dead_letters_total") == 2)


def test_the_first_process_ends_when_a_second_has_its_name(topics: Topics, notify: Notify, instance: str) -> None:
    first = notify()
    before = topics.change()
    until(lambda: topics.completions(before) == [before], 30)
    second = notify()
    after = topics.change()
    assert first.process.wait(30) == 70
    said = first.said("fenced")  # by one of its loops, or by both
    assert {line["instance"] for line in said} == {instance}
    assert all("another notifier of this name" in line["by"] for line in said)
    until(lambda: topics.completions(before, after) == sorted([before, after]), 30)
    assert second.process.running()


def test_the_process_ends_when_only_its_loop_of_channels_is_replaced(
    topics: Topics, notify: Notify, instance: str
) -> None:
    notifying = notify()
    discard(transactional_producer(topics.cluster, f"{CHANNELS_GROUP}-{instance}"))
    id_ = topics.change(channel=f"c-{uuid.uuid4().hex}")
    assert notifying.process.wait(60) == 70
    assert topics.completions(id_) == [id_]


def test_the_event_has_the_values_of_the_change(topics: Topics, notify: Notify) -> None:
    notify(TIDINGS_PUBLIC_URL="http://api.example")
    id_ = topics.change(outcome="failed", reason="no money", output=None, metadata='{"order": 7}')
    [message] = until(lambda: [m for m in topics.read(COMPLETIONS) if m.key == id_], 30) or []
    assert message.headers["ce_type"] == "dev.tidings.submission.failed"
    assert (message.headers["ce_subject"], message.headers["ce_source"]) == (id_, "http://api.example")
    content = json.loads(message.value)
    assert (content["reason"], content["metadata"]) == ("no money", {"order": 7})
