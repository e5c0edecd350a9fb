"""A channel whose topic is deleted or refuses events, on a real broker: the events of other channels do not wait for
it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import closing

from kafka.admin import KafkaAdminClient

from tests.integration.notifier.conftest import Notifying, Topics
from tests.wait import until
from tidings.contract.topics import COMPLETIONS
from tidings.kafka.topics import _unready

Notify = Callable[..., Notifying]
# The time of some commits that reach their deadline, on a busy machine.
SECONDS = 120


def _channel(topics: Topics, **configs: str) -> str:
    """A channel whose topic already exists, with another configuration."""
    channel = f"c-{uuid.uuid4().hex}"
    wanted = {"num_partitions": 4, "configs": {name.replace("_", "."): value for name, value in configs.items()}}
    with closing(KafkaAdminClient(bootstrap_servers=topics.bootstrap)) as admin:
        admin.create_topics({f"{COMPLETIONS}.{channel}": wanted}, wait_for_metadata=True)
    return channel


def _delete(topics: Topics, channel: str) -> None:
    name = f"{COMPLETIONS}.{channel}"
    with closing(KafkaAdminClient(bootstrap_servers=topics.bootstrap)) as admin:
        admin.delete_topics([name])
    until(lambda: name not in topics.names(), 30)


def _told(topics: Topics, channel: str) -> list[str]:
    return [message.key for message in topics.read(f"{COMPLETIONS}.{channel}")]


def test_a_deleted_channel_topic_delays_no_other_event_and_is_created_again(topics: Topics, notify: Notify) -> None:
    channel = f"c-{uuid.uuid4().hex}"
    notify()
    before = topics.change(channel=channel)
    until(lambda: topics.completions(before) == [before], 30)
    until(lambda: f"{COMPLETIONS}.{channel}" in topics.names(), SECONDS)
    until(lambda: _told(topics, channel) == [before], SECONDS)
    _delete(topics, channel)
    ids = sorted([topics.change(channel=channel), topics.change()])
    until(lambda: topics.completions(*ids) == ids, SECONDS)
    after = topics.change(channel=channel)
    until(lambda: topics.completions(after) == [after], SECONDS)
    until(lambda: after in _told(topics, channel), SECONDS)


def test_a_topic_that_is_deleted_during_its_creation_is_not_waited_for(topics: Topics) -> None:
    name = f"{COMPLETIONS}.c-{uuid.uuid4().hex}"
    with closing(KafkaAdminClient(bootstrap_servers=topics.bootstrap)) as admin:
        assert _unready(admin, [name, COMPLETIONS]) == {name: "deleted meanwhile"}


def test_a_channel_topic_that_refuses_a_record_delays_no_other_event(topics: Topics, notify: Notify) -> None:
    channel, healthy = _channel(topics, max_message_bytes="100"), f"c-{uuid.uuid4().hex}"
    notifying = notify()
    ids = sorted([topics.change(channel=channel), topics.change(channel=healthy), topics.change()])
    until(lambda: topics.completions(*ids) == ids, SECONDS)
    until(lambda: f"{COMPLETIONS}.{healthy}" in topics.names(), SECONDS)
    [told] = until(lambda: _told(topics, healthy), SECONDS)
    assert told in ids
    until(lambda: notifying.metric("tidings_notifier_channels_refused_total") >= 1, 30)
    assert channel in {line["channel"] for line in notifying.said("channel_refused")}
    after = topics.change(channel=channel)  # without another wait for the topic that refuses
    until(lambda: topics.completions(after) == [after], 30)
    assert notifying.process.running()


def test_many_new_channels_at_once_delay_other_events_only_briefly(topics: Topics, notify: Notify) -> None:
    names = [f"c-{uuid.uuid4().hex}" for _ in range(100)]
    ids = sorted([*(topics.changes(names)), topics.change()])
    notify()
    until(lambda: topics.completions(*ids) == ids, 90)
    until(lambda: {f"{COMPLETIONS}.{name}" for name in names} <= topics.names(), 90)
    until(lambda: all(len(_told(topics, name)) == 1 for name in names[-2:]), 90)


def test_events_that_were_held_when_a_notifier_was_killed_are_written_once(topics: Topics, notify: Notify) -> None:
    names = [f"c-{uuid.uuid4().hex}" for _ in range(30)]
    ids = dict(zip(names, topics.changes(names), strict=True))
    killed = notify()
    until(lambda: topics.completions(*ids.values()) == sorted(ids.values()), 90)
    killed.process.kill()
    notify()
    until(lambda: {f"{COMPLETIONS}.{name}" for name in names} <= topics.names(), 90)
    until(lambda: [_told(topics, name) for name in names] == [[id_] for id_ in ids.values()], 90)
