"""The dispatcher's writes to `tidings.dead-letters`: changes that cannot be handled."""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaError

from tidings.kafka.dead_letters import dead_letter
from tidings.kafka.transactions import Outgoing

TIMEOUT_SECONDS = 15


class DeadLetters:
    """`producer` is a producer of kafka-python."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def put_aside(self, record: Any, reason: str) -> None:
        """Put a change aside, without its value if the topic rejects the value. Raises a `KafkaError`."""
        try:
            self._produce(dead_letter(record, reason))
        except KafkaError as error:
            if error.retriable:
                raise
            self._produce(dead_letter(record, f"{reason} (without its value: {type(error).__name__})", bare=True))

    def _produce(self, message: Outgoing) -> None:
        sent = self._producer.send(message.topic, key=message.key, value=message.value, headers=list(message.headers))
        sent.get(timeout=TIMEOUT_SECONDS)
