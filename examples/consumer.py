"""Completions in ten lines of kafka-python: `TIDINGS_KAFKA=127.0.0.1:19092 python examples/consumer.py`."""

import json
import os

from kafka import KafkaConsumer

consumer = KafkaConsumer(
    "tidings.completions",
    bootstrap_servers=os.environ["TIDINGS_KAFKA"].split(","),
    group_id="example",
    isolation_level="read_committed",  # without it, events of aborted transactions are seen too
    auto_offset_reset="earliest",
)
for record in consumer:
    event = json.loads(record.value)
    print(event["outcome"], event["submission_id"], event["output"] or event["reason"] or event["result"])
