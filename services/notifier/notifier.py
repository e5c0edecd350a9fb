"""Changes in, completion events out, the offsets and the events in one Kafka transaction: exactly once inside Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kafka.errors import (
    FencedInstanceIdError,
    InvalidProducerEpochError,
    KafkaError,
    ProducerFencedError,
)
from kafka.structs import OffsetAndMetadata
from structlog.stdlib import BoundLogger

from services.notifier.channels import Channels
from services.notifier.metrics import NotifierMetrics
from services.notifier.transform import DeadLetter, Event, transform
from tidings.topics import COMPLETIONS, DEAD_LETTERS

POLL_SECONDS = 0.5

# Another copy runs under our name. Going on would be two of us, so the process ends; its supervisor decides what is next.
FENCED = (ProducerFencedError, InvalidProducerEpochError, FencedInstanceIdError)


class FencedError(Exception):
    """This process was replaced by another of the same name; end at once."""


class Notifier:
    """One `run_once` is one transaction: read a bounded batch, send its events, commit both."""

    def __init__(
        self,
        consumer: Any,
        producer: Any,
        channels: Channels,
        *,
        public_url: str,
        metrics: NotifierMetrics,
        log: BoundLogger,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._channels = channels
        self._public_url = public_url
        self._metrics = metrics
        self._log = log

    def run_once(self) -> int:
        """Handle what is there, waiting up to half a second for it; answers how many changes were read.

        Raises `FencedError`; any other `KafkaError` after the transaction was aborted and the batch put back.
        """
        try:
            batch = self._consumer.poll(timeout_ms=int(POLL_SECONDS * 1000))
        except FENCED as error:
            raise FencedError(type(error).__name__) from error
        if not batch:
            return 0
        decided = [(record, transform(record.value, self._public_url)) for rows in batch.values() for record in rows]
        try:
            # Topics are made before the transaction: making one takes a round trip that must not hold up readers.
            topics = {event.change.channel: self._topic(event.change.channel) for _, event in decided
                      if isinstance(event, Event) and event.change.channel}  # fmt: skip
            self._producer.begin_transaction()
            for record, decision in decided:
                self._send(record, decision, topics)
            offsets = {tp: OffsetAndMetadata(rows[-1].offset + 1, "", -1) for tp, rows in batch.items()}
            self._producer.send_offsets_to_transaction(offsets, self._consumer.group_metadata())
            self._producer.commit_transaction()
        except FENCED as error:
            raise FencedError(type(error).__name__) from error
        except KafkaError:
            self._give_up(batch)
            raise
        self._count([decision for _, decision in decided])
        return len(decided)

    def _topic(self, channel: str) -> str | None:
        name = self._channels.topic(channel)
        if name is None:
            self._metrics.channels_refused.inc()
            self._log.warning("channel_refused", channel=channel)
        return name

    def _send(self, record: Any, decision: Event | DeadLetter | None, topics: Mapping[str, str | None]) -> None:
        match decision:
            case Event(change, completion):
                names = [COMPLETIONS, topics.get(change.channel) if change.channel else None]
                for name in names:
                    if name is not None:
                        self._producer.send(
                            name, key=completion.key, value=completion.value, headers=list(completion.headers)
                        )
            case DeadLetter(reason):
                self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
                headers = [
                    ("reason", reason.encode()),
                    ("source", f"{record.topic}/{record.partition}/{record.offset}".encode()),
                ]
                self._producer.send(DEAD_LETTERS, key=record.key, value=record.value, headers=headers)
            case None:
                pass

    def _give_up(self, batch: Mapping[Any, Sequence[Any]]) -> None:
        self._metrics.aborts.inc()
        try:
            self._producer.abort_transaction()
        except FENCED as error:
            raise FencedError(type(error).__name__) from error
        for partition, rows in batch.items():
            self._consumer.seek(partition, rows[0].offset)

    def _count(self, decided: Sequence[Event | DeadLetter | None]) -> None:
        now = datetime.now(UTC)
        self._metrics.batch.observe(len(decided))
        for decision in decided:
            match decision:
                case Event(change, _):
                    self._metrics.completions.labels(change.outcome).inc()
                    self._metrics.delay.observe(max(0.0, (now - change.completed_at).total_seconds()))
                    self._metrics.saw_event()
                case DeadLetter():
                    self._metrics.dead_letters.inc()
                case None:
                    pass
