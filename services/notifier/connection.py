"""One connection to Kafka: a consumer of changes, and the transactions that commit what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.kafka.changes import Changes
from tidings.kafka.transactions import Transactions


@dataclass(frozen=True)
class Connection:
    """`transactions` also commit the offsets of `changes`."""

    changes: Changes
    transactions: Transactions
