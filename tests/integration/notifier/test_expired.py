"""Changes that expire before they are read, on a real broker, are reported by the log, a metric and readiness."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import requests
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.structs import TopicPartition

from tests.integration.notifier.conftest import Notifying, Topics
from tests.process import started
from tests.wait import until
from tidings.contract.topics import PARTITIONS, RESULTS


def _expire(topics: Topics) -> None:
    """Delete all records, as retention would."""
    parts = [TopicPartition(RESULTS, number) for number in range(PARTITIONS)]
    with closing(KafkaConsumer(bootstrap_servers=topics.bootstrap)) as consumer:
        ends = consumer.end_offsets(parts)
    with closing(KafkaAdminClient(bootstrap_servers=topics.bootstrap)) as admin:
        admin.delete_records(ends)


def _fault(notifying: Notifying) -> str | None:
    with suppress(requests.RequestException):
        return str(requests.get(f"{notifying._url}/readyz", timeout=30).json()["faults"].get("kafka"))
    return None


def _is_told_once(topics: Topics, notifying: Notifying, submission: str) -> None:
    try:
        assert until(lambda: topics.completions(submission), 60) == [submission]
    except AssertionError as error:
        raise AssertionError(f"{error}\n{notifying.log()}") from None


def _notifying(topics: Topics, directory: Path, instance: str) -> Notifying:
    made = Notifying(topics.bootstrap, directory, instance)
    made.process.ready_url = f"{made._url}/healthz"
    return made


def test_changes_that_expire_unread_are_reported(topics: Topics, instance: str, tmp_path: Path) -> None:
    notifying = _notifying(topics, tmp_path, instance)
    with started(notifying.process) as process:
        before = topics.change()
        _is_told_once(topics, notifying, before)
        assert _fault(notifying) == "None"
        process.stop()
        lost = [topics.change() for _ in range(3)]
        _expire(topics)
        process.start()
        until(lambda: "expired before they were read" in str(_fault(notifying)), 60)
        after = topics.change()
        _is_told_once(topics, notifying, after)
        assert topics.completions(*lost) == []
        # Transaction markers count as records of the log. There is at least one for each lost change.
        assert notifying.metric("tidings_notifier_changes_expired") >= len(lost)
        said = notifying.said("changes_expired")
        assert sum(line["missed"] for line in said) >= len(lost)
        assert all(line["how_to"] == "docs/how-to/expired-changes.md" for line in said)
        # After a restart the notifier is ready. The control: it reports no loss then.
        process.stop()
        process.start()
        until(lambda: _fault(notifying) == "None", 60)
        assert len(notifying.said("changes_expired")) == len(said)
