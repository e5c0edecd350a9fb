"""What becomes of a message as its sender sees it: waited for, never slept for."""

from __future__ import annotations

from qstash import QStash
from qstash.dlq import DlqMessage
from qstash.log import Log, LogState
from qstash.message import EnqueueResponse, PublishResponse

from tests.wait import until


def sent(answer: object) -> str:
    """The id of the one message that was published or enqueued."""
    assert isinstance(answer, (PublishResponse, EnqueueResponse))
    assert answer.message_id
    return answer.message_id


def states(client: QStash, message_id: str) -> list[LogState]:
    """The states the message went through, oldest first."""
    logs = client.log.list(filter={"message_id": message_id}).logs
    return [log.state for log in reversed(logs)]


def delivered(client: QStash, message_id: str) -> Log:
    """Its one row of delivery."""

    def rows() -> list[Log]:
        return client.log.list(filter={"message_id": message_id, "state": LogState.DELIVERED}).logs

    [row] = until(rows)
    return row


def buried(client: QStash, message_id: str) -> DlqMessage:
    """Its dead letter, as the list shows it."""
    [letter] = until(lambda: client.dlq.list(filter={"message_id": message_id}).messages)
    return letter
