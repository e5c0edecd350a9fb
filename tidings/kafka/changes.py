"""A consumer of committed changes. It decides where to start, and reports the changes that it has missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import MemberState, OffsetAndMetadata, TopicPartition
from structlog.stdlib import BoundLogger

from tidings.kafka.cluster import Cluster
from tidings.kafka.failures import JoinError
from tidings.kafka.topics import BOOTSTRAP_TIMEOUT_MS, REQUEST_TIMEOUT_MS
from tidings.process.progress import Progress

# With static membership an instance that restarts gets its partitions back at once; one that stays away loses them to
# the other members after this time. The broker allows no less than 6 s.
SESSION_TIMEOUT_MS = 10_000
COMMIT_TIMEOUT_MS = 10_000
# The timeout of requests about positions; a broker that takes longer counts as unavailable.
ASK_TIMEOUT_MS = 5_000
CLOSE_TIMEOUT_MS = 2_000
# kafka-python 3.0.12 loses the response to a SyncGroup that arrives after the poll that sent the request has timed out,
# if new metadata caused the rejoin, as at each start. The member then waits for ever, without partitions and without
# heartbeats. A poll during a join is therefore longer than a join usually takes, and a member that has not joined after
# JOIN_SECONDS_MAX gets a new consumer. A join waits for the slowest member of the group, which does not poll while it
# handles a batch, of seconds in general.
JOIN_POLL_MS = 3_000
JOIN_SECONDS_MAX = 60.0
# The range assignor gives partition n of each topic to the same member, which thus reads a submission and its result; a
# sticky assignor ignores such pairs. Only one assignor is offered, because with two the other members decide. Static
# membership provides the benefit of a sticky assignor, stable partitions across a restart.
ASSIGNORS = (RangePartitionAssignor,)
HOW_TO = "docs/how-to/expired-changes.md"

# The errors for a position that the log does not contain.
POSITION_ERRORS = (NoOffsetForPartitionError, OffsetOutOfRangeError, LogTruncationError)

Batch = Mapping[TopicPartition, Sequence[Any]]


@dataclass(frozen=True)
class Subscription:
    """What a process reads: `topics`, as the member `instance` of `group`, at most `batch_max` records at a time.

    `expiry_is_fault` is false for changes that another process carries out if they were not read.
    """

    group: str
    instance: str
    batch_max: int
    topics: tuple[str, ...]
    expiry_is_fault: bool = True


def kafka_consumer(cluster: Cluster, subscription: Subscription) -> Any:
    """Create a consumer of kafka-python, with every setting that delivery depends on."""
    return KafkaConsumer(
        **cluster.options,
        group_id=subscription.group,
        group_instance_id=f"{subscription.group}-{subscription.instance}",
        partition_assignment_strategy=ASSIGNORS,
        client_id=f"{subscription.group}-{subscription.instance}",
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",  # a position outside the log is an error; see `Changes`
        fetch_min_bytes=1,
        fetch_max_wait_ms=500,
        max_poll_records=subscription.batch_max,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=3_000,
        max_poll_interval_ms=300_000,
        metadata_max_age_ms=30_000,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
    )


class Changes:
    """The changes of a subscription. Each is read once or reported as missed.

    A partition without a committed position is read from its beginning. Records that expired before they were read are
    counted and logged, and `progress` reports a fault until the process is restarted: only an operator knows whether
    they were emitted again.
    """

    def __init__(
        self,
        consumer: Any,
        subscription: Subscription,
        *,
        progress: Progress,
        log: BoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expiry_is_fault = subscription.expiry_is_fault
        self._consumer = consumer
        self._progress = progress
        self._log = log
        self._clock = clock
        # None once this member has joined its group.
        self._joining_since: float | None = clock()
        consumer.subscribe(list(subscription.topics))

    def poll(self, timeout_ms: int) -> Batch:
        """Return the available records, after `timeout_ms` at the latest, or {} if there are none. Raises a
        `KafkaError`.

        While this member joins its group, a poll takes up to `JOIN_POLL_MS`. Raises `JoinError` if it has not joined
        after `JOIN_SECONDS_MAX`.
        """
        if self._joining_since is not None:
            timeout_ms = max(timeout_ms, JOIN_POLL_MS)
        try:
            batch: Batch = self._consumer.poll(timeout_ms=timeout_ms)
        except POSITION_ERRORS as error:
            self._reset_positions(error)
            return {}
        self._note_membership()
        return batch

    def commit(self, offsets: Mapping[TopicPartition, Any]) -> None:
        self._consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_MS)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)

    def assignment(self) -> set[TopicPartition]:
        return set(self._consumer.assignment())

    def pause(self, *partitions: TopicPartition) -> None:
        self._consumer.pause(*partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self._consumer.paused())

    def resume(self, *partitions: TopicPartition) -> None:
        self._consumer.resume(*partitions)

    def group_metadata(self) -> Any:
        return self._consumer.group_metadata()

    @property
    def silent(self) -> bool:
        """Whether this member has joined its group and sends no heartbeats. kafka-python 3.0.12 stops them when another
        consumer takes the member's name; it then raises no error, and polls without a pause.
        """
        joined = self._consumer.group_metadata().state == MemberState.STABLE
        return joined and not self._consumer._coordinator._heartbeat_enabled  # noqa: SLF001  nothing public says it

    def look(self) -> int:
        """Ask the broker for the end of each partition and note it; return the number of unread records. Raises a
        `KafkaError`.

        The end offset counts committed records only: a hanging transaction stops it. The high watermark, which comes
        with each fetch, continues to move.
        """
        partitions = self.assignment()
        ends = self._consumer.end_offsets(partitions, timeout_ms=ASK_TIMEOUT_MS) if partitions else {}
        standing = {}
        for partition, end in ends.items():
            position = self._position(partition)
            if position is not None:
                standing[partition] = (position, max(end, self._consumer.highwater(partition) or 0))
        self._progress.positions(standing)
        return sum(max(0, end - position) for position, end in standing.values())

    def close(self) -> None:
        self._consumer.close(timeout_ms=CLOSE_TIMEOUT_MS)

    def _position(self, partition: TopicPartition) -> int | None:
        try:
            return self._consumer.position(partition, timeout_ms=ASK_TIMEOUT_MS)  # type: ignore[no-any-return]
        except POSITION_ERRORS as error:
            self._reset_positions(error)
            return None

    def _note_membership(self) -> None:
        now = self._clock()
        if self._consumer.group_metadata().state == MemberState.STABLE:
            self._joining_since = None
        elif self._joining_since is None:
            self._joining_since = now
        elif now - self._joining_since > JOIN_SECONDS_MAX:
            raise JoinError(f"the consumer has not joined its group for {now - self._joining_since:.0f} s")

    def _reset_positions(self, error: Exception) -> None:
        """Set a valid position for every partition without one, and commit it for the next start."""
        named = error.divergent_offsets if isinstance(error, LogTruncationError) else error.args[0]
        partitions = set(named) & self.assignment()
        if not partitions:
            return
        positions = named if isinstance(named, Mapping) else {}
        beginnings = self._consumer.beginning_offsets(partitions, timeout_ms=ASK_TIMEOUT_MS)
        for partition in sorted(partitions):
            if isinstance(error, LogTruncationError):
                beginnings[partition] = self._truncated(partition, positions[partition], beginnings[partition])
            else:
                self._out_of_range(partition, positions.get(partition), beginnings[partition])
            self._consumer.seek(partition, beginnings[partition])
        self.commit({partition: OffsetAndMetadata(offset, "", -1) for partition, offset in beginnings.items()})

    def _out_of_range(self, partition: TopicPartition, position: int | None, beginning: int) -> None:
        where = {
            "topic": partition.topic,
            "partition": partition.partition,
            "position": position,
            "beginning": beginning,
        }
        missed = beginning - (position or 0)
        if missed > 0 and not self._expiry_is_fault:
            self._log.warning("changes_expired", **where, missed=missed, next="the reconciler carries them out")
        elif missed > 0:
            self._log.error("changes_expired", **where, missed=missed, how_to=HOW_TO)
            self._progress.records_missed(missed)
        elif position is not None:
            self._log.error("log_shorter_than_read", **where, next="read from the beginning")

    def _truncated(self, partition: TopicPartition, safe: Any, beginning: int) -> int:
        """Return the offset up to which a truncated log, as after an unclean election, still contains the records that
        were read.
        """
        offset: int = safe.offset if safe is not None else beginning
        self._log.error("log_truncated", topic=partition.topic, partition=partition.partition, next_offset=offset)
        return offset


def change_consumer(cluster: Cluster, subscription: Subscription, *, progress: Progress, log: BoundLogger) -> Changes:
    """Return a consumer of the changes of `subscription`; offsets are committed explicitly."""
    return Changes(kafka_consumer(cluster, subscription), subscription, progress=progress, log=log)
