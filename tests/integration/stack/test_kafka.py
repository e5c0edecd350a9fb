"""The broker: usable as soon as the fixture says so, and strict about topics."""

from __future__ import annotations

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic


def test_what_is_produced_in_a_transaction_is_read_back(kafka: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics([NewTopic("stack-test", num_partitions=1, replication_factor=1)])
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id="stack-test")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send("stack-test", key=b"k", value=b"v")
    producer.commit_transaction()
    consumer = KafkaConsumer(
        "stack-test", bootstrap_servers=kafka, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    [records] = consumer.poll(timeout_ms=20_000).values()
    assert [(record.key, record.value) for record in records] == [(b"k", b"v")]
    for client in (consumer, producer, admin):
        client.close()


def test_a_topic_is_not_made_by_asking_for_it(kafka: str) -> None:
    consumer = KafkaConsumer("no-such-topic", bootstrap_servers=kafka)
    consumer.poll(timeout_ms=500)
    assert "no-such-topic" not in consumer.topics()
    consumer.close()
