"""Requests to the relay to remove the contents of submissions: one request covers many, within the relay's limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from tidings.contract.relay_labels import webhook_label

# The limits of the relay for one request. A submission has two labels: that of its calls, and that of its webhooks.
LABELS_MAX = 200
MESSAGE_IDS_MAX = 1000


@dataclass(frozen=True)
class RemovalRequest:
    """`message_ids` are the relay's ids of messages that carry one of `labels`."""

    labels: tuple[str, ...]
    message_ids: tuple[str, ...]


def removal_requests(contents: Iterable[tuple[UUID, Sequence[str]]]) -> Iterator[RemovalRequest]:
    """Build the requests for submissions and the ids of their messages. A submission that occurs several times is
    included once.

    Of a submission's ids, those beyond a thousand are omitted: the label finds everything that they would find.
    """
    merged: dict[UUID, dict[str, None]] = {}
    for id_, message_ids in contents:
        merged.setdefault(id_, {}).update(dict.fromkeys(message_ids))
    labels: list[str] = []
    ids: list[str] = []
    for id_, known in merged.items():
        own = list(known)[:MESSAGE_IDS_MAX]
        if labels and (len(labels) + 2 > LABELS_MAX or len(ids) + len(own) > MESSAGE_IDS_MAX):
            yield RemovalRequest(tuple(labels), tuple(ids))
            labels, ids = [], []
        labels += [str(id_), webhook_label(id_)]
        ids += own
    if labels:
        yield RemovalRequest(tuple(labels), tuple(ids))
