"""The channels' topics: made when first named, up to a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kafka.errors import KafkaError

from tidings.topics import Topic, channel_topic


class Channels:
    """Knows which channel topics exist and makes the others through `create`, which takes topics and may raise."""

    def __init__(self, create: Callable[[Iterable[Topic]], None], *, known: Iterable[str], channels_max: int) -> None:
        self._create = create
        self._known = set(known)
        self._channels_max = channels_max

    def topic(self, channel: str) -> str | None:
        """The name of the channel's topic, which exists then; None when the name, the limit or the broker forbids one.

        Raises a `KafkaError` that may pass.
        """
        topic = channel_topic(channel)
        if topic is None:
            return None
        if topic.name not in self._known:
            if len(self._known) >= self._channels_max:
                return None
            try:
                self._create([topic])
            except KafkaError as error:
                if error.retriable:
                    raise
                return None  # a policy, say: one client's channel must not hold up everybody's events
            self._known.add(topic.name)
        return topic.name
