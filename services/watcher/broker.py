"""The open transactions on the broker, as its partitions and its coordinators report them (KIP-664)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from kafka.admin import KafkaAdminClient
from kafka.admin._transactions import AbortTransactionSpec, TransactionState
from kafka.errors import (
    AuthorizationError,
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    TransactionalIdNotFoundError,
)
from kafka.structs import TopicPartition

from services.watcher.transactions import (
    BrokerUnavailableError,
    CoordinatorUnavailableError,
    OpenTransaction,
    Ownership,
    RightMissingError,
)
from tidings.kafka.cluster import Cluster

T = TypeVar("T")

REQUEST_TIMEOUT_MS = 5_000
# The prefix of our topics, and the topic in which the positions of consumers are committed.
PREFIX = "tidings."
OFFSETS = "__consumer_offsets"
TRANSACTIONS = "__transaction_state"
# The transactional ids of the notifier and of the connector's tasks begin with the first prefix, that of Connect's
# leader with the second. The watcher must not abort transactions of other owners.
OUR_IDS = ("tidings-", "connect-cluster-tidings-")
# The maximum number of partitions in one request.
PARTITIONS_MAX = 200
_UNDER_WAY = frozenset(
    {
        TransactionState.ONGOING,
        TransactionState.PREPARE_COMMIT,
        TransactionState.PREPARE_ABORT,
        TransactionState.PREPARE_EPOCH_FENCE,
    }
)


class Broker:
    """One connection, opened when it is needed, and again after a failure."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin: Any = None

    def open_transactions(self) -> list[OpenTransaction]:
        return self._ask(open_transactions)

    def ownerships(self, candidates: Collection[OpenTransaction]) -> dict[OpenTransaction, Ownership]:
        return self._ask(lambda admin: ownerships(admin, candidates))

    def abort(self, transaction: OpenTransaction) -> None:
        spec = AbortTransactionSpec(
            TopicPartition(transaction.topic, transaction.partition),
            transaction.producer_id,
            transaction.producer_epoch,
            # -1: this producer has no marker in the partition yet; any epoch is valid then.
            max(0, transaction.coordinator_epoch),
        )
        self._ask(lambda admin: admin.abort_transaction(spec))

    def close(self) -> None:
        if self._admin is not None:
            admin, self._admin = self._admin, None
            admin.close()

    def _ask(self, question: Callable[[Any], T]) -> T:
        try:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    **self._cluster.options,
                    client_id="tidings-watcher",
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    bootstrap_timeout_ms=REQUEST_TIMEOUT_MS,
                )
            return question(self._admin)
        except (CoordinatorUnavailableError, RightMissingError):
            raise
        except ClusterAuthorizationFailedError:  # raised by the abort; no other request needs a right on the cluster
            raise RightMissingError(_missing("CLUSTER_ACTION on cluster")) from None
        except AuthorizationError as error:
            raise RightMissingError(f"a right is missing: {type(error).__name__}") from None
        except (KafkaError, OSError, ValueError, RuntimeError) as error:  # ValueError: a state of a later Kafka
            self.close()
            raise BrokerUnavailableError(type(error).__name__) from None


def open_transactions(admin: Any) -> list[OpenTransaction]:
    """Return the open transactions in the relevant partitions.
    Raises `RightMissingError` unless all of them can be seen and classified.
    """
    _require_rights(admin)
    return [one for part in _parts(admin) for one in _open(admin, part)]


def _require_rights(admin: Any) -> None:
    """Check each right by name. Kafka omits entries without a right from most of its lists, so that they seem not to
    exist: a transaction in progress would look like one without a coordinator.
    """
    described = {topic["name"]: topic["error_code"] for topic in admin.describe_topics([OFFSETS, TRANSACTIONS])}
    for topic, operation in ((OFFSETS, "READ"), (TRANSACTIONS, "DESCRIBE")):
        if described.get(topic) == TopicAuthorizationFailedError.errno:
            raise RightMissingError(_missing(f"{operation} on topic {topic}"))
    if described.get(TRANSACTIONS) != 0:
        return  # there has been no transaction yet
    for prefix in OUR_IDS:
        try:
            admin.describe_transactions([f"{prefix}watcher"])
        except TransactionalIdNotFoundError:
            pass  # the id does not exist; a client without the right gets the other error
        except TransactionalIdAuthorizationFailedError:
            raise RightMissingError(_missing(f"DESCRIBE on transactional id {prefix}*")) from None


def _missing(right: str) -> str:
    return f"the right {right} is missing (docs/how-to/secure-kafka.md)"


def _parts(admin: Any) -> Iterator[list[TopicPartition]]:
    """Yield the partitions of the relevant topics that have a leader, in parts."""
    found = [
        TopicPartition(topic["name"], partition["partition_index"])
        for topic in admin.describe_topics()
        if topic["name"].startswith(PREFIX) or topic["name"] == OFFSETS
        for partition in topic["partitions"]
        if partition["leader_id"] >= 0
    ]
    if not any(part.topic.startswith(PREFIX) for part in found):
        raise RightMissingError(
            f"no topic {PREFIX}* is visible: none exists yet, or {_missing(f'READ on topic {PREFIX}*')}"
        )
    for start in range(0, len(found), PARTITIONS_MAX):
        yield found[start : start + PARTITIONS_MAX]


def _open(admin: Any, parts: list[TopicPartition]) -> Iterator[OpenTransaction]:
    try:
        described = admin.describe_producers(parts)
    except BrokerResponseError as error:
        if len(parts) == 1 and isinstance(error, TopicAuthorizationFailedError):
            right = OFFSETS if parts[0].topic == OFFSETS else f"{PREFIX}*"
            raise RightMissingError(_missing(f"READ on topic {right}")) from None
        if len(parts) == 1 and not error.retriable:
            raise
        if len(parts) == 1:  # a topic that is being created or deleted; an unavailable broker raises another error
            return
        middle = len(parts) // 2
        yield from _open(admin, parts[:middle])
        yield from _open(admin, parts[middle:])
        return
    for part, state in described.items():
        for producer in state.active_producers:
            if producer.current_transaction_start_offset >= 0:
                yield OpenTransaction(
                    part.topic, part.partition, producer.producer_id, producer.producer_epoch,
                    producer.coordinator_epoch, producer.current_transaction_start_offset,
                )  # fmt: skip


def ownerships(admin: Any, candidates: Collection[OpenTransaction]) -> dict[OpenTransaction, Ownership]:
    """Return which coordinator ends each of `candidates`. Either all coordinators respond, or the result is not used.

    Each partition of Kafka's topic of transactions has a coordinator, its leader. If a coordinator is unavailable or
    changes during the requests, its transactions would look like transactions without one. A coordinator that is still
    loading its partition reports that. A coordinator lists the transactional id of a producer even if nothing is open.
    An id that is not listed is therefore either not visible, or has a new producer: in both cases its owner is unknown.
    """
    coordinators = _coordinators(admin)
    producers = sorted({one.producer_id for one in candidates})
    listed = admin.list_transactions(broker_ids=sorted(set(coordinators.values())), producer_id_filters=producers)
    if _coordinators(admin) != coordinators:
        raise CoordinatorUnavailableError("transaction coordinators are changing")
    ids = {listing.producer_id: listing.transactional_id for listings in listed.values() for listing in listings}
    under_way = {
        (one.producer_id, part.topic, part.partition)
        for one in admin.describe_transactions(sorted(set(ids.values()))).values()
        if one.state in _UNDER_WAY
        for part in one.topic_partitions
    }
    return {one: _ownership(one, ids.get(one.producer_id), under_way) for one in candidates}


def _ownership(one: OpenTransaction, id_: str | None, under_way: Collection[tuple[int, str, int]]) -> Ownership:
    if (one.producer_id, one.topic, one.partition) in under_way:
        return Ownership.COORDINATED
    if id_ is None:
        return Ownership.UNKNOWN
    return Ownership.FORGOTTEN if id_.startswith(OUR_IDS) else Ownership.FOREIGN


def _coordinators(admin: Any) -> dict[int, int]:
    """Return the broker of each partition of the topic of transactions.
    Raises `CoordinatorUnavailableError` if a partition has none.
    """
    found = {
        partition["partition_index"]: partition["leader_id"]
        for topic in admin.describe_topics([TRANSACTIONS])
        for partition in topic["partitions"]
    }
    away = sorted(number for number, leader in found.items() if leader < 0)
    if not found:
        raise CoordinatorUnavailableError(
            f"{TRANSACTIONS} is not visible: it does not exist, or DESCRIBE on it is not granted"
        )
    if away:
        raise CoordinatorUnavailableError(f"{len(away)} of {len(found)} transaction coordinators do not respond")
    return found
