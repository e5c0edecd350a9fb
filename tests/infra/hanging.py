"""Creates a hanging transaction: it is open in a partition, and its coordinator has no record of it."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.protocol.producer import ProduceRequest
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from tests.wait import until

# The broker refuses a record of a transaction that the coordinator does not know (KIP-890), unless this is set.
VERIFICATION = "transaction.partition.verification.enable"
NODE = "1"


def hang(bootstrap: str, topic: str, partition: int, *, name: str, value: bytes = b"hanging") -> None:
    """Write a record of a transaction of `name` that its coordinator has completed, as after a crash of a broker."""
    producer_id, epoch = _completed(bootstrap, topic, partition, name)
    builder = MemoryRecordsBuilder(
        2, 0, 100_000, transactional=True, producer_id=producer_id, producer_epoch=epoch, base_sequence=1
    )
    builder.append(int(time.time() * 1000), b"key", value, [])
    builder.close()
    data = ProduceRequest.TopicProduceData
    request = ProduceRequest(
        transactional_id=name,
        acks=-1,
        timeout_ms=5000,
        topic_data=[
            data(name=topic, partition_data=[data.PartitionProduceData(index=partition, records=builder.buffer())])
        ],
        min_version=3,
        max_version=9,
    )
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        _set(admin, VERIFICATION, "false")
        try:
            until(lambda: _sent(admin, request, TopicPartition(topic, partition)), 30)
        finally:
            _set(admin, VERIFICATION, "true")


def _completed(bootstrap: str, topic: str, partition: int, name: str) -> tuple[int, int]:
    """The producer id and epoch of a transaction that was begun and aborted in this partition."""
    with closing(KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name, linger_ms=0)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, key=b"key", value=b"aborted", partition=partition).get(timeout=15)
        producer.abort_transaction()
        ids = producer._transaction_manager.producer_id_and_epoch
        return ids.producer_id, ids.epoch


def _sent(admin: Any, request: Any, part: TopicPartition) -> bool:
    async def send() -> Any:
        leaders = await admin._async_get_leader_for_partitions([part])
        return await admin._manager.send(request, node_id=next(iter(leaders)))

    return bool(admin._manager.run(send).responses[0].partition_responses[0].error_code == 0)


def _set(admin: Any, name: str, value: str) -> None:
    admin.alter_configs(
        [ConfigResource(ConfigResourceType.BROKER, NODE, configs={name: value})], raise_on_unknown=False
    )
