"""A consumer of committed changes. Where it starts, and what it has missed, is decided here and said aloud."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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

# With static membership a copy that died and came back takes its partitions at once; one that stays away loses them to
# the others after this long. The broker allows no less than 6 s.
SESSION_TIMEOUT_MS = 10_000
COMMIT_TIMEOUT_MS = 10_000
# Of requests about positions; a broker that needs longer is one that does not answer.
ASK_TIMEOUT_MS = 5_000
CLOSE_TIMEOUT_MS = 2_000
# kafka-python 3.0.12 loses the answer to a SyncGroup that arrives after the poll that asked for it has timed out, when
# the rejoin was caused by new metadata, as it is at each start: the member then waits for ever, without partitions and
# without heartbeats. A poll while the member joins is therefore longer than a join usually takes, and a member that has
# not joined after JOIN_SECONDS_MAX gets a new consumer. A join waits for the slowest member of the group, which is away
# from its poll while it handles a batch, of seconds in general.
JOIN_POLL_MS = 3_000
JOIN_SECONDS_MAX = 60.0
# By range, partition n of each topic goes to the same member, which so reads a submission and its end; a sticky assignor
# looks at no such pairs. One alone, as whoever offers two leaves the choice to the other members. What sticky ones save,
# partitions that wander at a restart, static membership saves here.
ASSIGNORS = (RangePartitionAssignor,)
HOW_TO = "docs/how-to/expired-changes.md"

# The log does not hold the position of a partition.
UNPLACED = (NoOffsetForPartitionError, OffsetOutOfRangeError, LogTruncationError)

Batch = Mapping[TopicPartition, Sequence[Any]]


def kafka_consumer(cluster: Cluster, *, group: str, instance: str, batch_max: int) -> Any:
    """kafka-python's consumer, with every setting that delivery depends on."""
    return KafkaConsumer(
        **cluster.options,
        group_id=group,
        group_instance_id=f"{group}-{instance}",
        partition_assignment_strategy=ASSIGNORS,
        client_id=f"{group}-{instance}",
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",  # a position that the log does not hold is an error; see `Changes`
        fetch_min_bytes=1,
        fetch_max_wait_ms=500,
        max_poll_records=batch_max,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=3_000,
        max_poll_interval_ms=300_000,
        metadata_max_age_ms=30_000,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
    )


class Changes:
    """The changes of `topics`, each of them read once or said to be missed.

    A partition without a committed position is read from its beginning. Records that expired before they were read are
    counted and logged, and `progress` is at fault until the process is restarted: only a person knows that they were
    told again.
    """

    def __init__(
        self,
        consumer: Any,
        topics: Iterable[str],
        *,
        progress: Progress,
        log: BoundLogger,
        clock: Callable[[], float] = time.monotonic,
        expiry_is_fault: bool = True,
    ) -> None:
        """`expiry_is_fault`: false for changes that another process carries out when they were not read."""
        self._expiry_is_fault = expiry_is_fault
        self._consumer = consumer
        self._progress = progress
        self._log = log
        self._clock = clock
        # None while this member has joined its group.
        self._joining_since: float | None = clock()
        consumer.subscribe(list(topics))

    def poll(self, timeout_ms: int) -> Batch:
        """What there is, after `timeout_ms` at the latest; {} when nothing is. Raises a `KafkaError`.

        While this member joins its group, a poll takes up to `JOIN_POLL_MS`. Raises `JoinError` when it has not joined
        after `JOIN_SECONDS_MAX`.
        """
        if self._joining_since is not None:
            timeout_ms = max(timeout_ms, JOIN_POLL_MS)
        try:
            batch: Batch = self._consumer.poll(timeout_ms=timeout_ms)
        except UNPLACED as error:
            self._place(error)
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

    def look(self) -> int:
        """Ask the broker where the partitions end, and note it; how many records are not read. Raises a `KafkaError`.

        The end is that of committed records; behind a transaction that nobody ends it does not move, the high watermark
        that comes with each fetch does.
        """
        parts = self.assignment()
        ends = self._consumer.end_offsets(parts, timeout_ms=ASK_TIMEOUT_MS) if parts else {}
        standing = {}
        for part, end in ends.items():
            position = self._position(part)
            if position is not None:
                standing[part] = (position, max(end, self._consumer.highwater(part) or 0))
        self._progress.stands(standing)
        return sum(max(0, end - position) for position, end in standing.values())

    def close(self) -> None:
        self._consumer.close(timeout_ms=CLOSE_TIMEOUT_MS)

    def _position(self, part: TopicPartition) -> int | None:
        try:
            return self._consumer.position(part, timeout_ms=ASK_TIMEOUT_MS)  # type: ignore[no-any-return]
        except UNPLACED as error:
            self._place(error)
            return None

    def _note_membership(self) -> None:
        now = self._clock()
        if self._consumer.group_metadata().state == MemberState.STABLE:
            self._joining_since = None
        elif self._joining_since is None:
            self._joining_since = now
        elif now - self._joining_since > JOIN_SECONDS_MAX:
            raise JoinError(f"the consumer has not joined its group for {now - self._joining_since:.0f} s")

    def _place(self, error: Exception) -> None:
        """Give every partition that has none a position that its log holds, and keep to it at the next start."""
        named = error.divergent_offsets if isinstance(error, LogTruncationError) else error.args[0]
        parts = set(named) & self.assignment()
        if not parts:
            return
        positions = named if isinstance(named, Mapping) else {}
        beginnings = self._consumer.beginning_offsets(parts, timeout_ms=ASK_TIMEOUT_MS)
        for part in sorted(parts):
            if isinstance(error, LogTruncationError):
                beginnings[part] = self._truncated(part, positions[part], beginnings[part])
            else:
                self._out_of_range(part, positions.get(part), beginnings[part])
            self._consumer.seek(part, beginnings[part])
        self.commit({part: OffsetAndMetadata(offset, "", -1) for part, offset in beginnings.items()})

    def _out_of_range(self, part: TopicPartition, position: int | None, beginning: int) -> None:
        where = {"topic": part.topic, "partition": part.partition, "position": position, "beginning": beginning}
        missed = beginning - (position or 0)
        if missed > 0 and not self._expiry_is_fault:
            self._log.warning("changes_expired", **where, missed=missed, next="the reconciler carries them out")
        elif missed > 0:
            self._log.error("changes_expired", **where, missed=missed, how_to=HOW_TO)
            self._progress.missed(missed)
        elif position is not None:
            self._log.error("log_shorter_than_read", **where, next="read from the beginning")

    def _truncated(self, part: TopicPartition, safe: Any, beginning: int) -> int:
        """Where a log that lost records, as by an unclean election, still holds what was read of it."""
        offset: int = safe.offset if safe is not None else beginning
        self._log.error("log_truncated", topic=part.topic, partition=part.partition, next_offset=offset)
        return offset


def change_consumer(
    cluster: Cluster,
    topics: Iterable[str],
    *,
    group: str,
    instance: str,
    batch_max: int,
    progress: Progress,
    log: BoundLogger,
    expiry_is_fault: bool = True,
) -> Changes:
    """Changes of `topics`, read as the member `instance` of `group`, which commits by hand."""
    consumer = kafka_consumer(cluster, group=group, instance=instance, batch_max=batch_max)
    return Changes(consumer, topics, progress=progress, log=log, expiry_is_fault=expiry_is_fault)
