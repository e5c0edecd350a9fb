"""Changes in, completion events out, the offsets and the events in one Kafka transaction: exactly once inside Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition
from structlog.stdlib import BoundLogger

from services.notifier.channels import Channels
from services.notifier.metrics import NotifierMetrics
from services.notifier.tenants import Tenants
from services.notifier.transform import DeadLetter, Event, transform
from tidings.dead_letters import dead_letter
from tidings.kafka_changes import Batch, Changes
from tidings.kafka_failures import RefusedError, StalledError
from tidings.kafka_transactions import Outgoing, Transactions
from tidings.progress import Progress
from tidings.topics import COMPLETIONS, DEAD_LETTERS

POLL_SECONDS = 0.5
# Each costs an aborted transaction, some 100 ms; a batch that finds more goes to the main topic alone.
REFUSALS_MAX = 8
# Topics that are made for one transaction. A broker on a small machine needs some 100 ms for each until it can be
# written to.
NEW_MAX = 20


@dataclass(frozen=True)
class Decided:
    """A change as it was read, and what follows from it."""

    partition: TopicPartition
    record: Any
    decision: Event | DeadLetter | None
    # Its tenant's channels are left out.
    kept_off: bool = False

    @property
    def channel(self) -> str | None:
        if self.kept_off or not isinstance(self.decision, Event) or not self.decision.change.channel:
            return None
        return str(self.decision.change.channel)

    @property
    def tenant(self) -> str | None:
        return self.decision.change.tenant if isinstance(self.decision, Event) else None


class Notifier:
    """One `run_once` is one bounded batch, as a rule in one transaction."""

    def __init__(
        self,
        changes: Changes,
        transactions: Transactions,
        channels: Channels,
        tenants: Tenants,
        *,
        public_url: str,
        progress: Progress,
        metrics: NotifierMetrics,
        log: BoundLogger,
    ) -> None:
        self._changes = changes
        self._transactions = transactions
        self._channels = channels
        self._tenants = tenants
        self._public_url = public_url
        self._progress = progress
        self._metrics = metrics
        self._log = log

    def run_once(self) -> int:
        """Handle what is there, waiting up to half a second for it; answers how many changes were read.

        Raises `FencedError` and `KafkaError`; the batch is then read again by whoever starts from the committed
        offsets.
        """
        batch = self._changes.poll(timeout_ms=int(POLL_SECONDS * 1000))
        if not batch:
            return 0
        decided = self._kept_off(self._decided(batch))
        for part in self._parts(decided):
            self._progress.holds("its transaction is under way")
            self._settle(part)
            self._progress.settled()
        return len(decided)

    def _decided(self, batch: Batch) -> list[Decided]:
        return [
            Decided(partition, row, transform(row.value, self._public_url))
            for partition, rows in batch.items()
            for row in rows
        ]

    def _kept_off(self, decided: Sequence[Decided]) -> Sequence[Decided]:
        """`decided`, with those marked whose tenants' channels are left out now."""
        return [
            replace(one, kept_off=True)
            if one.channel is not None and one.tenant is not None and self._tenants.left_out(one.tenant)
            else one
            for one in decided
        ]

    def _parts(self, decided: Sequence[Decided]) -> Iterator[Sequence[Decided]]:
        """`decided` in order, cut so that no part needs more than `NEW_MAX` new topics."""
        start, new = 0, set[str]()
        for number, one in enumerate(decided):
            if one.channel is None or one.channel in new or not self._channels.new(one.channel):
                continue
            if len(new) == NEW_MAX:
                yield decided[start:number]
                start, new = number, set()
            new.add(one.channel)
        yield decided[start:]

    def _settle(self, decided: Sequence[Decided]) -> None:
        """Commit `decided`. What the broker refuses for a channel is left out, for the main topic put aside."""
        refusals = 0
        while True:
            topics = self._topics(decided, none=refusals > REFUSALS_MAX)
            try:
                self._commit(decided, topics)
            except RefusedError as error:
                self._metrics.aborts.inc()
                refusals += 1
                if not self._is_channels(error.topic):
                    self._put_aside(decided, error)
                    return
                self._refuse(error.topic, error.reason)
            except StalledError as error:
                self._metrics.aborts.inc()
                refusals += 1
                self._suspect(error, decided, topics)
                decided = self._kept_off(decided)
            else:
                self._channels.accept(set(topics.values()))
                self._count(decided, topics)
                return

    def _topics(self, decided: Sequence[Decided], *, none: bool) -> Mapping[str, str]:
        """The channels' topics, made before the transaction, as that takes a while that must not hold up readers."""
        named = {one.channel for one in decided if one.channel is not None}
        if not named or none:
            return {}
        return self._channels.topics(named)

    def _commit(self, decided: Sequence[Decided], topics: Mapping[str, str]) -> None:
        messages = [message for one in decided for message in _messages(one, topics)]
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for one in decided:
            offsets[one.partition] = OffsetAndMetadata(one.record.offset + 1, "", -1)
        self._transactions.commit(messages, offsets, self._changes.group_metadata())

    def _suspect(self, error: StalledError, decided: Sequence[Decided], topics: Mapping[str, str]) -> None:
        """Nothing was committed in time. Leave out the channels' topics that hang, unless the broker does; those that
        were deleted are made again.
        """
        hanging = set(error.topics & set(topics.values()))
        self._log.warning("transaction_stalled", topics=str(error))
        if not topics or COMPLETIONS in error.topics or (error.topics and not hanging):
            raise KafkaError(f"the broker does not take events: {error}") from error
        gone = self._channels.gone(topics.values())
        blamed = self._channels.blame(hanging - gone)
        if not gone and not hanging:
            blamed = self._channels.suspects(topics.values())
        for topic in sorted(blamed):
            self._refuse(topic, "events were not taken in time")
        guilty = {one.tenant for one in decided if one.channel and topics.get(one.channel) in gone | blamed}
        for tenant, seconds in self._tenants.blame(filter(None, guilty)).items():
            self._log.warning("tenant_left_out", tenant=tenant, seconds=seconds, topics=sorted(gone | blamed))

    @staticmethod
    def _is_channels(topic: str) -> bool:
        return topic not in {COMPLETIONS, DEAD_LETTERS}

    def _refuse(self, topic: str, reason: str) -> None:
        self._channels.refuse(topic, reason)
        self._log.warning("channel_topic_refuses", topic=topic, reason=reason)

    def _put_aside(self, decided: Sequence[Decided], error: RefusedError) -> None:
        """The main topic refuses one of these records for good: find it, and let it hold up no other."""
        if not error.of_record:
            raise KafkaError(f"{error.topic} takes no record: {error.reason}") from error
        if len(decided) > 1:
            for one in decided:
                self._settle([one])
            return
        [one] = decided
        match one.decision:
            case DeadLetter(reason, bare=False):
                letter = DeadLetter(reason, bare=True)
            case Event():
                letter = DeadLetter(f"the event was refused: {error.reason}")
            case _:
                raise KafkaError(f"{error.topic} takes no record: {error.reason}") from error
        self._settle([replace(one, decision=letter)])

    def _count(self, decided: Sequence[Decided], topics: Mapping[str, str]) -> None:
        now = datetime.now(UTC)
        self._metrics.batch.observe(len(decided))
        kept_off = [one.channel for one in decided if one.channel is not None and one.channel not in topics]
        self._metrics.channels_refused.inc(len(kept_off) + sum(one.kept_off for one in decided))
        for channel in sorted(set(kept_off)):
            if (reason := self._channels.news(channel)) is not None:
                self._log.warning("channel_refused", channel=channel, reason=reason)
        for one in decided:
            match one.decision:
                case Event(change, _):
                    self._metrics.completions.labels(change.outcome).inc()
                    self._metrics.delay.observe(max(0.0, (now - change.completed_at).total_seconds()))
                    self._metrics.saw_event()
                case DeadLetter(reason):
                    record = one.record
                    self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
                    self._metrics.dead_letters.inc()
                case None:
                    pass


def _messages(one: Decided, topics: Mapping[str, str]) -> list[Outgoing]:
    match one.decision:
        case Event(_, completion):
            names = [COMPLETIONS]
            if one.channel is not None and one.channel in topics:
                names.append(topics[one.channel])
            return [Outgoing(name, completion.key, completion.value, completion.headers) for name in names]
        case DeadLetter(reason, bare):
            return [dead_letter(one.record, reason, bare=bare)]
        case None:
            return []
