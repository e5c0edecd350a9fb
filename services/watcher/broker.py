"""The transactions that are open on the broker, as its partitions and its coordinators see them (KIP-664)."""

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
    CoordinatorsAwayError,
    Fate,
    OpenTransaction,
    RightMissingError,
)
from tidings.kafka.cluster import Cluster

T = TypeVar("T")

REQUEST_TIMEOUT_MS = 5_000
# Ours, and the one in which consumers' positions are committed.
PREFIX = "tidings."
OFFSETS = "__consumer_offsets"
TRANSACTIONS = "__transaction_state"
# Transactional ids of the notifier and of the connector's tasks begin with the first, that of Connect's leader with the
# second. The transactions of others are not ours to end.
OUR_IDS = ("tidings-", "connect-cluster-tidings-")
# Asked about in one request.
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
    """One connection, made when it is needed, and anew after a failure."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin: Any = None

    def open_transactions(self) -> list[OpenTransaction]:
        return self._ask(open_transactions)

    def fates(self, candidates: Collection[OpenTransaction]) -> dict[OpenTransaction, Fate]:
        return self._ask(lambda admin: fates(admin, candidates))

    def abort(self, transaction: OpenTransaction) -> None:
        spec = AbortTransactionSpec(
            TopicPartition(transaction.topic, transaction.partition),
            transaction.producer_id,
            transaction.producer_epoch,
            # -1: this producer has no marker in the partition yet; any epoch will do then.
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
        except (CoordinatorsAwayError, RightMissingError):
            raise
        except ClusterAuthorizationFailedError:  # of the abort; no other request asks for rights on the cluster
            raise RightMissingError(_missing("CLUSTER_ACTION on cluster")) from None
        except AuthorizationError as error:
            raise RightMissingError(f"a right is missing: {type(error).__name__}") from None
        except (KafkaError, OSError, ValueError, RuntimeError) as error:  # a state of a later Kafka is a ValueError
            self.close()
            raise BrokerUnavailableError(type(error).__name__) from None


def open_transactions(admin: Any) -> list[OpenTransaction]:
    """What is open in the partitions that concern us. Raises `RightMissingError` unless all of it can be seen and judged."""
    _require_rights(admin)
    return [one for part in _parts(admin) for one in _open(admin, part)]


def _require_rights(admin: Any) -> None:
    """Kafka leaves what may not be seen out of most of its lists, and what is left out would look as if it were not there:
    a transaction under way as one that no coordinator ends. So each right is asked for by name.
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
            pass  # nobody has this id; whoever may not see it is told so instead
        except TransactionalIdAuthorizationFailedError:
            raise RightMissingError(_missing(f"DESCRIBE on transactional id {prefix}*")) from None


def _missing(right: str) -> str:
    return f"the right {right} is missing (docs/how-to/secure-kafka.md)"


def _parts(admin: Any) -> Iterator[list[TopicPartition]]:
    """The partitions of our topics that have a leader, in parts."""
    found = [
        TopicPartition(topic["name"], partition["partition_index"])
        for topic in admin.describe_topics()
        if topic["name"].startswith(PREFIX) or topic["name"] == OFFSETS
        for partition in topic["partitions"]
        if partition["leader_id"] >= 0
    ]
    if not any(part.topic.startswith(PREFIX) for part in found):
        raise RightMissingError(
            f"no topic {PREFIX}* can be seen: none was made yet, or {_missing(f'READ on topic {PREFIX}*')}"
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
        if len(parts) == 1:  # of a topic that is just being made or deleted; a broker that is away is no answer
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


def fates(admin: Any, candidates: Collection[OpenTransaction]) -> dict[OpenTransaction, Fate]:
    """Who ends each of `candidates`. All coordinators are asked, or none is believed.

    Each partition of Kafka's own topic of transactions has a coordinator, its leader. One that is away, or changes
    meanwhile, would make its transactions look like those that nobody ends. One that is still reading says so. A
    coordinator lists a producer's transactional id when nothing is open as well, so that one that is not listed may not be
    seen, or was given a new producer: of neither is it known whose it is.
    """
    coordinators = _coordinators(admin)
    producers = sorted({one.producer_id for one in candidates})
    listed = admin.list_transactions(broker_ids=sorted(set(coordinators.values())), producer_id_filters=producers)
    if _coordinators(admin) != coordinators:
        raise CoordinatorsAwayError("coordinators of transactions are changing")
    ids = {listing.producer_id: listing.transactional_id for listings in listed.values() for listing in listings}
    under_way = {
        (one.producer_id, part.topic, part.partition)
        for one in admin.describe_transactions(sorted(set(ids.values()))).values()
        if one.state in _UNDER_WAY
        for part in one.topic_partitions
    }
    return {one: _fate(one, ids.get(one.producer_id), under_way) for one in candidates}


def _fate(one: OpenTransaction, id_: str | None, under_way: Collection[tuple[int, str, int]]) -> Fate:
    if (one.producer_id, one.topic, one.partition) in under_way:
        return Fate.COORDINATED
    if id_ is None:
        return Fate.UNKNOWN
    return Fate.FORGOTTEN if id_.startswith(OUR_IDS) else Fate.THEIRS


def _coordinators(admin: Any) -> dict[int, int]:
    """The broker of each partition of the topic of transactions. Raises `CoordinatorsAwayError` when one has none."""
    found = {
        partition["partition_index"]: partition["leader_id"]
        for topic in admin.describe_topics([TRANSACTIONS])
        for partition in topic["partitions"]
    }
    away = sorted(number for number, leader in found.items() if leader < 0)
    if not found:
        raise CoordinatorsAwayError(f"{TRANSACTIONS} cannot be seen: it is not there, or DESCRIBE on it is not granted")
    if away:
        raise CoordinatorsAwayError(f"{len(away)} of {len(found)} coordinators of transactions are away")
    return found
