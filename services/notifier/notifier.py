"""Reads changes and writes completion events. One Kafka transaction holds both: exactly once inside Kafka."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from services.notifier.channel_failures import FAILURES_MAX, ChannelFailures
from services.notifier.channel_state import ChannelState
from services.notifier.channels import ChannelUse, Routes
from services.notifier.connection import Connection
from services.notifier.held_events import held_record
from services.notifier.metrics import NotifierMetrics
from services.notifier.transform import DeadLetter, Event, transform
from tidings.contract.topics import CHANNEL_EVENTS, COMPLETIONS, DEAD_LETTERS
from tidings.kafka.changes import Batch
from tidings.kafka.dead_letters import dead_letter
from tidings.kafka.failures import RefusedError, StalledError
from tidings.kafka.transactions import Outgoing
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Decided:
    """A change and the decision on it."""

    partition: TopicPartition
    record: Any
    decision: Event | DeadLetter | None
    # The event goes to the main topic only, because the channels of its tenant are excluded.
    main_topic_only: bool = False

    @property
    def use(self) -> ChannelUse | None:
        if self.main_topic_only or not isinstance(self.decision, Event) or not self.decision.change.channel:
            return None
        return ChannelUse(str(self.decision.change.channel), self.decision.change.tenant)


class Notifier:
    """Each `run_once` handles one bounded batch, normally in one transaction. It creates no topic: events whose channel
    has no topic yet are held on an internal topic, in the same transaction. See `services.notifier.channel_worker`.
    """

    def __init__(
        self,
        connection: Connection,
        state: ChannelState,
        *,
        public_url: str,
        progress: Progress,
        telemetry: Telemetry[NotifierMetrics],
    ) -> None:
        self._changes = connection.changes
        self._transactions = connection.transactions
        self._channels = state.channels
        self._tenants = state.tenants
        self._failures = ChannelFailures(state, telemetry.log)
        self._public_url = public_url
        self._progress = progress
        self._metrics = telemetry.metrics
        self._log = telemetry.log

    def run_once(self) -> int:
        """Handle the available changes, waiting up to half a second for them; return the number of changes read.

        Raises `FencedError` and `KafkaError`; the next consumer then reads the batch again from the committed offsets.
        """
        batch = self._changes.poll(timeout_ms=int(POLL_SECONDS * 1000))
        if not batch:
            return 0
        decided = self._decided(batch)
        self._progress.batch_waits("its transaction is in progress")
        self._settle(decided)
        self._progress.batch_committed()
        return len(decided)

    def _decided(self, batch: Batch) -> list[Decided]:
        return [
            Decided(partition, row, transform(row.value, self._public_url))
            for partition, rows in batch.items()
            for row in rows
        ]

    def _without_excluded(self, decided: Sequence[Decided]) -> Sequence[Decided]:
        """Return `decided` with a mark on those whose tenants' channels are excluded at present."""
        return [
            replace(one, main_topic_only=True)
            if one.use is not None and self._tenants.excluded(one.use.tenant)
            else one
            for one in decided
        ]

    def _settle(self, decided: Sequence[Decided]) -> None:
        """Commit `decided`. A record that the broker refuses for a channel is omitted; one that it refuses for the main
        topic becomes a dead letter.
        """
        failures, unclear = 0, set[str]()
        while True:
            decided = self._without_excluded(decided)
            routes = self._routes(decided, unclear, hold_all=failures >= FAILURES_MAX)
            try:
                self._commit(decided, routes)
            except RefusedError as error:
                self._metrics.aborts.inc()
                if error.topic in {COMPLETIONS, DEAD_LETTERS, CHANNEL_EVENTS}:
                    self._put_aside(decided, error)
                    return
                if not self._failures.refused(error, routes.topics):
                    unclear.add(error.topic)
            except StalledError as error:
                self._metrics.aborts.inc()
                self._failures.stalled(error, routes.topics)
            else:
                self._channels.accept(routes.topics)
                self._count(decided, routes)
                return
            failures += 1

    def _routes(self, decided: Sequence[Decided], unclear: Collection[str], *, hold_all: bool) -> Routes:
        """`unclear` are topics that refused a record of one of several tenants. Their events are held, to be tried one
        by one; so are the events of doubted topics, and all after too many failures. No event of the main topic
        waits for them.
        """
        found = self._channels.routes({one.use for one in decided if one.use is not None})
        unsure = {use for use, topic in found.topics.items() if hold_all or topic in unclear}
        held = found.held | set(found.doubted) | unsure
        return replace(found, topics={use: topic for use, topic in found.topics.items() if use not in held}, held=held)

    def _commit(self, decided: Sequence[Decided], routes: Routes) -> None:
        messages = [message for one in decided for message in _messages(one, routes)]
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for one in decided:
            offsets[one.partition] = OffsetAndMetadata(one.record.offset + 1, "", -1)
        self._transactions.commit(messages, offsets, self._changes.group_metadata())

    def _put_aside(self, decided: Sequence[Decided], error: RefusedError) -> None:
        """An internal topic permanently refuses one of these records: find the record, so that it does not block the
        others.
        """
        if error.topic == CHANNEL_EVENTS and (not error.of_record or len(decided) == 1):
            self._log.error("channel_events_refused", reason=error.reason, events=len(decided))
            self._settle([replace(one, main_topic_only=True) for one in decided])
            return
        if not error.of_record:
            raise KafkaError(f"{error.topic} accepts no record: {error.reason}") from error
        if len(decided) > 1:
            for one in decided:
                self._settle([one])
            return
        [one] = decided
        match one.decision:
            case DeadLetter(reason, bare=False):
                replacement = DeadLetter(reason, bare=True)
            case Event():
                replacement = DeadLetter(f"the event was refused: {error.reason}")
            case _:
                raise KafkaError(f"{error.topic} accepts no record: {error.reason}") from error
        self._settle([replace(one, decision=replacement)])

    def _count(self, decided: Sequence[Decided], routes: Routes) -> None:
        now = datetime.now(UTC)
        self._metrics.batch.observe(len(decided))
        uses = [one.use for one in decided if one.use is not None]
        self._metrics.channels_held.inc(sum(use in routes.held for use in uses))
        main_topic_only = [use for use in uses if use not in routes.topics and use not in routes.held]
        self._metrics.channels_refused.inc(len(main_topic_only) + sum(one.main_topic_only for one in decided))
        self._failures.log_excluded(main_topic_only)
        for one in decided:
            match one.decision:
                case Event(change, _):
                    self._metrics.completions.labels(change.outcome).inc()
                    self._metrics.delay.observe(max(0.0, (now - change.completed_at).total_seconds()))
                    self._metrics.record_event()
                case DeadLetter(reason):
                    record = one.record
                    self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
                    self._metrics.dead_letters.inc()
                case None:
                    pass


def _messages(one: Decided, routes: Routes) -> list[Outgoing]:
    match one.decision:
        case Event(_, completion):
            messages = [Outgoing(COMPLETIONS, completion.key, completion.value, completion.headers)]
            if (use := one.use) is not None and use in routes.topics:
                messages.append(replace(messages[0], topic=routes.topics[use]))
            elif use is not None and use in routes.held:
                messages.append(held_record(completion, use))
            return messages
        case DeadLetter(reason, bare):
            return [dead_letter(one.record, reason, bare=bare)]
        case None:
            return []
