"""A message: what a sender asked for (`Draft`), and what is under way (`Claimed`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import uuid_utils

# A body up to this goes into the message's row. Calls to AI services are smaller, and rows stay cheap to move about; a
# larger one would be read from the database, and held in memory, with each claim.
INLINE_BYTES_MAX = 64 * 1024
# An answer up to this is held in memory until what follows from it is written. It is as much as is looked at for an error
# (JUDGED_BYTES_MAX).
ANSWER_INLINE_BYTES_MAX = 1024 * 1024

Kind = Literal["message", "callback", "failure_callback"]
State = Literal["queued", "waiting", "active", "delivered", "failed", "cancelled"]


# One claim of a message: its id, and when it was claimed by the database's clock. The same message claimed again is
# another claim, so what is late of an earlier one cannot be taken for the later one's.
Claim = tuple[str, datetime]


def new_message_id() -> str:
    """In the order of time, so that the newest rows share index pages."""
    return f"msg_{uuid_utils.uuid7().hex}"


@dataclass(frozen=True)
class CallbackOptions:
    """`Upstash-Callback` or `-Failure-Callback` with its own options; `headers` go onto the callback."""

    url: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    retries_max: int | None = None
    retry_delay: str | None = None
    timeout_ms: int | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class StartedCallback:
    """`Tidings-Started-Callback`: where the begin of each attempt is told, and `data` with it."""

    url: str
    data: str = ""


@dataclass(frozen=True)
class FlowControl:
    """The limits of a flow-control key: calls at once, and calls begun in a period; None: no such limit.

    `cooling`: an answer that asks to wait pauses the whole key.
    """

    key: str
    parallelism: int | None
    rate: int | None
    period_seconds: int = 1
    cooling: bool = True


@dataclass(frozen=True)
class Redaction:
    """What answers show only as a hash; it is delivered nevertheless. `headers` are lower-case names."""

    body: bool = False
    all_headers: bool = False
    headers: frozenset[str] = frozenset()

    def __or__(self, other: Redaction) -> Redaction:
        """What is hidden by one of the two."""
        return Redaction(self.body or other.body, self.all_headers or other.all_headers, self.headers | other.headers)


NOTHING_REDACTED = Redaction()


@dataclass(frozen=True)
class Stored:
    """A body in stored pieces; `sha256` is of its bytes, and what a signature covers."""

    key: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class Encoded:
    """Stands for the base64 of the first `size` bytes of the stored body `key`."""

    key: str
    size: int


@dataclass(frozen=True)
class Unencoded:
    """Stands for the base64 of `content`."""

    content: bytes


Piece = bytes | Encoded | Unencoded


@dataclass(frozen=True)
class Unstored:
    """A body that is too large for a row: to be put together from `pieces` and stored before its message is accepted."""

    pieces: tuple[Piece, ...]


Body = bytes | Stored


@dataclass(frozen=True)
class Draft:
    """A message as accepted. `headers` are those delivered, by their canonical names.

    `topic` is the URL group it was published to, and `endpoint` the name of the group's endpoint it goes to. Bytes of `body`
    are at most INLINE_BYTES_MAX; `parent_id` as in `Claimed`. `public_only`: no other address is called, whatever the
    operator allows.
    """

    url: str
    method: str
    headers: dict[str, str]
    body: Body | Unstored
    kind: Kind = "message"
    protocol: int = 2
    delay_seconds: float = 0.0
    retries_max: int = 3
    retry_delay: str | None = None
    timeout_ms: int = 7_200_000
    callback: CallbackOptions | None = None
    failure_callback: CallbackOptions | None = None
    started_callback: StartedCallback | None = None
    deduplication_id: str | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    flow: FlowControl | None = None
    redact: Redaction = NOTHING_REDACTED
    topic: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    final_status: tuple[int, ...] = ()
    final_errors: tuple[str, ...] = ()
    error_field: str | None = None
    on_unknown: Literal["retry", "fail"] = "retry"
    public_only: bool = False
    caller_ip: str = ""
    parent_id: str | None = None

    @property
    def label(self) -> str | None:
        """The first label."""
        return self.labels[0] if self.labels else None

    @property
    def inline_bytes(self) -> int:
        """How much of the body is in memory, and goes into the row."""
        return len(self.body) if isinstance(self.body, bytes) else 0

    def sent_to(self, url: str, body: Body) -> Draft:
        """The same message with another address and body. `dataclasses.replace` sets thirty fields one by one, which was a
        sixth of the time that a message of a batch takes.
        """
        other = object.__new__(Draft)
        other.__dict__.update(self.__dict__, url=url, body=body)
        return other


@dataclass(frozen=True)
class Claimed:
    """A message that this process holds; `retried` is the number of the attempt, from 0.

    `body_key` names the pieces of a body that is too large for the row (`body` is empty then); `parent_id` is of a
    callback: the queued message that waits for it. `put_offs`: so often it was put off since its last attempt.
    `sealed_bytes`: of headers and options, when they are large. `newer`: it has an option that this version does not know,
    so another process is to send it. `fault`:
    why it cannot be sent at all.
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
    retry_delay: str | None = None
    callback: CallbackOptions | None = None
    failure_callback: CallbackOptions | None = None
    started_callback: StartedCallback | None = None
    final_status: tuple[int, ...] = ()
    final_errors: tuple[str, ...] = ()
    error_field: str | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    flow_key: str | None = None
    topic: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    parent_id: str | None = None
    redact: Redaction = NOTHING_REDACTED
    public_only: bool = False
    put_offs: int = 0
    sealed_bytes: int = 0
    newer: bool = False
    fault: str | None = None
    claim: Claim = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for six times in each attempt.
        object.__setattr__(self, "claim", (self.id, self.started_at))

    @classmethod
    def of(cls, columns: Iterable[tuple[str, Any]], sealed: Mapping[str, Any], **others: Any) -> Claimed:
        """The same without `__init__`, which sets forty fields one by one: a thirtieth of the time that a call takes."""
        claimed = object.__new__(cls)
        fields = claimed.__dict__
        fields.update(columns)
        fields.update(sealed, **others)
        fields["claim"] = (fields["id"], fields["started_at"])
        return claimed

    @property
    def stored(self) -> Stored | None:
        """The body, when it is in pieces."""
        return None if self.body_key is None else Stored(self.body_key, self.body_size, self.body_sha256 or b"")

    @property
    def label(self) -> str | None:
        """The first label."""
        return self.labels[0] if self.labels else None
