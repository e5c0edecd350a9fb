"""A message: as its sender asked for it (`Draft`), and as a process holds it (`Claimed`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import uuid_utils

from services.relay.options import NO_OPTIONS, Options

# A body up to this size goes into the message's row. Requests to AI services are smaller, and rows stay cheap to copy.
# A larger body in the row would be read from the database, and held in memory, with each claim.
INLINE_BYTES_MAX = 64 * 1024
# An answer up to this size is held in memory until its ending is written. It equals JUDGED_BYTES_MAX, the part of an
# answer that is searched for an error code.
ANSWER_INLINE_BYTES_MAX = 1024 * 1024

Kind = Literal["message", "callback", "failure_callback"]
State = Literal["queued", "waiting", "active", "delivered", "failed", "cancelled"]


# One claim of a message: its id, and the time of the claim by the database's clock. A second claim of the same message
# is a different claim, so a late effect of the first cannot be taken for one of the second.
Claim = tuple[str, datetime]


def new_message_id() -> str:
    """Ids sort by time, so that the newest rows share index pages."""
    return f"msg_{uuid_utils.uuid7().hex}"


@dataclass(frozen=True)
class Stored:
    """A body in stored pieces. `sha256` is the hash of its bytes, which the signature covers."""

    key: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class Encoded:
    """A placeholder for the base64 of the first `size` bytes of the stored body `key`."""

    key: str
    size: int


@dataclass(frozen=True)
class Unencoded:
    """A placeholder for the base64 of `content`."""

    content: bytes


Piece = bytes | Encoded | Unencoded


@dataclass(frozen=True)
class Unstored:
    """A body too large for a row. It is composed of `pieces` and stored before its message is accepted."""

    pieces: tuple[Piece, ...]


Body = bytes | Stored


@dataclass(frozen=True)
class Draft:
    """A message as accepted. `headers` are the headers to deliver, by their canonical names.

    `topic` is the URL group it was published to, and `endpoint` the name of the group's endpoint that receives it.
    `body`, when it is bytes, has at most INLINE_BYTES_MAX; `parent_id` is as in `Claimed`.
    """

    url: str
    method: str
    headers: dict[str, str]
    body: Body | Unstored
    kind: Kind = "message"
    protocol: int = 2
    delay_seconds: float = 0.0
    retries_max: int = 3
    timeout_ms: int = 7_200_000
    deduplication_id: str | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    topic: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    on_unknown: Literal["retry", "fail"] = "retry"
    caller_ip: str = ""
    parent_id: str | None = None
    options: Options = NO_OPTIONS

    @property
    def label(self) -> str | None:
        """The first label."""
        return self.labels[0] if self.labels else None

    @property
    def inline_bytes(self) -> int:
        """The size of the body that is in memory and goes into the row."""
        return len(self.body) if isinstance(self.body, bytes) else 0

    def sent_to(self, url: str, body: Body) -> Draft:
        """The same message with another address and body. `dataclasses.replace` is not used: it sets twenty fields one
        by one, which took a sixth of the time of a message in a batch.
        """
        other = object.__new__(Draft)
        other.__dict__.update(self.__dict__, url=url, body=body)
        return other


@dataclass(frozen=True)
class Claimed:
    """A message that this process holds. `retried` is the number of the attempt, from 0.

    `body_key` names the pieces of a body that is too large for the row; `body` is then empty. `parent_id`, in a
    callback, is the queued message that waits for it. `put_offs` counts how often the message was put off since its
    last attempt. `sealed_bytes` is the size of headers and options, when they are large. `newer`: the message has an
    option that this version does not know, so another process must send it. `fault`: why the message cannot be sent at
    all.
    """

    id: str
    kind: Kind
    protocol: int
    url: str
    method: str
    headers: dict[str, str]
    body: bytes
    body_size: int
    retries_max: int
    timeout_ms: int
    on_unknown: str
    caller_ip: str
    created_at: datetime
    not_before: datetime
    retried: int
    started_at: datetime
    body_key: str | None = None
    body_sha256: bytes | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    flow_key: str | None = None
    topic: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    parent_id: str | None = None
    options: Options = NO_OPTIONS
    put_offs: int = 0
    sealed_bytes: int = 0
    newer: bool = False
    fault: str | None = None
    claim: Claim = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Read six times in each attempt.
        object.__setattr__(self, "claim", (self.id, self.started_at))

    @classmethod
    def of(cls, columns: Iterable[tuple[str, Any]], opened: Mapping[str, Any], **others: Any) -> Claimed:
        """Build without `__init__`, which sets thirty fields one by one and took a thirtieth of the time of a call."""
        claimed = object.__new__(cls)
        fields = claimed.__dict__
        fields.update(columns)
        fields.update(opened, **others)
        fields["claim"] = (fields["id"], fields["started_at"])
        return claimed

    @property
    def stored(self) -> Stored | None:
        """The body, when it is stored in pieces."""
        return None if self.body_key is None else Stored(self.body_key, self.body_size, self.body_sha256 or b"")

    @property
    def label(self) -> str | None:
        """The first label."""
        return self.labels[0] if self.labels else None
