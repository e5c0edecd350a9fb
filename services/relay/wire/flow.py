"""Flow control as senders write it: a key's limits, pins, and what is unpinned. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.relay.message import FlowControl


@dataclass(frozen=True)
class Pin:
    """Limits that messages do not change; None: that limit is not pinned by this request."""

    parallelism: int | None
    rate: int | None
    period_seconds: int | None


@dataclass(frozen=True)
class Unpin:
    """Which limits follow the messages again."""

    parallelism: bool
    rate: bool


def parse_flow_control(key: str, value: str, *, cooling: bool = True) -> FlowControl:
    """`parallelism=5, rate=10, period=1m`. Raises `InvalidRequestError`."""
    raise NotImplementedError


def parse_pin(query: str) -> Pin:
    """The query of `POST /v2/flowControl/{key}/pin`. Raises `InvalidRequestError`."""
    raise NotImplementedError


def parse_unpin(query: str) -> Unpin:
    """The query of `POST /v2/flowControl/{key}/unpin`. Raises `InvalidRequestError`."""
    raise NotImplementedError
