"""Creates the topics of channels and writes the events that were held for them, apart from the loop of completions.

The reasons are in docs/decisions/0015-channels-apart.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from services.notifier.channel_failures import FAILURES_MAX, ChannelFailures
from services.notifier.channel_state import ChannelState
from services.notifier.channels import ChannelUse, Routes
from services.notifier.connection import Connection
from services.notifier.held_events import Held, held_record, read_held
from services.notifier.metrics import NotifierMetrics
from tidings.contract.topics import channel_topic
from tidings.kafka.failures import RefusedError, StalledError
from tidings.kafka.topics import NOT_READY
from tidings.kafka.transactions import Outgoing
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

T = TypeVar("T")

POLL_SECONDS = 0.5
# The number of topics created for one batch. A broker on a small machine needs some 100 ms until a new topic accepts
# records.
NEW_MAX = 20
# The number of waits for a topic, 10 s each; after that the topic counts as refused.
TRIES_MAX = 3
# The number of doubted topics tried for one batch, each in a transaction of some 10 ms, until one trial fails.
TRIALS_MAX = 100
# The interval at which the broker is asked for its topics, because another instance may create one and an operator may
# delete one.
LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class _Plan:
    topics: Mapping[ChannelUse, str]
    # The events to be held again, with their number of tries.
    again: Mapping[Held, int]


class ChannelWorker:
    """Each `run_once` handles one bounded batch of held events. An event is written to the topic of its channel, or
    held again while the topic does not exist, or remains on the main topic only.
    """

    def __init__(
        self,
        connection: Connection,
        state: ChannelState,
        *,
        clock: Callable[[], float],
        progress: Progress,
        telemetry: Telemetry[NotifierMetrics],
    ) -> None:
        self._changes = connection.changes
        self._transactions = connection.transactions
        self._channels = state.channels
        self._tenants = state.tenants
        self._failures = ChannelFailures(state, telemetry.log)
        self._clock = clock
        self._progress = progress
        self._metrics = telemetry.metrics
        self._look_at = clock()

    def run_once(self) -> int:
        """Handle the available events, waiting up to half a second for them; return the number of events read.

        Raises `FencedError` and `KafkaError`; the batch is then read again.
        """
        if self._clock() >= self._look_at:
            self._channels.refresh()
            self._look_at = self._clock() + LOOK_SECONDS
        batch = self._changes.poll(timeout_ms=int(POLL_SECONDS * 1000))
        if not batch:
            return 0
        held = [read_held(partition, record) for partition, records in batch.items() for record in records]
        self._progress.batch_waits("topics of channels are being created")
        slow = self._make(held)
        self._progress.batch_waits("its transaction is in progress")
        self._settle(held, slow)
        self._progress.batch_committed()
        return len(held)

    def _make(self, held: Sequence[Held]) -> set[str]:
        """Create missing topics, for each tenant in turn; return the channels whose new topic is not ready."""
        wanted: dict[str, dict[ChannelUse, None]] = {}
        awaited = self._routes(held).held
        for one in held:
            if one.use is not None and one.use in awaited:
                wanted.setdefault(one.use.tenant, {})[one.use] = None
        return self._channels.make(round_robin([list(names) for names in wanted.values()], NEW_MAX))

    def _routes(self, held: Sequence[Held]) -> Routes:
        uses = [one.use for one in held if one.use is not None]
        return self._channels.routes([use for use in uses if not self._tenants.excluded(use.tenant)])

    def _settle(self, held: Sequence[Held], slow: Collection[str]) -> None:
        """Commit `held` in order. Each doubted topic is tried with its first event, alone.
        After a failed trial, which may have taken 8 s, the events of the topics that are still in doubt are held again.
        """
        rest, trials = held, TRIALS_MAX
        while rest:
            doubted = self._routes(rest).doubted if trials else {}
            number = next((number for number, one in enumerate(rest) if one.use in doubted), len(rest))
            if number:
                self._settle_together(rest[:number], slow)
            elif (use := rest[0].use) is not None:
                number, trials = 1, trials - 1 if self._try(rest[0], use, doubted[use]) else 0
            rest = rest[number:]

    def _try(self, one: Held, use: ChannelUse, topic: str) -> bool:
        """Return whether the doubted `topic` accepts an event.
        The decision on the event is committed in either case.
        """
        plan = _Plan({use: topic}, {})
        try:
            self._commit([one], plan)
        except (RefusedError, StalledError) as error:
            self._metrics.aborts.inc()
            self._channels.trial_failed()
            if isinstance(error, RefusedError):
                self._failures.refused(error, plan.topics)
                self._settle_together([one], ())
            else:
                self._hold_again(one, error)
                self._failures.stalled_alone(topic, use)
            return False
        self._channels.accept(plan.topics)
        return True

    def _hold_again(self, one: Held, error: StalledError) -> None:
        """Commit the event to the holding topic. Only if this succeeds can its own topic be the cause of `error`."""
        try:
            self._commit([one], _Plan({}, {one: one.tries}))
        except (RefusedError, StalledError) as second:
            raise KafkaError(f"the broker does not accept events: {second}") from error

    def _settle_together(self, held: Sequence[Held], slow: Collection[str]) -> None:
        """Commit `held` in one transaction.
        After too many failures each event is committed alone, so that a refusal affects only its own event.
        """
        failures = 0
        while True:
            plan = self._plan(held, slow)
            try:
                self._commit(held, plan)
            except RefusedError as error:
                self._metrics.aborts.inc()
                failures += 1 if self._failures.refused(error, plan.topics) else FAILURES_MAX
            except StalledError as error:
                self._metrics.aborts.inc()
                failures += 1
                self._failures.stalled(error, plan.topics)
            else:
                self._channels.accept(plan.topics)
                self._count(held, plan)
                return
            if failures >= FAILURES_MAX and len(held) > 1:
                for one in held:
                    self._settle_together([one], slow)
                return

    def _plan(self, held: Sequence[Held], slow: Collection[str]) -> _Plan:
        routes = self._routes(held)
        again = {one: tries for one in held if one.use in routes.held and (tries := self._tries(one, slow)) is not None}
        return _Plan(routes.topics, again | {one: one.tries for one in held if one.use in routes.doubted})

    def _tries(self, one: Held, slow: Collection[str]) -> int | None:
        """Return the number of tries with which the event is held again, or None if it is not."""
        if one.use is None or one.use.channel not in slow:
            return one.tries
        if one.tries + 1 < TRIES_MAX:
            return one.tries + 1
        if (topic := channel_topic(one.use.channel)) is not None:
            self._channels.refuse(topic.name, NOT_READY)
        return None

    def _commit(self, held: Sequence[Held], plan: _Plan) -> None:
        messages = [message for one in held if (message := _message(one, plan)) is not None]
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for one in held:
            offsets[one.partition] = OffsetAndMetadata(one.offset + 1, "", -1)
        self._transactions.commit(messages, offsets, self._changes.group_metadata())

    def _count(self, held: Sequence[Held], plan: _Plan) -> None:
        main_topic_only = [one.use for one in held if one.use is not None and _message(one, plan) is None]
        self._metrics.channels_refused.inc(len(main_topic_only))
        self._failures.log_excluded(main_topic_only)


def _message(one: Held, plan: _Plan) -> Outgoing | None:
    if one.use is None:
        return None
    if one in plan.again:
        return held_record(one.event, one.use, plan.again[one])
    topic = plan.topics.get(one.use)
    return None if topic is None else one.to(topic)


def round_robin(lists: Sequence[Sequence[T]], names_max: int) -> list[T]:
    """Return the first name of each list, then the second of each …, at most `names_max` and without duplicates."""
    return list(dict.fromkeys(_round_robin(lists)))[:names_max]


def _round_robin(lists: Sequence[Sequence[T]]) -> Iterator[T]:
    for number in range(max(map(len, lists), default=0)):
        yield from (names[number] for names in lists if number < len(names))
