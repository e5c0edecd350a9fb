"""The reaction to a transaction that failed because of a channel: exclude the cause, so that the next one succeeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kafka.errors import KafkaError
from structlog.stdlib import BoundLogger

from services.notifier.channel_state import ChannelState
from services.notifier.channels import ChannelUse
from tidings.contract.topics import COMPLETIONS
from tidings.kafka.failures import RefusedError, StalledError

# Each failure costs an aborted transaction, some 100 ms. A batch with more failures is handled in another way.
FAILURES_MAX = 8


class ChannelFailures:
    """`topics` are the topics of channels in the transaction, by the use of each event."""

    def __init__(self, state: ChannelState, log: BoundLogger) -> None:
        self._channels = state.channels
        self._tenants = state.tenants
        self._log = log

    def refused(self, error: RefusedError, topics: Mapping[ChannelUse, str]) -> bool:
        """A topic refused a record. Returns False if several tenants have records in it, so that one tenant's record
        may be the cause.

        Raises `KafkaError` for a topic that is not in `topics`.
        """
        users = {use.tenant for use, topic in topics.items() if topic == error.topic}
        if not users:
            raise KafkaError(f"{error.topic} accepts no record: {error.reason}") from error
        if error.of_record and len(users) > 1:
            return False
        for tenant in users if error.of_record else [None]:
            self._refuse(error.topic, error.reason, tenant)
        if len(users if error.of_record else users | self._channels.users(error.topic)) == 1:
            self._count_failure(users, {error.topic})
        return True

    def stalled(self, error: StalledError, topics: Mapping[ChannelUse, str]) -> None:
        """The transaction timed out and nothing was committed. Exclude the channels' topics that hang, unless the
        broker itself hangs; deleted topics are created again. Raises `KafkaError` if the broker is the cause.
        """
        named = set(topics.values())
        hanging = set(error.topics) & named
        self._log.warning("transaction_stalled", topics=str(error))
        if not named or COMPLETIONS in error.topics or (error.topics and not hanging):
            raise KafkaError(f"the broker does not accept events: {error}") from error
        deleted = self._channels.deleted(named)
        excluded_topics = self._channels.count_failure(hanging - deleted)
        if not deleted and not hanging and (doubted := self._channels.suspects(named)):
            self._log.warning("channel_topics_in_doubt", topics=sorted(doubted))
        for topic in sorted(excluded_topics):
            self._refuse(topic, "events were not accepted in time")
        self._count_failure_of_sole_users(deleted | excluded_topics, topics)

    def stalled_alone(self, topic: str, use: ChannelUse) -> None:
        """An event for `topic`, alone in its transaction, was not accepted in time; the broker then accepted it on an
        internal topic. A deleted topic is created again.
        """
        deleted = self._channels.deleted({topic})
        if not deleted and not self._channels.stalled_alone(topic):
            return
        if not deleted:
            self._log.warning(
                "channel_topic_refuses", topic=topic, reason="events were not accepted in time", tenant=None
            )
        self._count_failure_of_sole_users({topic}, {use: topic})

    def log_excluded(self, uses: Collection[ChannelUse]) -> None:
        """Log that the events of these uses go to the main topic only."""
        for use in sorted(set(uses), key=lambda use: (use.channel, use.tenant)):
            if (reason := self._channels.reason_to_log(use)) is not None:
                self._log.warning("channel_refused", channel=use.channel, reason=reason)

    def _refuse(self, topic: str, reason: str, tenant: str | None = None) -> None:
        self._channels.refuse(topic, reason, tenant)
        self._log.warning("channel_topic_refuses", topic=topic, reason=reason, tenant=tenant)

    def _count_failure_of_sole_users(self, failed_topics: Collection[str], topics: Mapping[ChannelUse, str]) -> None:
        """Count the failure against the tenant of a topic. If several tenants share the topic, the cause is unknown."""
        tenants: set[str] = set()
        for topic in failed_topics:
            users = {use.tenant for use, named in topics.items() if named == topic} | self._channels.users(topic)
            tenants |= users if len(users) == 1 else set()
        self._count_failure(tenants, failed_topics)

    def _count_failure(self, tenants: Collection[str], topics: Collection[str]) -> None:
        for tenant, seconds in self._tenants.count_failure(tenants).items():
            self._log.warning("tenant_left_out", tenant=tenant, seconds=seconds, topics=sorted(topics))
