"""A message's state as its sender sees it, with waits that have deadlines."""

from __future__ import annotations

from qstash import QStash
from qstash.dlq import DlqMessage
from qstash.log import Log, LogState
from qstash.message import EnqueueResponse, PublishResponse

from tests.wait import until


def sent(answer: object) -> str:
    """The id of the single message that was published or enqueued."""
    assert isinstance(answer, (PublishResponse, EnqueueResponse))
    assert answer.message_id
    return answer.message_id


def states(client: QStash, message_id: str) -> list[LogState]:
    """The states of the message, oldest first."""
    logs = client.log.list(filter={"message_id": message_id}).logs
    return [log.state for log in reversed(logs)]


def delivered(client: QStash, message_id: str) -> Log:
    """Its single row of delivery."""

    def rows() -> list[Log]:
        return client.log.list(filter={"message_id": message_id, "state": LogState.DELIVERED}).logs

    [row] = until(rows)
    return row


def buried(client: QStash, message_id: str) -> DlqMessage:
    """Its dead letter, from the list."""
    [letter] = until(lambda: client.dlq.list(filter={"message_id": message_id}).messages)
    return letter
